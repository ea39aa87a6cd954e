//! What a join keeps while it goes: connects that wait, repetitions, destinations.

use std::{
    collections::{HashMap, HashSet},
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

/// Repetitions by the `id` of their handshake.
#[derive(Default)]
pub(super) struct Repeats(HashMap<u64, Vec<Repeat>>);

impl Repeats {
    pub(super) fn add(&mut self, id: u64, repeat: Repeat) {
        if self.0.len() < REPEATED || self.0.contains_key(&id) {
            let known = self.0.entry(id).or_default();
            if known.len() < REPETITIONS {
                known.push(repeat);
            }
        }
    }

    /// Those of a handshake that is over.
    pub(super) fn take(&mut self, id: u64) -> Vec<Repeat> {
        self.0.remove(&id).unwrap_or_default()
    }

    /// A new run begins: its numbers are others.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
