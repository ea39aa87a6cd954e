//! Searches all processes for namespaces that only a thread or a descriptor holds. A descriptor costs some ten
//! microseconds and a host may have 50,000, so a search may stop, and go on later.

use std::{
    collections::{HashMap, HashSet},
    mem,
    path::PathBuf,
};

use super::scan;

/// Namespaces that are looked for, at most.
const MOST: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HolderSweep {
    /// Looked for since the sweep began.
    wanted: HashSet<u32>,
    /// Looked for by the next sweep: some processes were looked at before these were asked for.
    later: HashSet<u32>,
    /// Processes that were seen in them: looked at first.
    seen: HashSet<u32>,
    /// The other processes, those to be looked at next at the end.
    left: Vec<u32>,
}

impl HolderSweep {
    /// Looks for these too. `seen`: processes that were seen in them.
    pub fn look_for(&mut self, namespaces: HashSet<u32>, seen: HashSet<u32>) {
        self.seen.extend(seen);
        for inode in namespaces {
            if !self.wanted.contains(&inode) && self.later.len() < MOST {
                self.later.insert(inode);
            }
        }
    }

    /// Whether nothing is looked for any more.
    pub fn has_ended(&self) -> bool {
        self.wanted.is_empty() && self.later.is_empty()
    }

    /// Goes on until `stop`, or the end of the sweep: everything that those processes hold, and where; and whether
    /// something that was looked for is among it.
    pub fn go_on(&mut self, stop: impl Fn() -> bool) -> (HashMap<u32, PathBuf>, bool) {
        let mut held = HashMap::new();
        let look_at = |pid, held: &mut HashMap<u32, PathBuf>| {
            scan::held_by(pid, |inode, path| {
                held.entry(inode).or_insert(path);
            });
        };
        let mut found = false;
        if !self.has_ended() {
            self.seen.iter().for_each(|pid| look_at(*pid, &mut held));
            found |= self.drop_found(&held);
        }
        self.seen.clear();
        if self.wanted.is_empty() {
            self.wanted = mem::take(&mut self.later);
            self.left = match self.wanted.is_empty() {
                true => Vec::new(),
                false => scan::pids(),
            };
        }
        while !stop()
            && let Some(pid) = self.left.pop()
        {
            look_at(pid, &mut held);
        }
        found |= self.drop_found(&held);
        if self.left.is_empty() {
            self.wanted.clear();
        }
        (held, found)
    }

    fn drop_found(&mut self, held: &HashMap<u32, PathBuf>) -> bool {
        let before = self.wanted.len() + self.later.len();
        self.wanted.retain(|inode| !held.contains_key(inode));
        self.later.retain(|inode| !held.contains_key(inode));
        self.wanted.len() + self.later.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_goes_on_where_it_ended() {
        let pids = scan::pids().len();
        let mut sweep = HolderSweep::default();
        assert!(sweep.has_ended() && sweep.go_on(|| false).0.is_empty());
        // There is no such namespace.
        sweep.look_for(HashSet::from([1]), HashSet::new());
        let mut slices = 0;
        while !sweep.has_ended() {
            let looked = std::cell::Cell::new(0);
            sweep.go_on(|| looked.replace(looked.get() + 1) == 10);
            slices += 1;
            if slices == 2 {
                // It was asked for when some were looked at already.
                sweep.look_for(HashSet::from([1, 2]), HashSet::new());
            }
        }
        let once = pids / 10;
        assert!(slices >= 2 * once, "{slices} slices of {pids} processes");
    }

    #[test]
    #[ignore = "needs root"]
    fn the_process_that_was_seen_is_looked_at_first() {
        let ours = crate::sys::netns::NetNs::new_anonymous().unwrap();
        let mut sweep = HolderSweep::default();
        sweep.look_for(
            HashSet::from([ours.inode()]),
            HashSet::from([std::process::id()]),
        );
        let (held, found) = sweep.go_on(|| true);
        assert!(found && held.contains_key(&ours.inode()) && sweep.has_ended());
    }
}
