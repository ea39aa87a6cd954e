//! The bounded table that the agent uses for everything that grows.

use std::hash::Hash;

use hashlink::LinkedHashMap;

/// A map with a limit: when it is full, an insertion evicts the oldest entry.
///
/// Entries are allocated one by one and never move: a table of a million large entries is not copied when
/// it grows.
pub struct Bounded<K, V> {
    /// Oldest first.
    map: LinkedHashMap<K, V>,
    limit: usize,
}

/// A table with more capacity than this shrinks when it is a quarter full, entries. Until then it keeps the memory of
/// entries that were removed, up to half a kilobyte for each.
const SHRINK_ABOVE: usize = 1024;

impl<K: Eq + Hash + Copy, V: Clone> Clone for Bounded<K, V> {
    fn clone(&self) -> Self {
        Self {
            map: self.map.clone(),
            limit: self.limit,
        }
    }
}

impl<K: Eq + Hash + Copy, V> Default for Bounded<K, V> {
    /// The limit for tables without a configured one.
    fn default() -> Self {
        Self::new(16_384)
    }
}

impl<K: Eq + Hash + Copy, V> Bounded<K, V> {
    /// At most `limit` entries, at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            map: LinkedHashMap::new(),
            limit: limit.max(1),
        }
    }

    /// Inserts a value as the youngest. Returns the value that it replaced, and the evicted entry.
    pub fn insert(&mut self, key: K, value: V) -> (Option<V>, Option<(K, V)>) {
        let replaced = self.map.insert(key, value);
        let evicted = match self.map.len() > self.limit {
            true => self.map.pop_front(),
            false => None,
        };
        (replaced, evicted)
    }

    /// Removes the oldest entry.
    pub fn pop(&mut self) -> Option<(K, V)> {
        self.map.pop_front()
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// Keeps those that `wanted` returns true for.
    pub fn retain(&mut self, mut wanted: impl FnMut(&K, &mut V) -> bool) {
        self.map.retain(|key, value| wanted(key, value));
        if self.map.capacity() > SHRINK_ABOVE && self.map.capacity() / 4 > self.map.len() {
            self.map.shrink_to_fit();
        }
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.map.remove(key);
        if self.map.capacity() > SHRINK_ABOVE && self.map.capacity() / 4 > self.map.len() {
            self.map.shrink_to_fit();
        }
        removed
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All entries, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_is_evicted() {
        let mut table = Bounded::new(2);
        assert_eq!(table.insert(1, 'a'), (None, None));
        assert_eq!(table.insert(2, 'b'), (None, None));
        assert_eq!(table.insert(1, 'c'), (Some('a'), None), "now the youngest");
        assert_eq!(table.insert(3, 'd'), (None, Some((2, 'b'))));
        assert_eq!(
            (table.get(&1), table.get(&2), table.len()),
            (Some(&'c'), None, 2)
        );
    }

    #[test]
    fn memory_is_returned_when_the_table_empties() {
        let mut table = Bounded::new(100_000);
        for key in 0..100_000 {
            table.insert(key, ());
        }
        for key in 0..99_900 {
            table.remove(&key);
        }
        assert_eq!(table.len(), 100);
        assert!(table.map.capacity() <= SHRINK_ABOVE);
        assert_eq!(table.iter().next(), Some((&99_900, &())));
    }
}
