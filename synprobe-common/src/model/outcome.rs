//! How a handshake ended, and where its dwell comes from.

use serde::Serialize;

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both sides agree.
    Established,
    /// RST in answer to a SYN.
    Refused,
    /// SYN retries exhausted.
    TimedOut,
    /// ICMP, no route, no local port: `error` names it.
    Unreachable,
    /// Closed by the application while open.
    Abandoned,
    /// Half-open killed by the peer's RST.
    Reset,
    /// Half-open: SYN-ACK retries exhausted.
    Expired,
    /// Half-open removed: listener closed, queue pruned.
    Dropped,
    /// Open when last seen: [`OpenReason`] has the reason.
    Open,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 9] = [
        Self::Established,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Abandoned,
        Self::Reset,
        Self::Expired,
        Self::Dropped,
        Self::Open,
    ];

    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Abandoned => "abandoned",
            Self::Reset => "reset",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::Open => "open",
        }
    }
}

/// Why the outcome of a handshake is `open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenReason {
    /// It was still open when the run ended.
    RunEnded,
    /// It was evicted from the bounded table (`--max-handshakes`).
    Evicted,
    /// It ended, and the event of its end was lost.
    EndNotSeen,
}

impl OpenReason {
    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::RunEnded => "run_ended",
            Self::Evicted => "evicted",
            Self::EndNotSeen => "end_not_seen",
        }
    }
}

/// Where a dwell comes from, most direct first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DwellSource {
    /// The time between two kernel events.
    Events,
    /// The connection's own first RTT sample.
    RttSample,
    /// `tcp_request_sock.snt_synack`.
    RequestSock,
    /// Found by sock_diag: the bound is in `dwell_error_us`.
    SockDiag,
}

impl DwellSource {
    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::RttSample => "rtt_sample",
            Self::RequestSock => "request_sock",
            Self::SockDiag => "sock_diag",
        }
    }
}
