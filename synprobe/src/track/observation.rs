//! What the tracker takes in, and the totals that it keeps.

use super::{Fates, peers::Estimate};
use crate::{
    decode::Event,
    model::{ByRole, ListenerOwner, Lost, SocketDump},
};

/// One observation.
#[derive(Debug)]
pub enum Observation {
    /// A kernel event.
    Event(Event),
    /// Half-opens as sock_diag shows them, and what became of those that it does not show.
    Dump(Box<SocketDump>, Fates),
    /// Listeners and their owners, found at the start or since.
    Listeners(Vec<ListenerOwner>),
    /// Records were lost.
    Lost {
        /// When that was noticed.
        at_ns: u64,
        /// What they were.
        lost: Lost,
    },
}

/// The running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Kernel records taken in.
    pub events: u64,
    /// Records lost.
    pub lost: u64,
    /// `handshake` lines.
    pub handshakes: u64,
    /// Those lost that only a counter or sock_diag shows.
    pub unreported: u64,
    /// Handshakes evicted from the table.
    pub evicted: u64,
    /// Handshakes that completed and were only counted, in the kernel.
    pub counted: u64,
    /// Handshakes and retransmissions of peers that were evicted from the peer tables.
    pub peers_unlisted: u64,
    /// Different peers, by role; known once the run is over.
    pub peers_distinct: ByRole<Estimate>,
}
