//! A segment that the kernel retransmitted.

use serde::Serialize;

use super::Connection;

/// Why a segment was retransmitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RetransmitKind {
    /// SYN, by its timer.
    Syn,
    /// SYN-ACK.
    Synack,
    /// Data, by the retransmission timer (RFC 6298).
    Rto,
    /// Tail-loss probe (RFC 8985).
    Tlp,
    /// Fast retransmit (RFC 5681, RFC 6675).
    Fast,
    /// ACK-driven repair in loss recovery, after an RTO.
    Recovery,
}

impl RetransmitKind {
    /// Every kind, in the order of the contract.
    pub const ALL: [Self; 6] = [
        Self::Syn,
        Self::Synack,
        Self::Rto,
        Self::Tlp,
        Self::Fast,
        Self::Recovery,
    ];

    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Synack => "synack",
            Self::Rto => "rto",
            Self::Tlp => "tlp",
            Self::Fast => "fast",
            Self::Recovery => "recovery",
        }
    }
}

/// What made the kernel retransmit a SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The request's timer.
    Timer,
    /// The peer repeated its SYN.
    Peer,
}

/// A retransmitted segment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retransmit {
    /// Whose.
    #[serde(flatten)]
    pub connection: Connection,
    /// Why.
    pub kind: RetransmitKind,
    /// For a SYN-ACK: what caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// 1 for the first retransmission of this segment.
    pub attempt: Option<u32>,
    /// Since its previous transmission, microseconds.
    pub gap_us: Option<u64>,
    /// What this kernel's schedule predicts for that gap, microseconds; handshakes only.
    pub expected_gap_us: Option<u64>,
    /// Predicted time to the next one, microseconds; handshakes only.
    pub next_us: Option<u64>,
    /// Predicted time to the end, microseconds; handshakes only.
    pub gives_up_us: Option<u64>,
    /// Segments it carries.
    pub segs: u32,
    /// The kernel could not send it (seen from 6.17).
    pub failed: bool,
    /// Why it could not.
    pub error: Option<String>,
}
