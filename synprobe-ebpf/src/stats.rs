//! Counters of the kernel side, per CPU and per record kind.

use crate::event::KINDS;

/// Slot of the regular programs. They do not re-enter themselves, nor each other for one kind.
pub const REGULAR: u32 = 0;
/// Slot of the stand-in, which can interrupt the program that it stands in for.
pub const STAND_IN: u32 = 1;
/// Slots per CPU.
pub const STATS_SLOTS: u32 = 2;

/// One CPU's counters. `produced` = submitted + `dropped` + `unread` + `held_back` +
/// `elsewhere_held_back` + `others_held_back` + `no_socket_held_back` + `resets_held_back`, always.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that should have been written, by kind.
    pub produced: [u64; KINDS],
    /// Records lost because the ring was full.
    pub dropped: [u64; KINDS],
    /// Records discarded because a kernel member could not be read.
    pub unread: [u64; KINDS],
    /// `drop` records beyond [`DROPS_PER_SECOND`](crate::config::DROPS_PER_SECOND): not written.
    pub held_back: u64,
    /// The same of packets with a port of the selection, in another namespace or role.
    pub elsewhere_held_back: u64,
    /// The same of all other packets, beyond
    /// [`OTHER_DROPS_PER_SECOND`](crate::config::OTHER_DROPS_PER_SECOND).
    pub others_held_back: u64,
    /// The same of SYNs of the selection that found no socket.
    pub no_socket_held_back: u64,
    /// The same of early resets, beyond
    /// [`EARLY_RESETS_PER_SECOND`](crate::config::EARLY_RESETS_PER_SECOND).
    pub resets_held_back: u64,
    /// Runs of the program on `skb:kfree_skb`: packets of any kind that were dropped on this CPU.
    pub drop_runs: u64,
    /// Runs that parsed the packet's headers.
    pub drop_looks: u64,
    /// Runs of a stand-in after the kernel skipped the program. Nothing was lost.
    pub stood_in: u64,
}

impl Stats {
    /// Adds another CPU's counters.
    pub fn add(&mut self, other: &Self) {
        let sum = |into: &mut [u64; KINDS], from: &[u64; KINDS]| {
            for (into, from) in into.iter_mut().zip(from) {
                *into = into.wrapping_add(*from);
            }
        };
        sum(&mut self.produced, &other.produced);
        sum(&mut self.dropped, &other.dropped);
        sum(&mut self.unread, &other.unread);
        self.held_back = self.held_back.wrapping_add(other.held_back);
        self.elsewhere_held_back = self
            .elsewhere_held_back
            .wrapping_add(other.elsewhere_held_back);
        self.others_held_back = self.others_held_back.wrapping_add(other.others_held_back);
        self.no_socket_held_back = self
            .no_socket_held_back
            .wrapping_add(other.no_socket_held_back);
        self.resets_held_back = self.resets_held_back.wrapping_add(other.resets_held_back);
        self.drop_runs = self.drop_runs.wrapping_add(other.drop_runs);
        self.drop_looks = self.drop_looks.wrapping_add(other.drop_looks);
        self.stood_in = self.stood_in.wrapping_add(other.stood_in);
    }
}
