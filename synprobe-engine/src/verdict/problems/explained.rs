//! What the problems of handshakes explain: dropped SYNs of their clients, and counters that rose.

use std::collections::HashSet;

use super::super::{
    CounterRise,
    context::{DroppedPacket, Ends},
    find,
    server::refused,
};
use crate::model::{Handshake, Problem, Role, VerdictKind};

/// Clients remembered whose dropped SYNs a problem names.
const REMEMBERED: usize = 65_536;

/// Clients of the problems whose SYNs this host may have dropped or refused: their ends, and their initial sequence
/// numbers.
#[derive(Clone, Debug, Default)]
pub(in crate::verdict) struct ExplainedClients {
    ends: HashSet<Ends>,
    seqs: HashSet<u32>,
}

impl ExplainedClients {
    /// Remembers the client of a judged handshake, if it is one of them.
    pub fn note(&mut self, h: &Handshake) {
        let dropped =
            h.verdict == Some(VerdictKind::DroppedHere) && h.connection.role == Role::Client;
        if !dropped && !refused::is_clients_end(h) {
            return;
        }
        if self.ends.len() < REMEMBERED {
            self.ends.extend(Ends::of(&h.connection));
            self.seqs.extend(h.facts.syn_seq);
        }
    }

    /// Adds those of others.
    pub fn merge(&mut self, other: &Self) {
        let room = REMEMBERED.saturating_sub(self.ends.len());
        self.ends.extend(other.ends.iter().take(room));
        self.seqs.extend(&other.seqs);
    }

    /// Whether it is the SYN of one of them: it is counted in the client's problem.
    pub fn has(&self, d: &DroppedPacket) -> bool {
        d.syn_seq.is_some_and(|seq| self.seqs.contains(&seq)) || self.ends.contains(&d.ends())
    }

    /// The same by the initial sequence number alone.
    pub fn has_seq(&self, seq: u32) -> bool {
        self.seqs.contains(&seq)
    }
}

/// Whether a problem explains what the counters of a namespace show.
pub(super) fn explained<'p>(
    mut problems: impl Iterator<Item = &'p Problem>,
    counted: CounterRise,
    netns: u32,
) -> bool {
    problems.any(|p| {
        // Client verdicts name the namespace of the client.
        let here = p.netns == netns || p.role == Role::Client;
        let verdict = p.verdict.and_then(find);
        here && verdict.is_some_and(|v| v.explains().contains(&counted))
    })
}
