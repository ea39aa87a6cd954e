//! Handshakes of one side that wait for their other end. Bounded: what is due first goes first.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
    hash::{BuildHasher, Hash, RandomState},
};

use super::fact::SideHandshake;

/// By what a waiting entry is found.
pub(super) trait Waits {
    /// The handshake that is looked for.
    fn handshake(&self) -> &SideHandshake;

    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        self.handshake().bytes()
    }
}

/// What the entries of a table may take: those in trouble have texts of any length.
const BYTES: usize = 24 << 20;

impl Waits for Box<SideHandshake> {
    fn handshake(&self) -> &SideHandshake {
        self
    }
}

/// Removed entries that the list of due ones may still have, beside one for each that waits.
const GONE: usize = 4096;

/// See the module. Entries are small, or boxed: a table that doubles has each place twice.
pub(super) struct WaitingTable<T> {
    entries: HashMap<u64, T>,
    by_seq: WaitingIndex<u32>,
    /// By the hash of the ends, which take eight times as much. Whoever looks compares the ends themselves.
    by_ends: WaitingIndex<u64>,
    hasher: RandomState,
    due: BinaryHeap<Reverse<(i64, u64)>>,
    next: u64,
    bytes: usize,
}

impl<T> Default for WaitingTable<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            by_seq: WaitingIndex::default(),
            by_ends: WaitingIndex::default(),
            hasher: RandomState::new(),
            due: BinaryHeap::new(),
            next: 0,
            bytes: 0,
        }
    }
}

impl<T: Waits> WaitingTable<T> {
    /// Adds one that waits until `due_ns`.
    pub(super) fn insert(&mut self, entry: T, due_ns: i64) -> u64 {
        let number = self.next;
        self.next += 1;
        let h = entry.handshake();
        if let Some(seq) = h.syn_seq {
            self.by_seq.link(seq, number);
        }
        if let Some(ends) = h.ends() {
            self.by_ends.link(self.hasher.hash_one(ends), number);
        }
        self.bytes += entry.bytes();
        self.entries.insert(number, entry);
        self.due.push(Reverse((due_ns, number)));
        if self.due.len() > 2 * self.entries.len() + GONE {
            let entries = &self.entries;
            self.due
                .retain(|Reverse((_, number))| entries.contains_key(number));
        }
        number
    }

    /// Those that may be the same connect by the client's initial sequence number.
    pub(super) fn of_seq(&self, h: &SideHandshake) -> impl DoubleEndedIterator<Item = u64> {
        self.by_seq.of(h.syn_seq)
    }

    /// Those that may be it by their ends, or that have others with the same hash.
    pub(super) fn of_ends(&self, h: &SideHandshake) -> impl DoubleEndedIterator<Item = u64> {
        self.by_ends
            .of(h.ends().map(|ends| self.hasher.hash_one(ends)))
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.entries.get(&number)
    }

    /// Changes one, but not by what it is found.
    pub(super) fn update<R>(&mut self, number: u64, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let entry = self.entries.get_mut(&number)?;
        self.bytes -= entry.bytes();
        let result = change(entry);
        self.bytes += entry.bytes();
        Some(result)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let entry = self.entries.remove(&number)?;
        self.bytes -= entry.bytes();
        let h = entry.handshake();
        if let Some(seq) = h.syn_seq {
            self.by_seq.unlink(seq, number);
        }
        if let Some(ends) = h.ends() {
            self.by_ends.unlink(self.hasher.hash_one(ends), number);
        }
        Some(entry)
    }

    /// The one that is due first, if it is due by then, or if there are more than `most` or they take too much.
    pub(super) fn take_due(&mut self, now_ns: i64, most: usize) -> Option<T> {
        loop {
            let Reverse((due_ns, number)) = *self.due.peek()?;
            let has_room = self.entries.len() <= most && self.bytes <= BYTES;
            if self.entries.contains_key(&number) && due_ns > now_ns && has_room {
                return None;
            }
            self.due.pop();
            if let Some(entry) = self.remove(number) {
                return Some(entry);
            }
        }
    }
}

/// Entries by a key. Nearly always it has one: a list for each takes several times as much.
struct WaitingIndex<K> {
    first: HashMap<K, u64>,
    more: HashMap<K, Vec<u64>>,
}

impl<K> Default for WaitingIndex<K> {
    fn default() -> Self {
        Self {
            first: HashMap::new(),
            more: HashMap::new(),
        }
    }
}

