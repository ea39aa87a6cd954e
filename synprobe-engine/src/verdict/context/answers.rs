//! Answers that a socket in SYN_SENT refused (`skb:kfree_skb` with the receiving socket, Linux 6.11).

use std::borrow::Cow;

use super::{Ends, Packet};
use crate::util::bounded::Bounded;

/// Kinds of answers remembered for one connection.
const KINDS: usize = 4;
/// Answers of one kind whose times are remembered: more than one connect() sends SYNs.
const TIMES: usize = 32;

/// One kind of answer that TCP refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAnswer {
    /// Which segment. [`Packet::Syn`]: never, that is a simultaneous open.
    pub packet: Packet,
    /// The kernel's name for the reason, such as `TCP_INVALID_ACK_SEQUENCE`.
    pub reason: Cow<'static, str>,
    /// When each of the last came, CLOCK_MONOTONIC nanoseconds.
    pub times_ns: Vec<u64>,
}

impl RefusedAnswer {
    /// How many, of those that are remembered.
    pub fn count(&self) -> u64 {
        self.times_ns.len() as u64
    }
}

/// See the module. By namespace and ends: the other end may be on this host too.
#[derive(Default)]
pub(super) struct RefusedAnswers(Bounded<(u32, Ends), Vec<RefusedAnswer>>);

impl RefusedAnswers {
    /// One more.
    pub fn note(&mut self, netns: u32, ends: Ends, answer: RefusedAnswer) {
        let key = (netns, ends);
        let Some(kinds) = self.0.get_mut(&key) else {
            self.0.insert(key, vec![answer]);
            return;
        };
        let same =
            |k: &&mut RefusedAnswer| (k.packet, &k.reason) == (answer.packet, &answer.reason);
        if let Some(kind) = kinds.iter_mut().find(same) {
            kind.times_ns.extend(answer.times_ns);
            let surplus = kind.times_ns.len().saturating_sub(TIMES);
            kind.times_ns.drain(..surplus);
        } else {
            if kinds.len() >= KINDS {
                kinds.remove(0);
            }
            kinds.push(answer);
        }
    }

    /// Forgets those that are older, CLOCK_MONOTONIC nanoseconds.
    pub fn forget_before(&mut self, cutoff_ns: u64) {
        self.0.retain(|_, kinds| {
            kinds.retain(|kind| kind.times_ns.iter().any(|at| *at >= cutoff_ns));
            !kinds.is_empty()
        });
    }

    /// Those of a connection since a moment, most first: a port is used for one connection after another.
    pub fn of(
        &self,
        netns: u32,
        ends: &Ends,
        (since_ns, until_ns): (u64, u64),
    ) -> Vec<RefusedAnswer> {
        let mut found: Vec<RefusedAnswer> = self
            .0
            .get(&(netns, *ends))
            .into_iter()
            .flatten()
            .cloned()
            .filter_map(|mut answer| {
                answer
                    .times_ns
                    .retain(|at| (since_ns..=until_ns).contains(at));
                (!answer.times_ns.is_empty()).then_some(answer)
            })
            .collect();
        found.sort_by_key(|answer| std::cmp::Reverse(answer.count()));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_an_earlier_connection_of_the_port_are_not_counted() {
        let mut all = RefusedAnswers::default();
        let ends = Ends::new(([1; 16], 1), ([2; 16], 2));
        for at in 1..=40 {
            let answer = RefusedAnswer {
                packet: Packet::Ack,
                reason: "TCP_INVALID_ACK_SEQUENCE".into(),
                times_ns: vec![at],
            };
            all.note(7, ends, answer);
        }
        assert_eq!(all.of(7, &ends, (39, u64::MAX))[0].count(), 2);
        // Nor are those to a later one.
        assert_eq!(all.of(7, &ends, (39, 39))[0].count(), 1);
        assert_eq!(all.of(7, &ends, (0, u64::MAX))[0].count(), TIMES as u64);
        assert!(
            all.of(7, &ends, (41, u64::MAX)).is_empty()
                && all.of(8, &ends, (0, u64::MAX)).is_empty()
        );
    }
}
