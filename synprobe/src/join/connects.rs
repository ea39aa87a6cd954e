//! What a join keeps while it goes: connects that wait, repetitions, destinations.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
};

use super::{
    fact::{Repeat, SideHandshake},
    pair::PairKey,
    waiting::Waits,
};

/// Handshakes whose repetitions are collected.
const REPEATED: usize = 65_536;

/// Repetitions that are kept of each: the kernel retransmits a SYN or SYN-ACK 255 times at most.
const REPETITIONS: usize = 255;

/// Repetitions of all handshakes together.
const ALL_REPETITIONS: usize = 512 * 1024;

/// Numbers of a join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Connects that both files have.
    pub joined: u64,
    /// Active opens that only the client's file has.
    pub client_only: u64,
    /// Half-opens that only the server's file has.
    pub server_only: u64,
}

/// What is known of where the client's connects went.
#[derive(Debug, Default)]
pub struct CalledAddresses {
    /// Called by a connect that the server's file has, under another address there.
    pub translated: HashSet<(IpAddr, u16)>,
    /// Called by a connect that somebody answered, and the server's file has not.
    pub shared: HashSet<(IpAddr, u16)>,
    /// Addresses that the client's connects came from.
    pub sources: HashSet<IpAddr>,
}

pub(super) struct WaitingConnect {
    pub(super) client: Box<SideHandshake>,
    pub(super) servers: Vec<SideHandshake>,
    pub(super) key: PairKey,
}

impl Waits for WaitingConnect {
    fn handshake(&self) -> &SideHandshake {
        &self.client
    }

    fn bytes(&self) -> usize {
        let servers: usize = self.servers.iter().map(SideHandshake::bytes).sum();
        self.client.bytes() + servers
    }
}

impl WaitingConnect {
    /// Both ends are connected at once: nothing else can belong to it.
    pub(super) fn is_complete(&self) -> bool {
        self.client.is_established()
            && self.client.retransmits == 0
            && matches!(&*self.servers, [one] if one.is_established())
    }
}

/// Repetitions by the `id` of their handshake. Bounded: of handshakes without an end, such as evicted ones, the
/// oldest go first.
#[derive(Default)]
pub(super) struct Repeats {
    known: HashMap<u64, Vec<Repeat>>,
    /// Handshakes by their first repetition; some are over.
    order: VecDeque<u64>,
    /// Of all handshakes.
    repetitions: usize,
}

impl Repeats {
    pub(super) fn add(&mut self, id: u64, repeat: Repeat) {
        let known = self.known.entry(id).or_insert_with(|| {
            self.order.push_back(id);
            Vec::new()
        });
        if known.len() < REPETITIONS {
            known.push(repeat);
            self.repetitions += 1;
        }
        while self.known.len() > REPEATED || self.repetitions > ALL_REPETITIONS {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.take(oldest);
        }
        if self.order.len() > 2 * REPEATED {
            let known = &self.known;
            self.order.retain(|id| known.contains_key(id));
        }
    }

    /// Those of a handshake that is over.
    pub(super) fn take(&mut self, id: u64) -> Vec<Repeat> {
        let known = self.known.remove(&id).unwrap_or_default();
        self.repetitions -= known.len();
        known
    }

    /// A new run begins: its numbers are others.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Repeat = Repeat {
        at_ns: 1,
        by_peer: false,
        failed: false,
    };

    #[test]
    fn issue18_handshakes_without_an_end_do_not_shut_out_later_ones() {
        let mut repeats = Repeats::default();
        for id in 0..3 * REPEATED as u64 {
            repeats.add(id, ONE);
            if id % 2 == 0 {
                assert_eq!(repeats.take(id).len(), 1);
            }
        }
        let last = 3 * REPEATED as u64 - 1;
        assert_eq!(repeats.take(last).len(), 1);
        assert_eq!(repeats.take(1).len(), 0);
        assert!(repeats.known.len() <= REPEATED && repeats.order.len() <= 2 * REPEATED);
    }

    #[test]
    fn issue18_many_repetitions_of_many_handshakes_are_bounded() {
        let mut repeats = Repeats::default();
        for id in 0..4096 {
            for _ in 0..300 {
                repeats.add(id, ONE);
            }
        }
        assert!(repeats.repetitions <= ALL_REPETITIONS);
        let held: usize = repeats.known.values().map(Vec::len).sum();
        assert_eq!(held, repeats.repetitions);
        assert_eq!(repeats.take(4095).len(), REPETITIONS);
        assert_eq!(repeats.take(0).len(), 0);
    }
}
