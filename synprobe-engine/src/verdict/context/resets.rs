//! Half-opens of the same two ends that a RST ended. A client that still wants the connection repeats the SYN of its
//! connect(): the same sequence number, a second or more later. A port that is used again does neither.

use super::{Context, Ends};
use crate::{
    model::{Facts, Handshake},
    util::bounded::Bounded,
};

/// Remembered of one connection.
const KEPT: usize = 8;
/// No client repeats the SYN of one connect() for longer (127 s by default, with the kernel's lateness), nanoseconds.
const ONE_CONNECT_NS: u64 = 140_000_000_000;
/// Nor does one repeat it sooner: the first time-out takes 1 s (RFC 6298), and the two RSTs may be late by different
/// times, nanoseconds.
const SOONEST_NS: u64 = 800_000_000;

/// When it ended, CLOCK_MONOTONIC nanoseconds, and its RST's sequence number.
type Reset = (u64, Option<u32>);

/// See the module.
#[derive(Default)]
pub(super) struct Resets(Bounded<(u32, Ends), Vec<Reset>>);

impl Resets {
    pub(super) fn note(&mut self, key: (u32, Ends), facts: &Facts) {
        let mut all = self.0.remove(&key).unwrap_or_default();
        if all.len() >= KEPT {
            all.remove(0);
        }
        // Of most ends there is one.
        all.reserve_exact(1);
        all.push((facts.ended_ns, facts.rst_seq));
        self.0.insert(key, all);
    }

    /// How many may be of the same connect() as one that ended so.
    pub(super) fn of_one_connect(&self, key: &(u32, Ends), facts: &Facts) -> u32 {
        let Some(all) = self.0.get(key) else { return 0 };
        let same = |seq: &Option<u32>| seq.is_none() || *seq == facts.rst_seq;
        let mut times: Vec<u64> = all
            .iter()
            .filter(|(at, seq)| {
                at.abs_diff(facts.ended_ns) < ONE_CONNECT_NS
                    && (facts.rst_seq.is_none() || same(seq))
            })
            .map(|(at, _)| *at)
            .collect();
        times.sort_unstable();
        let mut last_ns = None;
        times.retain(|at| {
            let is_next = last_ns.is_none_or(|last| at - last >= SOONEST_NS);
            if is_next {
                last_ns = Some(*at);
            }
            is_next
        });
        times.len() as u32
    }
}

impl Context {
    /// How many half-opens of one connect() of the peer were ended by RST, this one included.
    pub fn resets(&self, h: &Handshake) -> u32 {
        let key = Ends::of(&h.connection).map(|ends| (h.connection.netns, ends));
        key.map_or(0, |key| self.resets.of_one_connect(&key, &h.facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::fixtures::SEC;

    #[test]
    fn only_a_repeated_syn_is_counted() {
        let ends = Ends::new(([1; 16], 1), ([2; 16], 2));
        let key = (7, ends);
        let facts = |ended_ns, rst_seq| Facts {
            ended_ns,
            rst_seq,
            ..Facts::default()
        };
        for (first, second, counted) in [
            ((SEC, Some(9)), (2 * SEC, Some(9)), 2),
            // A port that is used again: another SYN, at once, or an hour later.
            ((SEC, Some(9)), (2 * SEC, Some(8)), 1),
            ((SEC, Some(9)), (SEC + SEC / 10, Some(9)), 1),
            ((SEC, Some(9)), (3600 * SEC, Some(9)), 1),
            // Where the RST itself was not seen, the time decides.
            ((SEC, None), (2 * SEC, None), 2),
            ((SEC, None), (3600 * SEC, None), 1),
        ] {
            let mut resets = Resets::default();
            resets.note(key, &facts(first.0, first.1));
            let last = facts(second.0, second.1);
            resets.note(key, &last);
            assert_eq!(
                resets.of_one_connect(&key, &last),
                counted,
                "{first:?} {second:?}"
            );
        }
    }
}
