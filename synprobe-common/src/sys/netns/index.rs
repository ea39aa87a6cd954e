//! Finds namespaces by inode, again and again, at a bounded cost: a walk over `/proc` is remembered, and walks
//! take a bounded share of a core. Who makes namespaces by the thousand costs the caller no more for it.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{NetNs, scan};
use crate::sys::clock::thread_cpu;

/// In the long run walks take one part in this many of a core.
const SHARE: u32 = 50;
/// CPU time that may be spent ahead of that share: a namespace of a second must be opened while it is there.
const AHEAD: Duration = Duration::from_millis(200);
/// The pause after a walk is at least this: it showed all that there was.
const LEAST_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug, Default)]
pub struct NetnsIndex {
    paths: HashMap<u32, PathBuf>,
    /// Those that only a thread or a descriptor holds.
    held: HashMap<u32, PathBuf>,
    walks: Walks,
}

/// What walks have cost.
#[derive(Debug, Default)]
struct Walks {
    /// CPU time that the share has not paid for yet, when the last walk ended.
    debt: Duration,
    ended: Option<Instant>,
}

impl Walks {
    fn debt_at(&self, now: Instant) -> Duration {
        let since = self
            .ended
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        self.debt.saturating_sub(since / SHARE)
    }

    fn may_begin(&self, now: Instant) -> bool {
        self.ended
            .is_none_or(|at| now.saturating_duration_since(at) >= LEAST_PAUSE)
            && self.debt_at(now) < AHEAD
    }

    fn ended(&mut self, now: Instant, took: Duration) {
        self.debt = self.debt_at(now) + took;
        self.ended = Some(now);
    }
}

impl NetnsIndex {
    /// The namespace with this inode number. `None`: nothing visible holds it open, it cannot be opened, or it
    /// is so new that the last walk did not show it and the next one may not begin yet.
    pub fn find(&mut self, inode: u32) -> Option<NetNs> {
        if let Some(found) = self.known(inode) {
            return Some(found);
        }
        if !self.walks.may_begin(Instant::now()) {
            return None;
        }
        let began = thread_cpu();
        self.paths = scan::paths();
        self.held.clear();
        let mut found = self.known(inode);
        if found.is_none() {
            // All that this longer walk shows is remembered: the next new one is found without another.
            self.held = scan::held();
            found = self.known(inode);
        }
        let took = thread_cpu().saturating_sub(began);
        self.walks.ended(Instant::now(), took);
        found
    }

    fn known(&mut self, inode: u32) -> Option<NetNs> {
        if let Some(path) = self.paths.get(&inode) {
            let found = scan::open_as(inode, path, || scan::name_of_path(inode, path));
            if found.is_some() {
                return found;
            }
            self.paths.remove(&inode);
        }
        let path = self.held.get(&inode)?;
        let found = scan::open_as(inode, path, || format!("netns:[{inode}]"));
        if found.is_none() {
            self.held.remove(&inode);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_a_walk_showed_needs_no_other() {
        let here = NetNs::current().unwrap().inode();
        let mut index = NetnsIndex::default();
        assert_eq!(index.find(here).map(|found| found.inode()), Some(here));
        index.walks.ended(Instant::now(), AHEAD);
        assert_eq!(index.find(here).map(|found| found.inode()), Some(here));
        assert!(index.find(1).is_none(), "no such inode");
        index
            .paths
            .insert(1, Path::new("/proc/self/ns/net").to_owned());
        assert!(index.find(1).is_none(), "the file decides");
    }

    #[test]
    fn walks_take_their_share_and_no_more() {
        // A walk of 20 ms, whenever one may begin, asked for every 10 ms.
        let took = Duration::from_millis(20);
        let step = Duration::from_millis(10);
        let mut walks = Walks::default();
        let mut now = Instant::now();
        let mut begun = Vec::new();
        for _ in 0..6000 {
            if walks.may_begin(now) {
                walks.ended(now, took);
                begun.push(now);
            }
            now += step;
        }
        // 2 % of 60 s, and what is ahead of it.
        let spent = took * u32::try_from(begun.len()).unwrap();
        let due = Duration::from_secs(60) / SHARE + AHEAD;
        assert!(spent >= due - took && spent <= due + took, "{spent:?}");
        // Never longer than a second without one.
        assert!(
            begun
                .windows(2)
                .all(|w| w[1] - w[0] <= Duration::from_millis(1010))
        );
        assert!(begun[1] - begun[0] == LEAST_PAUSE);
    }
}
