//! What was not seen.

use serde::{Deserialize, Serialize};

/// Which records were lost: what a socket or a counter shows of the same is not lost once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missed {
    /// Others.
    Others,
    /// Transitions.
    States,
    /// SYNs and SYN-ACKs, and segments, sent again.
    Retransmissions,
    /// Beginnings and ends of half-opens (the exact mode).
    Requests,
    /// Any of these.
    Any,
    /// Packets that this host threw away: evidence, never a handshake.
    Drops,
    /// SYNs and SYN-ACKs sent again in this namespace: only a count of the kernel's tells of them.
    Handshakes(u32),
    /// Likewise other segments, which are no handshake's.
    Data(u32),
    /// Lines for one output, which was too slow for them: no record, and only that output lacks them.
    Output,
    /// Handshakes evicted from the table: each has a line of its own, and no other one is affected.
    Evicted,
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
    /// Whether a handshake may be told wrongly for it.
    pub fn is_of_handshakes(&self) -> bool {
        !matches!(
            self.of,
            Missed::Drops | Missed::Data(_) | Missed::Output | Missed::Evicted
        )
    }
}
