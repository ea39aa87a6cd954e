//! One budget of memory, shared out to the tables that strangers fill.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// What the process takes beside its tables and the ring, bytes: the program, its threads, names, rules, outputs.
pub const PROGRAM_MEMORY: u64 = 24 * MIB;

/// What the tables take that have a fixed bound, and lines on their way to the outputs, bytes.
const FIXED: u64 = 20 * MIB;

/// The smallest budget, bytes. Below it little would be left for the tables.
pub const LEAST_MEMORY: u64 = 64 * MIB;

/// The tables have at least one in this number of what the program leaves.
const LEAST_SHARE: u64 = 4;

/// What the program leaves of a budget, bytes.
fn spare(memory: u64) -> u64 {
    memory.max(LEAST_MEMORY) - PROGRAM_MEMORY - FIXED
}

/// The largest ring, bytes, that leaves the tables of a process their share of its `memory`. It may be no size
/// that the kernel takes.
pub fn largest_ring(memory: u64) -> u64 {
    spare(memory) - spare(memory) / LEAST_SHARE
}

/// The smallest budget, bytes, in which a ring leaves the tables their share.
pub fn least_memory(ring: u64) -> u64 {
    let spare = (ring * LEAST_SHARE).div_ceil(LEAST_SHARE - 1);
    (spare + PROGRAM_MEMORY + FIXED).max(LEAST_MEMORY)
}

/// How many entries each table may have. When one is full, its oldest entry is evicted, or later ones are only
/// counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableBounds {
    /// Half-opens in progress.
    #[serde(rename = "max_handshakes")]
    pub half_opens: usize,
    /// Active opens in progress.
    pub clients: usize,
    /// Peers that have responded.
    #[serde(rename = "max_peers")]
    pub peers: usize,
    /// Peers from which nothing came, or only a SYN.
    pub silent_peers: usize,
    /// Peers whose verdicts are counted.
    pub judged_peers: usize,
    /// Handshakes in trouble that are kept whole until they are judged at the end.
    pub held: usize,
    /// The same for those of a window.
    pub held_of_window: usize,
    /// Addresses of clients, of all ports together.
    pub sources: usize,
    /// Addresses and ports called, of all processes together.
    pub destinations: usize,
    /// Listeners that are followed, of all namespaces together.
    pub listeners: usize,
}

/// The bounds of recordings that were made before there was a budget.
impl Default for TableBounds {
    fn default() -> Self {
        Self {
            half_opens: 1_000_000,
            clients: 1_000_000,
            peers: 32_768,
            silent_peers: 8_192,
            judged_peers: 65_536,
            held: 50_000,
            held_of_window: 8_192,
            sources: 262_144,
            destinations: 131_072,
            listeners: 262_144,
        }
    }
}

impl TableBounds {
    /// The tables of a process that may take `memory` bytes, of which the ring takes `ring`.
    ///
    /// Each table has a share, and an entry has the size that was measured with full tables
    /// (`tests/memory/`), rounded up.
    pub fn within(memory: u64, ring: u64) -> Self {
        let spare = spare(memory);
        let tables = spare.saturating_sub(ring).max(spare / LEAST_SHARE);
        // Percent, and bytes an entry.
        let share = |percent: u64, entry: u64| (tables * percent / 100 / entry) as usize;
        Self {
            // Beside its entry each has a row while sock_diag is read.
            half_opens: share(45, 330),
            clients: share(17, 850),
            peers: share(8, 500),
            silent_peers: share(2, 300),
            judged_peers: share(3, 200),
            // A run has one of the two. Those of a window are copied to be judged.
            held: share(10, 2_000),
            held_of_window: share(10, 4_000),
            sources: share(5, 100),
            destinations: share(5, 300),
            listeners: share(5, 1_500),
        }
    }

    /// Of each table the smaller one.
    #[must_use]
    pub fn at_most(self, most: Self) -> Self {
        Self {
            half_opens: self.half_opens.min(most.half_opens),
            clients: self.clients.min(most.clients),
            peers: self.peers.min(most.peers),
            silent_peers: self.silent_peers.min(most.silent_peers),
            judged_peers: self.judged_peers.min(most.judged_peers),
            held: self.held.min(most.held),
            held_of_window: self.held_of_window.min(most.held_of_window),
            sources: self.sources.min(most.sources),
            destinations: self.destinations.min(most.destinations),
            listeners: self.listeners.min(most.listeners),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue20_a_ring_leaves_the_tables_their_share_or_does_not_fit() {
        for memory in [LEAST_MEMORY, 65 * MIB, 256 * MIB, 1 << 30, 1 << 40] {
            let largest = largest_ring(memory);
            assert!(least_memory(largest) <= memory, "{memory}");
            assert!(least_memory(largest + 2) > memory, "{memory}");
            // The tables have what the ring leaves, not more.
            let tables = TableBounds::within(memory, largest);
            let least = TableBounds::within(memory, u64::MAX);
            assert_eq!(tables.half_opens, least.half_opens, "{memory}");
        }
        assert_eq!(largest_ring(256 * MIB), 159 * MIB);
    }
}
