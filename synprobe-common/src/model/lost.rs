//! Lost records.

use serde::{Deserialize, Serialize};

/// Which records were lost. A counter that shows the same loss does not count it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missed {
    /// Others.
    Others,
    /// Transitions.
    States,
    /// Retransmissions of SYNs, SYN-ACKs and segments.
    Retransmissions,
    /// Beginnings and ends of half-opens (the exact mode).
    Requests,
    /// Any of these.
    Any,
    /// Packets that this host dropped: evidence, never a handshake.
    Drops,
    /// Retransmissions of SYNs and SYN-ACKs, and ends, in this namespace: only a counter of the kernel or sock_diag
    /// shows them.
    Handshakes(u32),
    /// Retransmissions of other segments in this namespace, which belong to no handshake.
    Data(u32),
    /// Lines of one output that was too slow. No record was lost, and only that output lacks them.
    Output,
    /// Handshakes evicted from the table: each has a line of its own, and no other one is affected.
    Evicted,
    /// Connections that were reset right after their handshake, which is not affected.
    EarlyResets,
    /// Dropped packets outside the selection.
    OtherDrops,
    /// SYNs that found no socket.
    WithoutSocket,
}

/// Something was lost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lost {
    /// How many since the last such line.
    pub events: u64,
    /// Of what kind, and why.
    pub reason: String,
    /// Which records they may have been, where that is known.
    #[serde(skip)]
    pub of: Missed,
}

impl Lost {
    /// Whether it may falsify the report of a handshake.
    pub fn is_of_handshakes(&self) -> bool {
        !matches!(
            self.of,
            Missed::Drops
                | Missed::Data(_)
                | Missed::Output
                | Missed::Evicted
                | Missed::EarlyResets
                | Missed::OtherDrops
                | Missed::WithoutSocket
        )
    }
}
