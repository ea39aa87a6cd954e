//! Handshakes of one side that wait for their other end. Bounded: what is due first goes first.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::{BuildHasher, RandomState},
};

use super::fact::{Ends, SideHandshake};

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
const BYTES: usize = 32 << 20;

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
    by_seq: HashMap<u32, Vec<u64>>,
    /// By the hash of the ends, which take eight times as much. Whoever looks compares the ends themselves.
    by_ends: HashMap<u64, Vec<u64>>,
    hasher: RandomState,
    due: BinaryHeap<Reverse<(i64, u64)>>,
    next: u64,
    bytes: usize,
}

impl<T> Default for WaitingTable<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            by_seq: HashMap::new(),
            by_ends: HashMap::new(),
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
            link(&mut self.by_seq, seq, number);
        }
        if let Some(ends) = h.ends() {
            link(&mut self.by_ends, self.hasher.hash_one(ends), number);
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

    /// Those that may be the same connect: by sequence number, and by their ends or others with the same hash.
    pub(super) fn alike(&self, h: &SideHandshake) -> (&[u64], &[u64]) {
        let seq = h.syn_seq.and_then(|seq| self.by_seq.get(&seq));
        let hash = |ends: Ends| self.hasher.hash_one(ends);
        let ends = h.ends().and_then(|ends| self.by_ends.get(&hash(ends)));
        (
            seq.map_or(&[], Vec::as_slice),
            ends.map_or(&[], Vec::as_slice),
        )
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
            unlink(&mut self.by_seq, &seq, number);
        }
        if let Some(ends) = h.ends() {
            unlink(&mut self.by_ends, &self.hasher.hash_one(ends), number);
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

fn link<K: Eq + std::hash::Hash>(index: &mut HashMap<K, Vec<u64>>, key: K, number: u64) {
    // Nearly always it is the only one.
    let numbers = index.entry(key).or_insert_with(|| Vec::with_capacity(1));
    numbers.push(number);
}

fn unlink<K: Eq + std::hash::Hash>(index: &mut HashMap<K, Vec<u64>>, key: &K, number: u64) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.retain(|n| *n != number);
        if numbers.is_empty() {
            index.remove(key);
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
        // 32 MiB hold 31 of them.
        assert_eq!(gone, (0..69).collect::<Vec<_>>());
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
}
