//! What each process belongs to, resolved once and fed before the event that needs it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::Arc,
};

use crate::{engine::Input, model::Process, sys::workload::Workloads, track::REMEMBERED_NAMES};

/// Remembered as fed: half of what the engine remembers, so that it still has each of them.
const REMEMBERED: usize = REMEMBERED_NAMES / 2;

/// See the module.
pub(super) struct WorkloadFeed {
    workloads: Workloads,
    /// Whether this host has cgroup v1 hierarchies: then the path of version 2 does not decide it.
    hybrid: bool,
    /// The cgroup id and the command of each process at its last event. Another one has taken its pid when they
    /// change.
    at_events: HashMap<u32, (u64, [u8; 16])>,
    /// The same, of processes that a search found.
    searched: HashMap<u32, (Arc<str>, Option<Arc<str>>)>,
    paths: HashSet<Arc<str>>,
}

impl Default for WorkloadFeed {
    fn default() -> Self {
        // Version 2 alone has one line, `0::/path`.
        let own = fs::read("/proc/self/cgroup").unwrap_or_default();
        Self {
            workloads: Workloads::default(),
            hybrid: own
                .split(|b| *b == b'\n')
                .filter(|line| !line.is_empty())
                .count()
                > 1,
            at_events: HashMap::new(),
            searched: HashMap::new(),
            paths: HashSet::new(),
        }
    }
}

impl WorkloadFeed {
    /// Whether the process of an event may belong to something that was not fed.
    pub fn is_news(&mut self, pid: u32, cgroup: u64, comm: &[u8; 16]) -> bool {
        let now = (cgroup, *comm);
        if self.at_events.get(&pid) == Some(&now) {
            return false;
        }
        if self.at_events.len() >= REMEMBERED {
            self.at_events.clear();
        }
        self.at_events.insert(pid, now);
        true
    }

    /// The same of a process that a search found.
    pub fn is_new(&mut self, process: &Process, cgroup: Option<&Arc<str>>) -> bool {
        let known = self.searched.get(&process.pid);
        if known.is_some_and(|(comm, path)| *comm == process.comm && path.as_ref() == cgroup) {
            return false;
        }
        if self.searched.len() >= REMEMBERED {
            self.searched.clear();
        }
        self.searched
            .insert(process.pid, (process.comm.clone(), cgroup.cloned()));
        true
    }

    /// Resolves and feeds it, unless its cgroup was fed.
    pub fn feed(&mut self, pid: u32, cgroup: Option<Arc<str>>, feed: &mut impl FnMut(Input)) {
        if cgroup
            .as_ref()
            .is_some_and(|path| self.paths.contains(path))
        {
            return;
        }
        let names = self.workloads.of(cgroup.as_deref(), pid).map(Arc::new);
        let decided = |path: &Arc<str>| !self.hybrid || Workloads::decides(path);
        let (cgroup, pid) = match cgroup.filter(decided) {
            Some(path) => (Some(path), None),
            None => (None, Some(pid)),
        };
        if let Some(path) = &cgroup {
            if self.paths.len() >= REMEMBERED {
                self.paths.clear();
            }
            self.paths.insert(Arc::clone(path));
        }
        feed(Input::Workload { cgroup, pid, names });
    }
}
