//! Finds namespaces by inode, again and again, at a bounded cost: a walk over `/proc` is remembered, and the
//! next one waits. Who makes namespaces by the thousand costs the caller no more for it.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{NetNs, scan};
use crate::sys::clock::thread_cpu;

/// Walks may take this share of one core: the pause after one is this many times its CPU time.
const PAUSE: u32 = 50;
/// It is never longer: a namespace of a second must be opened while it is there.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Default)]
pub struct NetnsIndex {
    paths: HashMap<u32, PathBuf>,
    /// Those that only a thread or a descriptor holds.
    held: HashMap<u32, PathBuf>,
    /// No walk before this.
    due: Option<Instant>,
}

impl NetnsIndex {
    /// The namespace with this inode number. `None`: nothing visible holds it open, it cannot be opened, or it
    /// is so new that the last walk did not show it and the next one is not due yet.
    pub fn find(&mut self, inode: u32) -> Option<NetNs> {
        if let Some(found) = self.known(inode) {
            return Some(found);
        }
        if self.due.is_some_and(|due| Instant::now() < due) {
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
        self.due = Some(Instant::now() + (took * PAUSE).min(LONGEST_PAUSE));
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
        index.due = Some(Instant::now() + Duration::from_secs(600));
        assert_eq!(index.find(here).map(|found| found.inode()), Some(here));
        assert!(index.find(1).is_none(), "no such inode");
        index
            .paths
            .insert(1, Path::new("/proc/self/ns/net").to_owned());
        assert!(index.find(1).is_none(), "the file decides");
    }
}
