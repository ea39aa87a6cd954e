//! Answers that a socket in SYN_SENT refused (`skb:kfree_skb` with the receiving socket, Linux 6.11).

use std::borrow::Cow;

use super::{Ends, Packet};
use crate::util::bounded::Bounded;

/// Kinds of answers remembered for one connection.
const KINDS: usize = 4;

/// One kind of answer that TCP refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAnswer {
    /// Which segment. [`Packet::Syn`]: never, that is a simultaneous open.
    pub packet: Packet,
    /// The kernel's name for the reason, such as `TCP_INVALID_ACK_SEQUENCE`.
    pub reason: Cow<'static, str>,
    /// How many.
    pub count: u64,
    /// The first of them, CLOCK_MONOTONIC nanoseconds.
    pub first_ns: u64,
    /// The last of them.
    pub last_ns: u64,
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
            kind.count += answer.count;
            kind.last_ns = kind.last_ns.max(answer.last_ns);
        } else if kinds.len() < KINDS {
            kinds.push(answer);
        }
    }

    /// Those of a connection since a moment, most first.
    pub fn of(&self, netns: u32, ends: &Ends, since_ns: u64) -> Vec<&RefusedAnswer> {
        let mut found: Vec<&RefusedAnswer> = self
            .0
            .get(&(netns, *ends))
            .into_iter()
            .flatten()
            .filter(|answer| answer.last_ns >= since_ns)
            .collect();
        found.sort_by_key(|answer| std::cmp::Reverse(answer.count));
        found
    }
}
