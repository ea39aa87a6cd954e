//! A table of sums over the run or over its window, with one bound for what strangers choose of its rows.

use std::collections::{BTreeMap, VecDeque};

use super::window::STEPS;
use crate::util::bounded::Bounded;

/// A row: sums, and elements such as addresses.
pub(super) trait Sums: Clone {
    /// The same row with nothing in it.
    fn empty(&self) -> Self;
    /// Adds what came within one step of the window.
    fn add(&mut self, step: &Self);
    /// How many elements it has.
    fn kept(&self) -> usize;
}

/// Whether the rows together have room for more elements. A row that has few gets some in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Ample,
    Scarce,
}

pub(super) struct Windowed<K, V> {
    /// Of the run, or of the window.
    rows: Bounded<K, V>,
    /// Of each step of the window, the present one last. Empty: there is no window.
    steps: VecDeque<BTreeMap<K, V>>,
    /// Elements of `rows`, and of the present step.
    kept: usize,
    kept_in_step: usize,
    most_rows: usize,
    /// The bound of `kept`.
    most_kept: usize,
}

fn room(kept: usize, most: usize) -> Room {
    if kept < most {
        Room::Ample
    } else {
        Room::Scarce
    }
}

impl<K: Copy + Ord + std::hash::Hash, V: Sums> Windowed<K, V> {
    /// Without rows. `most_kept`: elements of all rows before room is scarce.
    pub(super) fn new(most_rows: usize, most_kept: usize) -> Self {
        Self {
            rows: Bounded::new(most_rows),
            steps: VecDeque::new(),
            kept: 0,
            kept_in_step: 0,
            most_rows,
            most_kept,
        }
    }

    /// The row of the run or the window. `fresh` makes one that is missing.
    pub(super) fn row(&mut self, key: K, fresh: impl FnOnce() -> V) -> Option<&mut V> {
        if self.rows.get(&key).is_none() {
            let (_, evicted) = self.rows.insert(key, fresh());
            self.kept -= evicted.map_or(0, |(_, row)| row.kept());
        }
        self.rows.get_mut(&key)
    }

    /// Updates the row, and that of the present step.
    pub(super) fn update(&mut self, key: K, fresh: impl Fn() -> V, update: impl Fn(&mut V, Room)) {
        let of_run = room(self.kept, self.most_kept);
        if let Some(row) = self.row(key, &fresh) {
            let before = row.kept();
            update(row, of_run);
            let more = row.kept() - before;
            self.kept += more;
        }
        // There are STEPS and the present one.
        let of_step = room(self.kept_in_step, self.most_kept / 4);
        if let Some(step) = self.steps.back_mut()
            && (step.len() < self.most_rows || step.contains_key(&key))
        {
            let row = step.entry(key).or_insert_with(fresh);
            let before = row.kept();
            update(row, of_step);
            self.kept_in_step += row.kept() - before;
        }
    }

    /// A step of the window begins: what is older than the window is forgotten. Returns the rows as they were.
    pub(super) fn step(&mut self) -> Bounded<K, V> {
        let before = std::mem::replace(&mut self.rows, Bounded::new(self.most_rows));
        (self.kept, self.kept_in_step) = (0, 0);
        if self.steps.is_empty() {
            let all = before.iter().map(|(key, row)| (*key, row.clone()));
            self.steps.push_back(all.collect());
        }
        self.steps.push_back(BTreeMap::new());
        while self.steps.len() as u64 > STEPS + 1 {
            self.steps.pop_front();
        }
        let steps = std::mem::take(&mut self.steps);
        for (key, step) in steps.iter().flatten() {
            if let Some(row) = self.row(*key, || step.empty()) {
                // Each step has its bound, and there are few.
                row.add(step);
            }
        }
        self.steps = steps;
        self.kept = self.rows.iter().map(|(_, row)| row.kept()).sum();
        before
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.rows.get_mut(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    /// Elements of all rows, and of each step's.
    #[cfg(test)]
    pub(super) fn kept_by_step(&self) -> (usize, Vec<usize>) {
        let of_step = |step: &BTreeMap<K, V>| step.values().map(Sums::kept).sum();
        let of_run: usize = self.rows.iter().map(|(_, row)| row.kept()).sum();
        assert_eq!(of_run, self.kept);
        (of_run, self.steps.iter().map(of_step).collect())
    }
}
