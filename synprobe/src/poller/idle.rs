//! Which namespaces a round looks at. A host may have a thousand in which nothing happens, and each look costs
//! a walk over the kernel's connection table.
//!
//! A namespace is idle once several looks showed no handshake in progress, no connection that waits for
//! accept(), and counters that did not move. Idle ones take turns. An event names its namespace, which is then
//! looked at in the next round; so is one that the engine has half-opens of.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use super::seen::Seen;

/// With no more namespaces than this, each is looked at in every round.
const FEW: usize = 64;
/// Idle namespaces that one round looks at.
const IDLE_A_ROUND: usize = 32;
/// Looks in a row that show nothing, before a namespace is idle.
const SETTLED: u32 = 3;

/// See the module.
#[derive(Default)]
pub(super) struct IdleNamespaces {
    round: u64,
    looks: HashMap<u32, Looks>,
}

#[derive(Default)]
struct Looks {
    /// The round of the last one.
    last: u64,
    /// How many in a row showed nothing.
    without_activity: u32,
    counters: Vec<Option<u64>>,
}

/// Whether idle ones of so many namespaces take turns.
pub(super) fn take_turns(namespaces: usize) -> bool {
    namespaces > FEW
}

impl IdleNamespaces {
    /// Whether several looks showed nothing.
    pub fn is_settled(&self, netns: u32) -> bool {
        let looks = self.looks.get(&netns);
        looks.is_some_and(|looks| looks.without_activity >= SETTLED)
    }

    /// No segment came or went since the last look: there is nothing else to see.
    pub fn note_untouched(&mut self, netns: u32) {
        if let Some(looks) = self.looks.get_mut(&netns) {
            looks.last = self.round;
        }
    }

    /// Begins a round: those of `watched` that it looks at. `named` are always among them; with `all` so is
    /// every other.
    pub fn choose(
        &mut self,
        watched: impl Iterator<Item = u32>,
        named: &HashSet<u32>,
        all: bool,
    ) -> HashSet<u32> {
        self.round += 1;
        let watched: HashSet<u32> = watched.collect();
        self.looks.retain(|netns, _| watched.contains(netns));
        if all || !take_turns(watched.len()) {
            return watched;
        }
        let (mut idle, mut chosen) = (Vec::new(), HashSet::new());
        for netns in watched {
            match self.looks.get(&netns) {
                Some(looks) if self.is_settled(netns) && !named.contains(&netns) => {
                    idle.push((Reverse(looks.last), netns));
                }
                _ => {
                    chosen.insert(netns);
                }
            }
        }
        // Those that wait longest come last.
        idle.sort_unstable();
        chosen.extend(
            idle.into_iter()
                .rev()
                .take(IDLE_A_ROUND)
                .map(|(_, netns)| netns),
        );
        chosen
    }

    /// What a look at one showed.
    pub fn note(&mut self, netns: u32, seen: &Seen) {
        self.looked(netns, seen.has_activity(), seen.activity_counters());
    }

    fn looked(&mut self, netns: u32, active: bool, counters: Vec<Option<u64>>) {
        // Before the first look every one counts as settled: a thousand quiet ones need no second look at once.
        let looks = self.looks.entry(netns).or_insert_with(|| Looks {
            without_activity: SETTLED,
            counters: counters.clone(),
            ..Looks::default()
        });
        let moved = looks.counters != counters;
        looks.last = self.round;
        looks.without_activity = match active || moved {
            true => 0,
            false => looks.without_activity.saturating_add(1),
        };
        looks.counters = counters;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One round over a thousand namespaces; `busy` ones show a handshake.
    fn round(idle: &mut IdleNamespaces, named: &[u32], busy: &[u32]) -> HashSet<u32> {
        let named = named.iter().copied().collect();
        let chosen = idle.choose(1..=1000, &named, false);
        for netns in &chosen {
            idle.looked(*netns, busy.contains(netns), vec![Some(7)]);
        }
        chosen
    }

    #[test]
    fn idle_namespaces_take_turns_and_busy_ones_do_not() {
        let mut idle = IdleNamespaces::default();
        assert_eq!(round(&mut idle, &[], &[5]).len(), 1000);
        let mut seen = HashSet::new();
        for _ in 0..32 {
            let chosen = round(&mut idle, &[], &[5]);
            assert!(chosen.contains(&5) && chosen.len() == IDLE_A_ROUND + 1);
            seen.extend(chosen);
        }
        assert_eq!(seen.len(), 1000, "each had its turn");
        assert!(round(&mut idle, &[77, 78], &[5]).is_superset(&HashSet::from([5, 77, 78])));
        assert_eq!(idle.choose(1..=1000, &HashSet::new(), true).len(), 1000);
    }

    #[test]
    fn counters_that_move_end_it() {
        let mut idle = IdleNamespaces::default();
        round(&mut idle, &[], &[]);
        idle.looked(9, false, vec![Some(8)]);
        for _ in 0..SETTLED {
            assert!(round(&mut idle, &[], &[]).contains(&9));
            idle.looks.get_mut(&9).unwrap().counters = vec![Some(7)];
        }
    }

    #[test]
    fn a_few_are_all_looked_at() {
        let mut idle = IdleNamespaces::default();
        for _ in 0..9 {
            let chosen = idle.choose(1..=64, &HashSet::new(), false);
            assert_eq!(chosen.len(), FEW);
            chosen
                .iter()
                .for_each(|netns| idle.looked(*netns, false, Vec::new()));
        }
    }
}
