//! What every view prints: the output contract (docs/events.md) as types.
//!
//! The tracker makes these, the views only format them. Units are in the names; an unknown value is
//! `None`, never 0.

mod completed;
mod connect;
mod end;
mod facts;
mod listener;
mod listener_table;
mod lost;
mod observation;
mod problem;
mod role;
mod run;
mod state_counts;
mod under_way;
mod verdict;
mod wall_clock;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

pub use completed::{Bucket, Completed};
pub use connect::{Connect, ConnectAttempt};
pub use end::End;
pub use facts::{Facts, HalfOpens, Queue};
pub use listener::{LimitedBy, Listener, QueueSettings};
pub use listener_table::{ListenerNamespace, ListenerTable, SharedSynQueue};
pub use lost::{Lost, Missed};
pub use observation::{
    Fate, HalfOpenRow, HandshakeCounters, HandshakeSettings, ListenCounters, ListenerOwner,
    PathQuestion, RetransCounts, RetransReading, ReturnPath, SocketDump, Tuple,
};
pub use problem::{PeerShare, Problem};
pub use role::{ByRole, Role};
pub use run::{Detail, HalfOpenSource};
pub use state_counts::{Counted, Counts, NetnsStates, PortStates};
pub use under_way::{PortState, UnderWay};
pub use verdict::VerdictKind;
pub use wall_clock::WallClock;

/// A TCP state as `include/net/tcp_states.h` numbers it and RFC 9293 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    /// Data flows.
    Established = 1,
    /// Active open, SYN sent.
    SynSent = 2,
    /// Passive open, SYN-ACK sent; or a simultaneous open.
    SynRecv = 3,
    /// Our FIN is not acknowledged.
    FinWait1 = 4,
    /// Our FIN is acknowledged, the peer's is awaited.
    FinWait2 = 5,
    /// Both closed, waiting 2 MSL.
    TimeWait = 6,
    /// No connection.
    Close = 7,
    /// The peer closed, we have not.
    CloseWait = 8,
    /// Both closed, the acknowledgement of our FIN is awaited.
    LastAck = 9,
    /// Passive socket.
    Listen = 10,
    /// Simultaneous close.
    Closing = 11,
}

impl TcpState {
    /// From the kernel's number; a request_sock's NEW_SYN_RECV (12) is SYN_RECV to every reader.
    pub fn from_kernel(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => return None,
        })
    }

    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }

    /// Whether a handshake is under way.
    pub fn is_handshake(self) -> bool {
        matches!(self, Self::SynSent | Self::SynRecv)
    }
}