impl<K: Copy + Eq + Hash> WaitingIndex<K> {
    fn link(&mut self, key: K, number: u64) {
        if let Entry::Vacant(place) = self.first.entry(key) {
            place.insert(number);
        } else {
            self.more.entry(key).or_default().push(number);
        }
    }

    /// In the order in which they came.
    fn of(&self, key: Option<K>) -> impl DoubleEndedIterator<Item = u64> {
        let first = key.and_then(|key| self.first.get(&key));
        let more = key
            .filter(|_| !self.more.is_empty())
            .and_then(|key| self.more.get(&key));
        first.into_iter().chain(more.into_iter().flatten()).copied()
    }

    fn unlink(&mut self, key: K, number: u64) {
        let Entry::Occupied(mut first) = self.first.entry(key) else {
            return;
        };
        let Entry::Occupied(mut more) = self.more.entry(key) else {
            if *first.get() == number {
                first.remove();
            }
            return;
        };
        match *first.get() == number {
            true => *first.get_mut() = more.get_mut().remove(0),
            false => more.get_mut().retain(|n| *n != number),
        }
        if more.get().is_empty() {
            more.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Confidence, Outcome, Role};

    fn troubled(id: u64, fact_bytes: usize) -> Box<SideHandshake> {
        let local = std::net::IpAddr::from([10, 0, 0, 1]);
        Box::new(SideHandshake {
            id,
            role: Role::Server,
            at_ns: 0,
            mono_ns: 0,
            local_addr: local,
            local_port: Some(80),
            peer_addr: local,
            peer_port: Some(4000),
            netns: 1,
            pid: None,
            comm: None,
            outcome: Outcome::Expired,
            open_reason: None,
            dwell_us: None,
            dwell_error_us: None,
            retransmits: 0,
            by_peer: 0,
            error: None,
            verdict: None,
            confidence: Confidence::Likely,
            evidence: vec!["x".repeat(fact_bytes)],
            remedy: None,
            syn_seq: Some(1),
            syn_ack_seq: None,
            called_too: false,
            repeats: Vec::new(),
        })
    }

    #[test]
    fn those_that_are_gone_take_no_room() {
        let mut table = WaitingTable::default();
        let stays = table.insert(troubled(0, 1), 5);
        for id in 1..100_000 {
            let number = table.insert(troubled(id, 1), i64::MAX);
            table.remove(number);
        }
        assert!(table.due.len() <= GONE + 3, "{}", table.due.len());
        assert!(table.get(stays).is_some());
        assert_eq!(table.take_due(5, 10).map(|h| h.id), Some(0));
    }

    #[test]
    fn long_texts_make_the_oldest_go_before_their_time() {
        let mut table = WaitingTable::default();
        let mut gone = Vec::new();
        for id in 0..100 {
            table.insert(troubled(id, 1 << 20), 1000 + id as i64);
            while let Some(first) = table.take_due(0, 1000) {
                gone.push(first.id);
            }
            assert!(table.bytes <= BYTES);
        }
        // 24 MiB hold 23 of them.
        assert_eq!(gone, (0..77).collect::<Vec<_>>());
        while table.take_due(i64::MAX, 0).is_some() {}
        assert_eq!(table.bytes, 0);
    }

    #[test]
    fn what_an_entry_gains_is_counted() {
        let mut table = WaitingTable::default();
        let number = table.insert(troubled(1, 10), 1);
        let before = table.bytes;
        table.update(number, |h| h.evidence.push("y".repeat(500)));
        assert!(table.bytes >= before + 500);
        table.remove(number);
        assert_eq!(table.bytes, 0);
    }

    #[test]
    fn one_key_may_have_several_in_their_order() {
        let mut index = WaitingIndex::default();
        for number in 1..=4 {
            index.link(7, number);
        }
        index.link(8, 5);
        let of = |index: &WaitingIndex<u32>, key| index.of(Some(key)).collect::<Vec<u64>>();
        assert_eq!((of(&index, 7), of(&index, 9)), (vec![1, 2, 3, 4], vec![]));
        assert_eq!(index.of(Some(7)).next_back(), Some(4));
        for (gone, left) in [
            (1, vec![2, 3, 4]),
            (3, vec![2, 4]),
            (4, vec![2]),
            (2, vec![]),
        ] {
            index.unlink(7, gone);
            assert_eq!(of(&index, 7), left);
        }
        index.unlink(7, 2);
        assert_eq!(of(&index, 8), [5]);
        assert!(index.more.is_empty() && index.first.len() == 1);
    }
}
