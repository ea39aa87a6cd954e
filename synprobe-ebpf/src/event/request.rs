//! Half-opens: begun, ended, and SYNs that were refused.

use super::{Flow, Header};

/// [`RequestRecord::moment`]: a SYN was accepted and its half-open created
/// (`inet_csk_reqsk_queue_hash_add()`).
pub const REQUEST_BEGUN: u8 = 1;
/// [`RequestRecord::moment`]: a half-open ended without becoming a connection.
pub const REQUEST_ENDED: u8 = 2;
/// [`RequestRecord::moment`]: a SYN was refused: no half-open was created and no SYN cookie sent.
pub const REQUEST_REFUSED: u8 = 3;

/// [`RequestRecord::ended_by`]: unknown.
pub const ENDED_BY_UNKNOWN: u8 = 0;
/// [`RequestRecord::ended_by`]: the peer's RST or invalid SYN (`tcp_check_req()`).
pub const ENDED_BY_PACKET: u8 = 1;
/// [`RequestRecord::ended_by`]: an ICMP error (`tcp_req_err()`).
pub const ENDED_BY_ICMP: u8 = 2;
/// [`RequestRecord::ended_by`]: closed by a tool such as `ss -K` (`tcp_abort()`).
pub const ENDED_BY_ABORTED: u8 = 3;
/// [`RequestRecord::ended_by`]: its timer expired (`reqsk_timer_handler()`).
pub const ENDED_BY_TIMER: u8 = 4;

/// [`RequestRecord::queue`]: neither queue was full.
pub const QUEUE_NEITHER: u8 = 0;
/// [`RequestRecord::queue`]: the accept queue was full.
pub const QUEUE_ACCEPT: u8 = 1;
/// [`RequestRecord::queue`]: the SYN queue was full.
pub const QUEUE_SYN: u8 = 2;

/// A half-open began or ended, or a SYN was refused. No TCP tracepoint reports this: the source is fentry
/// and fexit, or the tracepoints of the request's timer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestRecord {
    /// Kind [`KIND_REQUEST`].
    pub header: Header,
    /// The half-open connection, or the SYN's.
    pub flow: Flow,
    /// Address of the `struct request_sock`; 0 for [`REQUEST_REFUSED`].
    pub req: u64,
    /// As in [`SynAckRecord`](super::SynAckRecord); 0 before the first SYN-ACK.
    pub snt_synack_us: u64,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub timeout_jiffies: u32,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub qlen: u32,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub young: u32,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub ack_backlog: u32,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub max_ack_backlog: u32,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub rto_max_jiffies: u32,
    /// `REQUEST_*`.
    pub moment: u8,
    /// For [`REQUEST_ENDED`]: `ENDED_BY_*`.
    pub ended_by: u8,
    /// Timeouts so far; for [`ENDED_BY_TIMER`], before the last one.
    pub num_timeout: u8,
    /// SYN-ACK retransmissions.
    pub num_retrans: u8,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub acked: u8,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub syn_retries: u8,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub sysctl_synack_retries: u8,
    /// As in [`SynAckRecord`](super::SynAckRecord).
    pub defer_accept: u8,
    /// `sk_state` of the listener.
    pub listener_state: u8,
    /// For [`REQUEST_REFUSED`]: `QUEUE_*`.
    pub queue: u8,
    /// Zero.
    pub _pad: [u8; 2],
    /// The client's initial sequence number (`tcp_request_sock.rcv_isn`); 0 for [`REQUEST_REFUSED`].
    pub rcv_isn: u32,
}