impl Serialize for TcpState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Address family as printed: a v4-mapped IPv6 socket is `ipv4` with `v4_mapped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4, natively or v4-mapped.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A process: the caller of connect(), or a listener's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Thread-group id.
    pub pid: u32,
    /// `comm`, bytes that are not UTF-8 replaced.
    pub comm: Arc<str>,
}

/// What every line about one connection says of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Connection {
    /// One handshake, unique within a run.
    pub id: u64,
    /// Active or passive open.
    pub role: Role,
    /// As printed.
    pub family: Family,
    /// True for an IPv6 socket that talks IPv4; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub v4_mapped: bool,
    /// Local address.
    pub local_addr: IpAddr,
    /// Local port, host order; `None` while the kernel has not chosen it.
    pub local_port: Option<u16>,
    /// Peer address.
    pub peer_addr: IpAddr,
    /// Peer port, host order.
    pub peer_port: Option<u16>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// What people call it: `host`, a name under /run/netns, or a process in it.
    pub netns_name: Option<Arc<str>>,
    /// Client: the caller of connect(); server: the listener's owner.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<Arc<str>>,
    /// Its cgroup v2 path.
    pub cgroup: Option<Arc<str>>,
}

impl Connection {
    /// Names the process.
    pub fn set_process(&mut self, process: Option<&Process>) {
        if let Some(process) = process {
            self.pid = Some(process.pid);
            self.comm = Some(process.comm.clone());
        }
    }
}

/// A transition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// Whose.
    #[serde(flatten)]
    pub connection: Connection,
    /// State left.
    pub old: TcpState,
    /// State entered.
    pub new: TcpState,
    /// Time spent in `old`, microseconds.
    pub dwell_us: Option<u64>,
}

/// Why a segment was sent again.
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

/// What made the kernel send a SYN-ACK again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The request's timer.
    Timer,
    /// The peer repeated its SYN.
    Peer,
}

/// A segment sent again.
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
    /// Open when last seen: [`OpenReason`] says why that is all that is known.
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

/// Why the line of a handshake says `open`.
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

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Seen.
    Certain,
    /// The best explanation of what was seen.
    Likely,
    /// Not enough evidence.
    Insufficient,
}

impl Confidence {
    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Insufficient => "insufficient",
        }
    }
}

/// One fact that speaks for or against.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Evidence {
    /// In words, with its numbers.
    pub fact: String,
    /// For the verdict, or against it.
    #[serde(rename = "for")]
    pub supports: bool,
}

/// The end of a handshake; exactly one for each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Handshake {
    /// Whose.
    #[serde(flatten)]
    pub connection: Connection,
    /// How it ended.
    pub outcome: Outcome,
    /// Why the outcome is [`Outcome::Open`]; `None` for any other outcome.
    pub open_reason: Option<OpenReason>,
    /// First SYN (client) or first SYN-ACK (server) → outcome, microseconds.
    pub dwell_us: Option<u64>,
    /// Where that comes from.
    pub dwell_source: Option<DwellSource>,
    /// Bound of its error, microseconds; `None` where it is exact to the clock.
    pub dwell_error_us: Option<u64>,
    /// SYNs or SYN-ACKs sent again by this host.
    pub retransmits: u32,
    /// SYN-ACKs among them that the peer's repeated SYN caused.
    pub retransmits_by_peer: u32,
    /// Name of the errno that ended it.
    pub error: Option<String>,
    /// Why it went badly.
    pub verdict: Option<VerdictKind>,
    /// How sure.
    pub confidence: Confidence,
    /// The facts.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub remedy: Option<String>,
    /// The measured gaps between its transmissions, microseconds: the ladder of the text view.
    #[serde(skip)]
    pub gaps_us: Vec<u64>,
    /// What verdicts are drawn from.
    #[serde(skip)]
    pub facts: Facts,
}

impl Handshake {
    /// Whether it was evicted from the table: then its line says nothing about how it went.
    pub fn was_evicted(&self) -> bool {
        self.open_reason == Some(OpenReason::Evicted)
    }

    /// Whether it was still open when the run ended.
    pub fn is_still_open(&self) -> bool {
        self.open_reason == Some(OpenReason::RunEnded)
    }
}

/// Totals of one peer address in one role.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peer {
    /// The peer.
    pub peer_addr: IpAddr,
    /// This host's role towards it.
    pub role: Role,
    /// Handshakes begun.
    pub attempts: u64,
    /// Completed.
    pub established: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Still open.
    pub open: u64,
    /// Median dwell of those that ended, microseconds (relative error 1 %).
    pub dwell_p50_us: Option<u64>,
    /// 99th percentile, likewise.
    pub dwell_p99_us: Option<u64>,
    /// Largest, exact.
    pub dwell_max_us: Option<u64>,
    /// SYNs sent again.
    pub syn_retransmits: u64,
    /// SYN-ACKs sent again.
    pub synack_retransmits: u64,
    /// RTO retransmissions.
    pub rto_retransmits: u64,
    /// Tail-loss probes.
    pub tlp_retransmits: u64,
    /// Fast retransmissions.
    pub fast_retransmits: u64,
    /// Loss-recovery retransmissions.
    pub recovery_retransmits: u64,
    /// Server: its SYNs that were not taken because the accept queue was full; `None`: not known.
    pub syns_refused_accept_queue: Option<u64>,
    /// Likewise, because the SYN queue was.
    pub syns_refused_syn_queue: Option<u64>,
    /// Verdict → count; printed in the order of their names.
    #[serde(serialize_with = "verdict::serialize_counts")]
    pub verdicts: BTreeMap<VerdictKind, u64>,
}

/// The start of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// synprobe's version.
    pub version: String,
    /// `uname -r`.
    pub kernel: String,
    /// What is in use, by name.
    pub features: Vec<String>,
    /// What tells of a half-open's end: `tracepoints`, `exact (fentry)` or `exact (timer)`.
    pub mode: String,
    /// Why it is not fentry, where that was wanted.
    pub mode_why: Option<String>,
    /// What this host lacks, and so what is not known.
    pub missing: Vec<String>,
    /// The filters, as given.
    pub filters: BTreeMap<String, String>,
    /// Which host it was.
    #[serde(default)]
    pub host: HostIdentity,
    /// Only in a replay: the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_from: Option<String>,
}

/// Tells hosts apart; `None`: it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    /// `uname -n`.
    pub hostname: Option<String>,
    /// `/etc/machine-id` (machine-id(5)).
    pub machine_id: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// `start`
    Start(Start),
    /// `state`
    State(State),
    /// `retransmit`
    Retransmit(Retransmit),
    /// `handshake`
    Handshake(Box<Handshake>),
    /// `peer`
    Peer(Box<Peer>),
    /// `listener`
    Listener(Box<Listener>),
    /// `completed`
    Completed(Box<Completed>),
    /// `problem`
    Problem(Box<Problem>),
    /// `connect`
    Connect(Box<Connect>),
    /// `lost`
    Lost(Lost),
    /// `end`
    End(End),
}

/// One line of output.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it happened in the kernel, CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// What happened.
    pub body: Body,
}
