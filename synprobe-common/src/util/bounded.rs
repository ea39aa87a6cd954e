//! The one kind of table that the agent keeps: it has a limit.

use std::hash::Hash;

use hashlink::LinkedHashMap;

/// A map that never holds more than its limit: the oldest makes room.
///
/// Entries are allocated one by one and stay where they are: a table of a million large ones is not
/// copied as it grows, and has no room for a second million.
pub struct Bounded<K, V> {
    /// Oldest first.
    map: LinkedHashMap<K, V>,
    limit: usize,
}

/// A table that once was larger gives its memory back when it is a quarter full; below this many
/// entries that is not worth the while.
const WORTH_GIVING_BACK: usize = 16_384;

impl<K: Eq + Hash + Copy, V> Default for Bounded<K, V> {
    /// Room for what is worth remembering where nobody asked for more.
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

    /// Puts a value in, as the youngest; gives back what it replaced, and what had to go for it.
    pub fn insert(&mut self, key: K, value: V) -> (Option<V>, Option<(K, V)>) {
        let replaced = self.map.insert(key, value);
        let evicted = match self.map.len() > self.limit {
            true => self.map.pop_front(),
            false => None,
        };
        (replaced, evicted)
    }

    /// Takes the oldest out.
    pub fn pop(&mut self) -> Option<(K, V)> {
        self.map.pop_front()
    }

    /// What stands there.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    /// What stands there.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// Takes it out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.map.remove(key);
        if self.map.capacity() > WORTH_GIVING_BACK && self.map.capacity() / 4 > self.map.len() {
            self.map.shrink_to_fit();
        }
        removed
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
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
    fn what_a_crowd_took_is_given_back() {
        let mut table = Bounded::new(100_000);
        for key in 0..100_000 {
            table.insert(key, ());
        }
        for key in 0..99_000 {
            table.remove(&key);
        }
        assert_eq!(table.len(), 1000);
        assert!(table.map.capacity() <= WORTH_GIVING_BACK);
        assert_eq!(table.iter().next(), Some((&99_000, &())));
    }
}
