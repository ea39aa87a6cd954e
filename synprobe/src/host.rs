//! What the tracker asks of the host, answered from files that are kept open.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use crate::{
    diag::{self, cgroup::Cgroups, counters::CounterReader},
    netns,
    track::Names,
};

/// The running host.
pub struct HostNames {
    cgroups: RefCell<Option<Cgroups>>,
    paths: RefCell<HashMap<u64, Option<Arc<str>>>>,
    counters: RefCell<HashMap<u32, Option<CounterReader>>>,
}

/// Answers kept; cleared whole when there are more, which bounds memory and lets a new cgroup of an
/// old id be found.
const KEPT: usize = 4096;

impl HostNames {
    /// Opens the cgroup v2 mount, where there is one.
    pub fn new() -> Self {
        Self {
            cgroups: RefCell::new(Cgroups::open().ok()),
            paths: RefCell::default(),
            counters: RefCell::default(),
        }
    }
}

impl Default for HostNames {
    fn default() -> Self {
        Self::new()
    }
}

impl Names for HostNames {
    fn cgroup(&self, id: u64) -> Option<Arc<str>> {
        let mut paths = self.paths.borrow_mut();
        if paths.len() >= KEPT {
            paths.clear();
        }
        paths
            .entry(id)
            .or_insert_with(|| self.cgroups.borrow_mut().as_mut()?.path(id).map(Arc::from))
            .clone()
    }

    fn counter(&self, inode: u32, name: &str) -> Option<u64> {
        let mut counters = self.counters.borrow_mut();
        if counters.len() >= KEPT {
            counters.clear();
        }
        let reader = counters.entry(inode).or_insert_with(|| {
            netns::find(inode).and_then(|netns| CounterReader::open(&netns).ok())
        });
        reader.as_mut()?.read().ok()?.get(name)
    }

    fn now_ns(&self) -> u64 {
        diag::monotonic_ns()
    }
}
