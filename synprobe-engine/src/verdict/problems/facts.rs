//! How many handshakes of a group share a fact, word for word.

use std::{cmp::Reverse, collections::HashMap};

use crate::model::Evidence;

/// Facts quoted that several handshakes share.
const SHARED: usize = 6;
/// Facts quoted of single handshakes.
const EXAMPLES: usize = 2;

/// How often a fact came, and the place of its first coming.
#[derive(Clone, Copy, Debug)]
struct Count {
    handshakes: u64,
    order: u64,
}

/// Facts and how many handshakes have each. Bounded: the rarest are forgotten first.
#[derive(Clone, Debug, Default)]
pub(super) struct FactCounts {
    counts: HashMap<Evidence, Count>,
    next: u64,
    /// One was forgotten, and may have come again: the counts are lower bounds.
    forgot: bool,
}

impl FactCounts {
    /// Counts a handshake's facts; keeps no more than `limit` of the group's.
    pub fn add(&mut self, facts: &[Evidence], limit: usize) {
        for fact in facts {
            match self.counts.get_mut(fact) {
                Some(count) => count.handshakes += 1,
                None => {
                    let count = Count {
                        handshakes: 1,
                        order: self.next,
                    };
                    self.counts.insert(fact.clone(), count);
                    self.next += 1;
                }
            }
        }
        if self.counts.len() > limit {
            self.forget(limit / 2);
        }
    }

    /// Adds those of another group, with the same bound.
    pub fn merge(&mut self, other: &Self, limit: usize) {
        let mut facts: Vec<(&Evidence, &Count)> = other.counts.iter().collect();
        facts.sort_by_key(|(_, count)| count.order);
        for (fact, count) in facts {
            match self.counts.get_mut(fact) {
                Some(known) => known.handshakes += count.handshakes,
                None => {
                    let order = self.next;
                    self.next += 1;
                    self.counts.insert(fact.clone(), Count { order, ..*count });
                }
            }
        }
        self.forgot |= other.forgot;
        if self.counts.len() > limit {
            self.forget(limit / 2);
        }
    }

    /// Different facts.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Keeps those that are shared most, and the first of those that are not.
    fn forget(&mut self, keep: usize) {
        let rank = |count: &Count| (Reverse(count.handshakes), count.order);
        let mut ranks: Vec<_> = self.counts.values().map(rank).collect();
        ranks.sort_unstable();
        if let Some(first_out) = ranks.get(keep) {
            self.counts.retain(|_, count| rank(count) < *first_out);
            self.forgot = true;
        }
    }

    /// The facts that several of the group's handshakes share, most shared first; then a few of single
    /// ones. Those for the verdict come before those against it.
    pub fn quoted(&self, handshakes: u64) -> Vec<Evidence> {
        let mut ranked: Vec<(&Evidence, &Count)> = self.counts.iter().collect();
        ranked.sort_by_key(|(_, count)| (Reverse(count.handshakes), count.order));
        let single = |count: &Count| count.handshakes == 1 && handshakes > 1;
        let (alone, shared): (Vec<_>, Vec<_>) =
            ranked.into_iter().partition(|(_, count)| single(count));
        let shown = shared
            .into_iter()
            .take(SHARED)
            .chain(alone.into_iter().take(EXAMPLES));
        let at_least = if self.forgot { "at least " } else { "" };
        let quote = |(e, count): (&Evidence, &Count)| Evidence {
            fact: match count.handshakes {
                n if n == handshakes => e.fact.clone(),
                1 => format!("for example: {}", e.fact),
                n => format!("{} ({at_least}{n} of them)", e.fact),
            },
            supports: e.supports,
        };
        let mut facts: Vec<Evidence> = shown.map(quote).collect();
        facts.sort_by_key(|e| !e.supports);
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(text: &str) -> Evidence {
        Evidence {
            fact: text.to_owned(),
            supports: true,
        }
    }

    #[test]
    fn what_is_shared_survives_a_bound_that_single_facts_exceed() {
        let mut counts = FactCounts::default();
        for n in 0..1000 {
            counts.add(&[fact("shared"), fact(&n.to_string())], 16);
            assert!(counts.counts.len() <= 16);
        }
        let quoted: Vec<String> = counts.quoted(1000).into_iter().map(|e| e.fact).collect();
        assert_eq!(quoted, ["shared", "for example: 0", "for example: 1"]);
        let quoted = counts.quoted(2000);
        assert_eq!(quoted[0].fact, "shared (at least 1000 of them)");
    }
}
