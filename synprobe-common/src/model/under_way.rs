//! Handshakes in progress, as a live view shows them.

use super::{ByRole, Connection, Counted, Role, TcpState};

/// A handshake under way.
#[derive(Clone, Debug, PartialEq)]
pub struct UnderWay {
    /// Whose.
    pub connection: Connection,
    /// SYN_SENT or SYN_RECV.
    pub state: TcpState,
    /// When it began, CLOCK_MONOTONIC nanoseconds, where that is known.
    pub began_ns: Option<u64>,
    /// Bound of the error of that, microseconds.
    pub began_error_us: u64,
    /// SYNs or SYN-ACKs that this host has retransmitted.
    pub retransmits: u32,
    /// SYN-ACKs among them that the peer's repeated SYN caused.
    pub retransmits_by_peer: u32,
    /// The gaps between its transmissions, microseconds.
    pub gaps_us: Vec<u64>,
    /// When its next retransmission is due by the kernel's schedule, CLOCK_MONOTONIC nanoseconds; the timer is
    /// never early and up to an eighth of its time-out late. `None`: none follows, or that is not known.
    pub next_ns: Option<u64>,
    /// When the kernel gives it up, CLOCK_MONOTONIC nanoseconds, where that can be predicted.
    pub gives_up_ns: Option<u64>,
}

/// The handshakes under way of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortState {
    /// Network namespace, inode.
    pub netns: u32,
    /// This host's role.
    pub role: Role,
    /// The listening port: the local one of a server, the peer's of a client; `None` where it is not known.
    pub port: Option<u16>,
    /// How many are under way.
    pub open: u64,
    /// When the oldest of them began, CLOCK_MONOTONIC nanoseconds, where that is known.
    pub oldest_ns: Option<u64>,
}

/// Handshakes in progress over a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOverRun {
    /// After the first round of the socket tables.
    pub at_start: ByRole<u64>,
    /// The most at one count; each role's own.
    pub most: ByRole<u64>,
    /// Before the run ended those that were left.
    pub at_end: ByRole<u64>,
}

/// What was counted before a run was over.
#[derive(Clone, Debug, Default)]
pub struct RunProgress {
    /// Sockets by state when it began, where they were counted.
    pub socket_states: Option<Counted>,
    /// Handshakes in progress, where they were counted.
    pub in_progress: Option<OpenOverRun>,
}
