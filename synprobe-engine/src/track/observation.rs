//! What the tracker takes in, and the totals that it keeps.

use synprobe_ebpf::event::DropRecord;

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
    /// A dropped packet, and what its half-open made of it.
    Drop(DropRecord, Treatment),
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

/// What a half-open, or its listener, made of a packet that it freed. `tcp_check_req()` gives each case a reason of
/// its own since Linux 6.15 (net/ipv4/tcp_minisocks.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// This kernel does not tell, or the recording does not.
    Untold,
    /// NOT_SPECIFIED: it fitted the half-open. A repeated SYN; a RST that ended it; an ACK that TCP_DEFER_ACCEPT
    /// puts off.
    Taken,
    /// TCP_LISTEN_OVERFLOW: the final ACK, and no connection could be made of it.
    Overflow,
    /// It did not fit: outside of the window, an old timestamp; or it was dropped for a reason of this host's own.
    /// Nothing follows from it.
    Ignored,
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
