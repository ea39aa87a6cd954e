//! Two hosts that called each other at once (simultaneous open, RFC 9293 section 3.5): each end is an active open.

use std::{collections::HashSet, net::SocketAddr};

use super::fact::{Ends, SideHandshake};
use crate::model::Role;

/// Opens of a side that are kept. Of more, those that come later are not joined.
pub(super) const OPENS: usize = 4096;

/// The active opens of a side that met the SYN of the host that they called.
#[derive(Debug, Default)]
pub struct CrossedOpens {
    ends: HashSet<Ends>,
    from: HashSet<SocketAddr>,
    numbers: HashSet<u32>,
}

impl CrossedOpens {
    pub(super) fn add(&mut self, h: &SideHandshake) {
        if !is_crossed(h) || self.ends.len() >= OPENS {
            return;
        }
        if let Some(ends) = h.ends() {
            self.from.insert(ends.0);
            self.ends.insert(ends);
        }
        self.numbers.extend(h.syn_seq);
        self.numbers.extend(h.syn_ack_seq);
    }

    /// Whether one of them may be the other end of an active open.
    pub(super) fn may_have(&self, h: &SideHandshake) -> bool {
        let numbers = [h.syn_seq, h.syn_ack_seq];
        h.role == Role::Client
            && (numbers.iter().flatten().any(|n| self.numbers.contains(n))
                || h.ends()
                    .is_some_and(|(own, peer)| self.ends.contains(&(peer, own))))
    }

    /// Whether one of them called from this end.
    pub(super) fn calls_from(&self, end: SocketAddr) -> bool {
        self.from.contains(&end)
    }
}

/// Whether the peer's own SYN came. A socket that is connected to itself has no other end.
pub(super) fn is_crossed(h: &SideHandshake) -> bool {
    h.called_too && h.role == Role::Client && h.ends().is_none_or(|(own, peer)| own != peer)
}
