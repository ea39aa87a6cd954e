//! The owners of listeners, kept from round to round: a search walks over `/proc`.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{
    diag::{
        listen_queues::ListenerProcess,
        socket_owner::{Bounds, OwnerCache},
    },
    sys::clock::thread_cpu,
};

/// The search may take this share of one core: its pause is this many times its CPU time.
const PAUSE: u32 = 100;
/// An owner is searched again after this time: exec() keeps the socket and changes the name, and a pre-forked
/// server may have left it to its workers.
const AGAIN: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct OwnerSearch {
    cache: OwnerCache,
    known: HashMap<u32, (ListenerProcess, Instant)>,
    /// Not before this, except for a namespace that is new.
    due: Option<Instant>,
}

impl OwnerSearch {
    /// Searches the owners of sockets that are not known, or were searched long ago. With `at_once` also
    /// directly after the last search.
    pub(super) fn learn(&mut self, inodes: &[u32], at_once: bool) {
        let now = Instant::now();
        if !at_once && self.due.is_some_and(|due| now < due) {
            return;
        }
        let is_known = |inode: &u32| {
            let known = self.known.get(inode);
            known.is_some_and(|(_, asked)| now.duration_since(*asked) < AGAIN)
        };
        let wanted: Vec<u32> = inodes.iter().copied().filter(|i| !is_known(i)).collect();
        if wanted.is_empty() {
            return;
        }
        let began = thread_cpu();
        let mut found = self.cache.find(&wanted, Bounds::default());
        for inode in wanted {
            let owner = found.by_inode.remove(&inode);
            // A search that was cut short proves nothing about the rest.
            if owner.is_none() && !found.complete {
                continue;
            }
            let who = owner.map(ListenerProcess::of).unwrap_or_default();
            self.known.insert(inode, (who, now));
        }
        self.due = Some(Instant::now() + thread_cpu().saturating_sub(began) * PAUSE);
    }

    pub(super) fn who(&self, inode: u32) -> Option<ListenerProcess> {
        self.known.get(&inode).map(|(who, _)| who.clone())
    }

    /// Forgets all others.
    pub(super) fn retain(&mut self, inodes: &HashSet<u32>) {
        let cache = &mut self.cache;
        self.known.retain(|inode, _| {
            let stays = inodes.contains(inode);
            if !stays {
                cache.forget(*inode);
            }
            stays
        });
    }
}
