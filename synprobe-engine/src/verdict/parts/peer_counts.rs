//! Which peers a problem concerns most.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

use crate::model::PeerShare;

/// Peers named in a problem.
const NAMED: usize = 5;

/// How many of a group's handshakes are each peer's. Bounded: those that come once it is full are not
/// counted.
#[derive(Clone, Debug, Default)]
pub(in crate::verdict) struct PeerCounts {
    counts: HashMap<IpAddr, u64>,
    /// Handshakes of peers that found no place.
    uncounted: u64,
}

impl PeerCounts {
    /// Counts `handshakes` of a peer, if there are fewer than `limit` peers or it is one of them.
    pub fn add(&mut self, peer: IpAddr, handshakes: u64, limit: usize) {
        if let Some(count) = self.counts.get_mut(&peer) {
            *count += handshakes;
        } else if self.counts.len() < limit {
            self.counts.insert(peer, handshakes);
        } else {
            self.uncounted += handshakes;
        }
    }

    /// Adds those of another group, with the same bound.
    pub fn merge(&mut self, other: &Self, limit: usize) {
        // In an order that no hash decides.
        let mut peers: Vec<(&IpAddr, &u64)> = other.counts.iter().collect();
        peers.sort_unstable();
        for (peer, handshakes) in peers {
            self.add(*peer, *handshakes, limit);
        }
        self.uncounted += other.uncounted;
    }

    /// Whether it is one of the peers.
    pub fn has(&self, peer: IpAddr) -> bool {
        self.counts.contains_key(&peer)
    }

    /// The most handshakes that one peer has.
    pub fn highest(&self) -> u64 {
        self.counts.values().copied().max().unwrap_or(0)
    }

    /// Different peers.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// The peers with the most handshakes, most first, and how many more there are at least.
    pub fn most(&self) -> (Vec<PeerShare>, u64) {
        let mut counts: Vec<(IpAddr, u64)> = self.counts.iter().map(|(p, n)| (*p, *n)).collect();
        counts.sort_by_key(|(peer, n)| (Reverse(*n), *peer));
        let more = counts.len().saturating_sub(NAMED) as u64;
        counts.truncate(NAMED);
        let shares = counts.into_iter().map(|(peer_addr, handshakes)| PeerShare {
            peer_addr,
            handshakes,
        });
        (shares.collect(), more)
    }

    /// What the bound left out, in words; `None`: nothing.
    pub fn left_out(&self) -> Option<String> {
        (self.uncounted > 0).then(|| {
            format!(
                "more than {} peers: {} handshakes of others are not attributed to a peer",
                self.counts.len(),
                self.uncounted
            )
        })
    }
}
