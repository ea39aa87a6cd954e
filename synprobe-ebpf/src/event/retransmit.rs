//! Retransmissions: of a full socket's segment, and of a half-open's SYN-ACK.

use super::{Flow, Header};

/// `tcp:tcp_retransmit_skb`: a full socket retransmitted a segment (or, from 6.17, failed to).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetransmitRecord {
    /// Kind [`KIND_RETRANSMIT`].
    pub header: Header,
    /// The connection.
    pub flow: Flow,
    /// Address of the `struct sock`.
    pub sock: u64,
    /// 0, or (from 6.17) why nothing was sent: a negative errno or a positive `NET_XMIT_*`.
    pub err: i32,
    /// `tcp_skb_cb.seq`: first sequence number of the segment.
    pub seq: u32,
    /// `tcp_skb_cb.tcp_gso_segs`: segments it carries, at least 1.
    pub segs: u32,
    /// `tcp_sock.snd_wnd`, bytes.
    pub snd_wnd: u32,
    /// `tcp_sock.total_retrans`, this one included.
    pub total_retrans: u32,
    /// `icsk_rto`, jiffies: after a timeout, the one that expired.
    pub rto_jiffies: u32,
    /// `icsk_rto_max`, jiffies (6.15+); 0 where absent: TCP_RTO_MAX, 120 s.
    pub rto_max_jiffies: u32,
    /// `icsk_user_timeout`, milliseconds; 0: none.
    pub user_timeout_ms: u32,
    /// `sk_state`; see [`state`](super::state).
    pub state: u8,
    /// `icsk_ca_state`: 0 Open, 1 Disorder, 2 CWR, 3 Recovery, 4 Loss.
    pub ca_state: u8,
    /// `icsk_pending`: `ICSK_TIME_*`.
    pub pending: u8,
    /// `icsk_retransmits`: ordinal of this timeout, 1 for the first.
    pub retransmits: u8,
    /// `icsk_backoff` before this one.
    pub backoff: u8,
    /// `icsk_syn_retries` (TCP_SYNCNT); 0: the namespace's.
    pub syn_retries: u8,
    /// The namespace's `tcp_syn_retries`.
    pub sysctl_syn_retries: u8,
    /// The namespace's `tcp_syn_linear_timeouts`; 0 before 6.5, where it does not exist.
    pub sysctl_syn_linear: u8,
    /// `tcp_sock.retrans_stamp`: in SYN_SENT the time of the first SYN, CLOCK_MONOTONIC milliseconds, the
    /// low 32 bits (`tcp_connect()`).
    pub retrans_stamp_ms: u32,
    /// In SYN_SENT: what the first SYN had and this repetition has not, of `SYN_HAD_*`; 0 elsewhere, and where
    /// the kernel does not have the members.
    pub syn_had: u8,
    /// 1 in SYN_SENT where the segment is no SYN: the data of Fast Open, a packet of its own in the queue
    /// (`tcp_send_syn_data()`).
    pub no_syn: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

/// [`RetransmitRecord::syn_had`]: TCP Fast Open, data or the request for a cookie (`tcp_sock.syn_fastopen`).
pub const SYN_HAD_FAST_OPEN: u8 = 1;
/// [`RetransmitRecord::syn_had`]: ECE and CWR (`tcp_sock.ecn_flags`). Repetitions go without them where
/// `tcp_ecn_fallback` is set, the default.
pub const SYN_HAD_ECN: u8 = 2;

/// [`SynAckRecord::trigger`]: the request's timer fired.
pub const TRIGGER_TIMER: u8 = 1;
/// [`SynAckRecord::trigger`]: the peer retransmitted its SYN.
pub const TRIGGER_PEER: u8 = 2;

/// `tcp:tcp_retransmit_synack`: a half-open's SYN-ACK was retransmitted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynAckRecord {
    /// Kind [`KIND_SYNACK`].
    pub header: Header,
    /// The half-open connection.
    pub flow: Flow,
    /// Address of the `struct request_sock`.
    pub req: u64,
    /// Address of the listener, or of the child for TCP Fast Open.
    pub sock: u64,
    /// `tcp_request_sock.snt_synack`: when the first SYN-ACK was built, CLOCK_MONOTONIC, microseconds.
    pub snt_synack_us: u64,
    /// `request_sock.timeout`, jiffies (6.1+); 0 where absent: TCP_TIMEOUT_INIT, 1 s.
    pub timeout_jiffies: u32,
    /// Requests in the listener's SYN queue (`icsk_accept_queue.qlen`).
    pub qlen: u32,
    /// Those whose timer has not fired yet (`.young`).
    pub young: u32,
    /// `sk_ack_backlog`: connections waiting for accept().
    pub ack_backlog: u32,
    /// `sk_max_ack_backlog`: the limit of both queues.
    pub max_ack_backlog: u32,
    /// `icsk_rto_max` of the listener, jiffies (6.15+); 0 where absent.
    pub rto_max_jiffies: u32,
    /// [`TRIGGER_TIMER`] or [`TRIGGER_PEER`].
    pub trigger: u8,
    /// `num_timeout`: timer expiries before this one.
    pub num_timeout: u8,
    /// `num_retrans`: SYN-ACKs retransmitted before this one.
    pub num_retrans: u8,
    /// `inet_request_sock.acked`: the final ACK arrived but was not accepted (accept queue full, or
    /// TCP_DEFER_ACCEPT).
    pub acked: u8,
    /// `icsk_syn_retries` of the listener (TCP_SYNCNT); 0: the namespace's.
    pub syn_retries: u8,
    /// The namespace's `tcp_synack_retries`.
    pub sysctl_synack_retries: u8,
    /// `rskq_defer_accept` of the listener; 0: TCP_DEFER_ACCEPT is off.
    pub defer_accept: u8,
    /// `sk_state` of `sock`: LISTEN, or SYN_RECV for TCP Fast Open.
    pub sock_state: u8,
    /// The client's initial sequence number (`tcp_request_sock.rcv_isn`).
    pub rcv_isn: u32,
    /// The server's (`tcp_request_sock.snt_isn`).
    pub snt_isn: u32,
}
