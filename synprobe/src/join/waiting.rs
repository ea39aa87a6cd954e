//! Handshakes of one side that wait for their other end. Bounded: what is due first goes first.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use super::fact::{Ends, SideHandshake};

/// By what a waiting entry is found.
pub(super) trait Waits {
    /// The handshake that is looked for.
    fn handshake(&self) -> &SideHandshake;
}

impl Waits for SideHandshake {
    fn handshake(&self) -> &SideHandshake {
        self
    }
}

/// See the module.
pub(super) struct WaitingTable<T> {
    entries: HashMap<u64, T>,
    by_seq: HashMap<u32, Vec<u64>>,
    by_ends: HashMap<Ends, Vec<u64>>,
    due: BinaryHeap<Reverse<(i64, u64)>>,
    next: u64,
}

impl<T> Default for WaitingTable<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            by_seq: HashMap::new(),
            by_ends: HashMap::new(),
            due: BinaryHeap::new(),
            next: 0,
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
            self.by_seq.entry(seq).or_default().push(number);
        }
        if let Some(ends) = h.ends() {
            self.by_ends.entry(ends).or_default().push(number);
        }
        self.entries.insert(number, entry);
        self.due.push(Reverse((due_ns, number)));
        number
    }

    /// Those that may be the same connect: by sequence number, and by their ends.
    pub(super) fn alike(&self, h: &SideHandshake) -> (&[u64], &[u64]) {
        let seq = h.syn_seq.and_then(|seq| self.by_seq.get(&seq));
        let ends = h.ends().and_then(|ends| self.by_ends.get(&ends));
        (
            seq.map_or(&[], Vec::as_slice),
            ends.map_or(&[], Vec::as_slice),
        )
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.entries.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.entries.get_mut(&number)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let entry = self.entries.remove(&number)?;
        let h = entry.handshake();
        if let Some(seq) = h.syn_seq {
            unlink(&mut self.by_seq, &seq, number);
        }
        if let Some(ends) = h.ends() {
            unlink(&mut self.by_ends, &ends, number);
        }
        Some(entry)
    }

    /// The one that is due first, if it is due by then, or if there are more than `most`.
    pub(super) fn take_due(&mut self, now_ns: i64, most: usize) -> Option<T> {
        loop {
            let Reverse((due_ns, number)) = *self.due.peek()?;
            if self.entries.contains_key(&number) && due_ns > now_ns && self.entries.len() <= most {
                return None;
            }
            self.due.pop();
            if let Some(entry) = self.remove(number) {
                return Some(entry);
            }
        }
    }
}

fn unlink<K: Eq + std::hash::Hash>(index: &mut HashMap<K, Vec<u64>>, key: &K, number: u64) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.retain(|n| *n != number);
        if numbers.is_empty() {
            index.remove(key);
        }
    }
}
