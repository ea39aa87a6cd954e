//! Which listeners are followed. A user may open any number of them, and each takes memory at every stage. Beyond the
//! bound those in which something happens come first, and one that was followed stays: were it left out, it would seem
//! to have closed.

use std::collections::{HashMap, HashSet};

use crate::diag::listen_sockets::ListenSocket;

/// Listeners in which nothing happens fill the table up to three of these parts: the rest is for the others.
const PARTS: usize = 4;

/// See the module.
pub(super) struct FollowedListeners {
    most: usize,
    /// Inodes of the sockets, by namespace.
    by_netns: HashMap<u32, HashSet<u32>>,
    /// All of them: there may be a thousand namespaces to sum up for each.
    taken: usize,
}

/// Listeners of a namespace that are not followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Nothing happens in them.
    pub idle: usize,
    /// The others.
    pub active: usize,
}

impl FollowedListeners {
    pub fn within(most: usize) -> Self {
        Self {
            most: most.max(1),
            by_netns: HashMap::new(),
            taken: 0,
        }
    }

    /// Forgets what is in no other namespace than these.
    pub fn retain(&mut self, netns: impl Fn(u32) -> bool) {
        self.by_netns.retain(|inode, _| netns(*inode));
        self.taken = self.by_netns.values().map(HashSet::len).sum();
    }

    /// Begins the listeners of a namespace.
    pub fn choose(&mut self, netns: u32) -> Choice<'_> {
        let before = self.by_netns.remove(&netns).unwrap_or_default();
        let room = self.most.saturating_sub(self.taken);
        // No namespace takes all of what is left.
        let idle = (self.most - self.most / PARTS).saturating_sub(self.taken);
        Choice {
            all: self,
            netns,
            before,
            now: HashSet::new(),
            room,
            idle: idle.div_ceil(2),
            left_out: LeftOut::default(),
        }
    }
}

/// The listeners of one namespace, one after the other.
pub(super) struct Choice<'f> {
    all: &'f mut FollowedListeners,
    netns: u32,
    before: HashSet<u32>,
    now: HashSet<u32>,
    room: usize,
    idle: usize,
    left_out: LeftOut,
}

impl Choice<'_> {
    /// Whether one is followed. `has_half_opens`: its port has.
    pub fn follows(&mut self, l: &ListenSocket, has_half_opens: bool) -> bool {
        let is_active = has_half_opens || l.accept_queue > 0 || l.drops.is_some_and(|d| d > 0);
        let is_known = self.before.contains(&l.inode);
        let follows = is_known || self.room > 0 && (is_active || self.idle > 0);
        match (follows, is_active) {
            (true, _) if is_known => (),
            (true, false) => (self.room, self.idle) = (self.room - 1, self.idle - 1),
            (true, true) => self.room -= 1,
            (false, false) => self.left_out.idle += 1,
            (false, true) => self.left_out.active += 1,
        }
        if follows {
            self.now.insert(l.inode);
        }
        follows
    }

    /// How many are left out.
    pub fn end(self) -> LeftOut {
        self.all.taken = self.all.taken - self.before.len() + self.now.len();
        self.all.by_netns.insert(self.netns, self.now);
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(inode: u32, drops: u32) -> ListenSocket {
        ListenSocket {
            netns: 1,
            family: 2,
            local_addr: [0; 16],
            local_port: 80,
            ifindex: 0,
            inode,
            accept_queue: 0,
            accept_queue_max: 128,
            uid: 0,
            v6only: false,
            cgroup: None,
            drops: Some(drops),
            transparent: false,
        }
    }

    /// The inodes that are followed, and what is left out.
    fn chosen(
        all: &mut FollowedListeners,
        netns: u32,
        them: impl Iterator<Item = (u32, u32)>,
    ) -> (Vec<u32>, LeftOut) {
        let mut choice = all.choose(netns);
        let them = them.filter(|(inode, drops)| choice.follows(&listener(*inode, *drops), false));
        let followed: Vec<u32> = them.map(|(inode, _)| inode).collect();
        (followed, choice.end())
    }

    #[test]
    fn issue20_listeners_are_bounded_and_stay_followed() {
        let mut all = FollowedListeners::within(400);
        // A tenant with very many: half of what is left, and it is said.
        let (first, left_out) = chosen(&mut all, 1, (0..114_000).map(|i| (i, 0)));
        assert_eq!((first.len(), left_out.idle), (150, 113_850));
        // The host has its own.
        let (host, none) = chosen(&mut all, 2, (200_000..200_060).map(|i| (i, 0)));
        assert_eq!((host.len(), none), (60, LeftOut::default()));
        // In the next round, in any order: the same ones, and those in which something happens.
        let backwards = (0..114_000).rev().map(|i| (i, u32::from(i >= 113_800)));
        let (next, left_out) = chosen(&mut all, 1, backwards);
        assert!(first.iter().all(|inode| next.contains(inode)));
        assert!(next.contains(&113_999) && next.len() <= 400 - 60);
        assert!(left_out.active > 0, "beyond the bound it is said too");
        let followed: usize = all.by_netns.values().map(HashSet::len).sum();
        assert_eq!((followed, all.taken), (400, 400));
        // What closed makes room.
        chosen(&mut all, 1, std::iter::empty());
        let (again, _) = chosen(&mut all, 1, (0..100).map(|i| (i, 0)));
        assert_eq!(again.len(), 100);
        all.retain(|netns| netns == 2);
        assert_eq!(all.by_netns.len(), 1);
    }

    #[test]
    fn with_room_for_all_nothing_is_left_out() {
        let mut all = FollowedListeners::within(100_000);
        let (followed, left_out) = chosen(&mut all, 1, (0..30_000).map(|i| (i, 0)));
        assert_eq!((followed.len(), left_out), (30_000, LeftOut::default()));
    }
}
