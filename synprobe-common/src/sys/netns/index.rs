//! Finds namespaces by inode, again and again, at a bounded cost. What is known is looked up at once. For what is
//! not, a thread walks over `/proc`: whoever asks never waits for it. Walks take a bounded share of a core, so who
//! makes namespaces by the thousand costs no more for it. What only a thread or a descriptor holds is looked for in
//! the process that was seen in it, then in all others, some at a time: a host may have 50,000 descriptors.

use std::{
    collections::{HashMap, HashSet},
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{NetNs, holder_sweep::HolderSweep, scan};
use crate::sys::{clock::CpuTimer, cpu_share::CpuShare};

/// In the long run walks take one part in this many of a core.
const SHARE: u32 = 200;
/// CPU time that may be spent ahead of that share: a namespace of a second must be opened while it is there.
const AHEAD: Duration = Duration::from_millis(100);
/// The pause after a walk is at least this: it showed all that there was.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// CPU time of one look at threads and descriptors; the next one goes on where it ended.
const SLICE: Duration = Duration::from_millis(50);
/// Namespaces that are looked for at the same time, at most; and those that are remembered which no process shows.
const MOST_WANTED: usize = 4096;
/// Processes that are looked at first, at most.
const MOST_SEEN: usize = 64;

/// See the module. Clones share what is known, and the walks.
#[derive(Clone, Debug, Default)]
pub struct NetnsIndex {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    walked: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    paths: HashMap<u32, PathBuf>,
    /// Those that only a thread or a descriptor holds.
    held: HashMap<u32, PathBuf>,
    names: scan::Names,
    wanted: HashSet<u32>,
    /// Processes that were seen in them.
    seen: HashSet<u32>,
    /// Names and processes are to be looked at again.
    stale: bool,
    /// A thread walks, or will.
    walking: bool,
    walks: Walks,
}

/// What walks have cost.
#[derive(Debug)]
struct Walks(CpuShare);

impl Default for Walks {
    fn default() -> Self {
        Self(CpuShare::new(SHARE, AHEAD))
    }
}

impl Walks {
    /// How long the next walk has to wait.
    fn pause(&self, now: Instant) -> Duration {
        let least = LEAST_PAUSE.saturating_sub(self.0.since_end(now));
        self.0.pause(now).max(least)
    }
}

impl NetnsIndex {
    /// Takes in every namespace that a name or a process shows now. Walks in the caller's thread: for the start.
    pub fn learn(&self) {
        let paths = scan::paths();
        self.known().paths = paths;
    }

    /// The namespace with this inode number. `None`: it is not known. Then a thread looks for it, and
    /// [`Self::walked`] changes when it has.
    pub fn find(&self, inode: u32) -> Option<NetNs> {
        self.find_near(inode, None)
    }

    fn find_near(&self, inode: u32, seen: Option<u32>) -> Option<NetNs> {
        let mut known = self.known();
        let found = known.open(inode);
        if found.is_none() && known.wanted.len() < MOST_WANTED {
            known.wanted.insert(inode);
            if known.seen.len() < MOST_SEEN {
                known.seen.extend(seen);
            }
            self.walk_soon(&mut known);
        }
        found
    }

    /// The same, where a name or a process shows it. Descriptors do not count: they may be ours, or another agent's,
    /// which keeps the namespace for no better reason.
    pub fn find_used(&self, inode: u32) -> Option<NetNs> {
        let mut known = self.known();
        let found = known.open_used(inode);
        if found.is_none() {
            known.stale = true;
            self.walk_soon(&mut known);
        }
        found
    }

    /// As [`Self::find`], where a process was just seen in it: no walk is needed while that one lives.
    pub fn find_by(&self, inode: u32, pid: u32) -> Option<NetNs> {
        let mut known = self.known();
        if let Some(found) = known.open(inode) {
            return Some(found);
        }
        let of_process = PathBuf::from(format!("/proc/{pid}/ns/net"));
        if scan::inode_of(&of_process) == Some(inode) {
            let named = known.names.path_of(inode);
            known.paths.insert(inode, named.unwrap_or(of_process));
            if let Some(found) = known.open(inode) {
                return Some(found);
            }
        }
        drop(known);
        // It may be one of its threads.
        self.find_near(inode, Some(pid))
    }

    /// Changes when something was found, and when a search has ended: what was not found before may be then.
    pub fn walked(&self) -> u64 {
        self.shared.walked.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn walk_soon(&self, known: &mut Known) {
        if known.walking {
            return;
        }
        let index = self.clone();
        let thread = thread::Builder::new().name("namespaces".into());
        // Without one, the next request tries again.
        known.walking = thread.spawn(move || index.walk()).is_ok();
    }

    /// Walks while something is wanted.
    fn walk(&self) {
        let mut sweep = HolderSweep::default();
        loop {
            let pause = self.known().walks.pause(Instant::now());
            thread::sleep(pause);
            let timer = CpuTimer::begin();
            let (mut wanted, seen) = {
                let mut known = self.known();
                known.stale = false;
                (mem::take(&mut known.wanted), mem::take(&mut known.seen))
            };
            let paths = scan::paths();
            wanted.retain(|inode| !paths.contains_key(inode));
            sweep.look_for(wanted, seen);
            let (held, found) = sweep.go_on(|| timer.took() >= SLICE);
            let took = timer.took();
            let mut known = self.known();
            known.paths = paths;
            // One that is gone is forgotten when it is opened.
            if known.held.len() + held.len() > MOST_WANTED {
                known.held.clear();
            }
            known.held.extend(held);
            known.walks.0.spent(Instant::now(), took);
            if found || sweep.has_ended() {
                self.shared.walked.fetch_add(1, Ordering::Relaxed);
            }
            if sweep.has_ended() && known.wanted.is_empty() && !known.stale {
                known.walking = false;
                return;
            }
        }
    }
}

impl Known {
    /// Opens a namespace where the last walk saw a name or a process of it.
    fn open_used(&mut self, inode: u32) -> Option<NetNs> {
        let path = self.paths.get(&inode)?;
        let found = scan::open_as(inode, path, || scan::name_of_path(inode, path));
        if found.is_none() {
            self.paths.remove(&inode);
        }
        found
    }

    /// Opens a namespace where the last walk saw it.
    fn open(&mut self, inode: u32) -> Option<NetNs> {
        if let Some(found) = self.open_used(inode) {
            return Some(found);
        }
        let path = self.held.get(&inode)?;
        let found = scan::open_as(inode, path, || format!("netns:[{inode}]"));
        if found.is_none() {
            self.held.remove(&inode);
        }
        found
    }
}

/// Where a namespace was opened. Unlike [`NetNs`] it keeps nothing alive.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    pub(super) inode: u32,
    pub(super) path: Arc<Path>,
}

impl Whereabouts {
    /// Whether the namespace is still there: a name, a process or a descriptor of somebody shows it.
    pub fn still_there(&self) -> bool {
        scan::inode_of(&self.path) == Some(self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for the thread.
    pub(super) fn eventually(index: &NetnsIndex, inode: u32) -> Option<NetNs> {
        let walked = index.walked();
        let found = index.find(inode);
        while found.is_none() && index.walked() == walked {
            thread::sleep(Duration::from_millis(1));
        }
        found.or_else(|| index.known().open(inode))
    }

    #[test]
    fn what_a_walk_showed_needs_no_other() {
        let here = NetNs::current().unwrap().inode();
        let index = NetnsIndex::default();
        assert!(index.find(here).is_none(), "the caller does not wait");
        assert_eq!(
            eventually(&index, here).map(|found| found.inode()),
            Some(here)
        );
        let walked = index.walked();
        assert_eq!(
            index.clone().find(here).map(|found| found.inode()),
            Some(here)
        );
        assert_eq!(index.walked(), walked);
        assert!(eventually(&index, 1).is_none(), "no such inode");
        let path = Path::new("/proc/self/ns/net").to_owned();
        index.known().paths.insert(1, path);
        assert!(index.known().open(1).is_none(), "the file decides");
    }

    #[test]
    fn issue20_a_process_that_is_in_it_shows_it_without_a_walk() {
        let here = NetNs::current().unwrap().inode();
        let index = NetnsIndex::default();
        let found = index.find_by(here, std::process::id());
        assert_eq!(found.map(|found| found.inode()), Some(here));
        assert!(!index.known().walking && index.walked() == 0);
    }

    #[test]
    #[ignore = "needs root"]
    fn issue20_a_descriptor_is_no_user() {
        let ours = NetNs::new_anonymous().unwrap();
        let index = NetnsIndex::default();
        assert!(
            eventually(&index, ours.inode()).is_some(),
            "it can be found by it"
        );
        let walked = index.walked();
        assert!(index.find_used(ours.inode()).is_none());
        while index.walked() == walked {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(
            index.find_used(ours.inode()).is_none(),
            "and is nobody else's"
        );
        let here = NetNs::current().unwrap();
        assert!(index.find_used(here.inode()).is_some());
    }

    #[test]
    fn a_walk_that_showed_all_needs_no_other_at_once() {
        let mut walks = Walks::default();
        let now = Instant::now();
        assert!(walks.pause(now).is_zero());
        walks.0.spent(now, Duration::from_millis(20));
        assert_eq!(walks.pause(now), LEAST_PAUSE);
        assert!(walks.pause(now + LEAST_PAUSE).is_zero());
    }
}
