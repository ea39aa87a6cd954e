//! Records as they stand in the ring buffer.
//!
//! Every record is `repr(C)`, starts with a [`Header`], has no implicit padding and only integer
//! members, so that any byte pattern of the right length is a valid value; kinds are integers and
//! never Rust enums. All integers are in the host's byte order unless a member says otherwise.

/// [`Header::kind`] of a [`StateRecord`].
pub const KIND_STATE: u16 = 1;
/// [`Header::kind`] of a [`RetransmitRecord`].
pub const KIND_RETRANSMIT: u16 = 2;
/// [`Header::kind`] of a [`SynAckRecord`].
pub const KIND_SYNACK: u16 = 3;
/// [`Header::kind`] of a [`ResetRecord`].
pub const KIND_RESET: u16 = 4;
/// [`Header::kind`] of an [`ErrorRecord`].
pub const KIND_ERROR: u16 = 5;
/// [`Header::kind`] of a [`DropRecord`].
pub const KIND_DROP: u16 = 6;
/// [`Header::kind`] of a [`RequestRecord`].
pub const KIND_REQUEST: u16 = 7;
/// One more than the highest kind: the length of every per-kind counter array.
pub const KINDS: usize = 8;

/// Names of the kinds, as `lost` lines print them; index = kind.
pub const KIND_NAMES: [&str; KINDS] = [
    "none",
    "state",
    "retransmit",
    "synack",
    "reset",
    "error",
    "drop",
    "request",
];

/// `AF_INET` of `linux/socket.h`.
pub const AF_INET: u16 = 2;
/// `AF_INET6` of `linux/socket.h`.
pub const AF_INET6: u16 = 10;

/// TCP states as `include/net/tcp_states.h` numbers them (unchanged since 2.6; NEW_SYN_RECV 4.1).
pub mod state {
    /// `TCP_ESTABLISHED`.
    pub const ESTABLISHED: u8 = 1;
    /// `TCP_SYN_SENT`.
    pub const SYN_SENT: u8 = 2;
    /// `TCP_SYN_RECV`: for a passive open, the child exists already (see docs/design.md).
    pub const SYN_RECV: u8 = 3;
    /// `TCP_FIN_WAIT1`.
    pub const FIN_WAIT1: u8 = 4;
    /// `TCP_FIN_WAIT2`.
    pub const FIN_WAIT2: u8 = 5;
    /// `TCP_TIME_WAIT`.
    pub const TIME_WAIT: u8 = 6;
    /// `TCP_CLOSE`.
    pub const CLOSE: u8 = 7;
    /// `TCP_CLOSE_WAIT`.
    pub const CLOSE_WAIT: u8 = 8;
    /// `TCP_LAST_ACK`.
    pub const LAST_ACK: u8 = 9;
    /// `TCP_LISTEN`.
    pub const LISTEN: u8 = 10;
    /// `TCP_CLOSING`.
    pub const CLOSING: u8 = 11;
    /// `TCP_NEW_SYN_RECV`: a request_sock, no socket yet.
    pub const NEW_SYN_RECV: u8 = 12;
}

/// What every record starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of the `KIND_*` constants.
    pub kind: u16,
    /// Length of the whole record, bytes.
    pub len: u16,
    /// CPU that wrote it.
    pub cpu: u32,
    /// `bpf_ktime_get_ns()`: CLOCK_MONOTONIC, nanoseconds.
    pub ts_ns: u64,
}

/// Whose packets: addresses, ports and network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Local address, network order; IPv4 as `::ffff:a.b.c.d`, whatever the socket's family.
    pub local_addr: [u8; 16],
    /// Peer address, likewise.
    pub peer_addr: [u8; 16],
    /// Local port, host order; 0 while the kernel has not chosen it.
    pub local_port: u16,
    /// Peer port, host order; 0 where the kernel does not tell it (LISTEN→SYN_RECV before 6.15).
    pub peer_port: u16,
    /// The socket's own family: [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// Zero.
    pub _pad: u16,
    /// Inode of the network namespace (`net.ns.inum`).
    pub netns: u32,
    /// Zero.
    pub _pad2: u32,
}

/// `sock:inet_sock_set_state`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateRecord {
    /// Kind [`KIND_STATE`].
    pub header: Header,
    /// The connection.
    pub flow: Flow,
    /// Address of the `struct sock`: identity until its terminal transition, and no longer.
    pub sock: u64,
    /// cgroup v2 id of the caller; only with `tgid`.
    pub cgroup: u64,
    /// Process (thread group) id of the caller; 0 unless the transition runs in its context
    /// (CLOSE→SYN_SENT, and →LISTEN), or, in the quiet mode, SYN_SENT is left and who called connect()
    /// is still known.
    pub tgid: u32,
    /// `sk_err` at the transition, a positive errno or 0.
    pub sk_err: u32,
    /// `sk_err_soft`, likewise.
    pub sk_err_soft: u32,
    /// `tcp_sock.total_retrans`.
    pub total_retrans: u32,
    /// `tcp_sock.srtt_us`: eight times the smoothed RTT in microseconds; 0 where there is no sample.
    pub srtt_us: u32,
    /// `tcp_sock.total_rto_time`, milliseconds (6.7+); 0 where absent.
    pub total_rto_time_ms: u32,
    /// State left; see [`state`].
    pub old: u8,
    /// State entered.
    pub new: u8,
    /// Zero.
    pub _pad: [u8; 6],
    /// `comm` of the caller, NUL-padded; only with `tgid`.
    pub comm: [u8; 16],
    /// When connect() was called, CLOCK_MONOTONIC nanoseconds, where SYN_SENT is left in the quiet mode
    /// and that is still known; else 0.
    pub began_ns: u64,
    /// As in [`RetransmitRecord`], where SYN_SENT is left.
    pub retrans_stamp_ms: u32,
    /// Zero.
    pub _pad2: u32,
}

/// `tcp:tcp_retransmit_skb`: a segment of a full socket was sent again (or, from 6.17, could not be).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetransmitRecord {
    /// Kind [`KIND_RETRANSMIT`].
    pub header: Header,
    /// The connection.
    pub flow: Flow,
    /// Address of the `struct sock`.
    pub sock: u64,
    /// 0, or (from 6.17) why nothing was sent: a negative errno, or a positive `NET_XMIT_*`.
    pub err: i32,
    /// `tcp_skb_cb.seq`: first sequence number of the segment.
    pub seq: u32,
    /// `tcp_skb_cb.tcp_gso_segs`: segments it carries, at least 1.
    pub segs: u32,
    /// `tcp_sock.snd_wnd`, bytes.
    pub snd_wnd: u32,
    /// `tcp_sock.total_retrans`, this one included.
    pub total_retrans: u32,
    /// `icsk_rto`, jiffies: for a time-out, the one that just expired.
    pub rto_jiffies: u32,
    /// `icsk_rto_max`, jiffies (6.15+); 0 where absent: TCP_RTO_MAX, 120 s.
    pub rto_max_jiffies: u32,
    /// `icsk_user_timeout`, milliseconds; 0: none.
    pub user_timeout_ms: u32,
    /// `sk_state`; see [`state`].
    pub state: u8,
    /// `icsk_ca_state`: 0 Open, 1 Disorder, 2 CWR, 3 Recovery, 4 Loss.
    pub ca_state: u8,
    /// `icsk_pending`: `ICSK_TIME_*`.
    pub pending: u8,
    /// `icsk_retransmits`: ordinal of this time-out, 1 for the first.
    pub retransmits: u8,
    /// `icsk_backoff` before this one.
    pub backoff: u8,
    /// `icsk_syn_retries` (TCP_SYNCNT); 0: the namespace's.
    pub syn_retries: u8,
    /// The namespace's `tcp_syn_retries`.
    pub sysctl_syn_retries: u8,
    /// The namespace's `tcp_syn_linear_timeouts`; 0 before 6.5, where it does not exist.
    pub sysctl_syn_linear: u8,
    /// `tcp_sock.retrans_stamp`: in SYN_SENT when the first SYN was sent, CLOCK_MONOTONIC,
    /// milliseconds, the low 32 bits (`tcp_connect()`).
    pub retrans_stamp_ms: u32,
    /// Zero.
    pub _pad: u32,
}

/// [`SynAckRecord::trigger`]: the request's timer fired.
pub const TRIGGER_TIMER: u8 = 1;
/// [`SynAckRecord::trigger`]: the peer repeated its SYN.
pub const TRIGGER_PEER: u8 = 2;

/// `tcp:tcp_retransmit_synack`: a half-open's SYN-ACK was sent again.
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
    /// Those of them whose timer has not fired yet (`.young`).
    pub young: u32,
    /// `sk_ack_backlog`: connections that wait for accept().
    pub ack_backlog: u32,
    /// `sk_max_ack_backlog`: the limit of both queues.
    pub max_ack_backlog: u32,
    /// `icsk_rto_max` of the listener, jiffies (6.15+); 0 where absent.
    pub rto_max_jiffies: u32,
    /// [`TRIGGER_TIMER`] or [`TRIGGER_PEER`].
    pub trigger: u8,
    /// `num_timeout`: timer expiries before this one.
    pub num_timeout: u8,
    /// `num_retrans`: SYN-ACKs sent again before this one.
    pub num_retrans: u8,
    /// `inet_request_sock.acked`: the final ACK came and could not be taken (accept queue full, or
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
}

/// `tcp:tcp_receive_reset` on a socket whose handshake is not over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetRecord {
    /// Kind [`KIND_RESET`].
    pub header: Header,
    /// The connection.
    pub flow: Flow,
    /// Address of the `struct sock`.
    pub sock: u64,
    /// `sk_state`.
    pub state: u8,
    /// Zero.
    pub _pad: [u8; 7],
}

/// `sock:inet_sk_error_report` on a socket whose handshake is not over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorRecord {
    /// Kind [`KIND_ERROR`].
    pub header: Header,
    /// The connection.
    pub flow: Flow,
    /// Address of the `struct sock`.
    pub sock: u64,
    /// `sk_err`, a positive errno or 0.
    pub sk_err: u32,
    /// `sk_err_soft`, likewise.
    pub sk_err_soft: u32,
    /// `sk_state`.
    pub state: u8,
    /// Zero.
    pub _pad: [u8; 7],
}

/// `skb:kfree_skb`: this host threw a packet of a handshake away, or a half-open answered for one.
///
/// [`Flow`] is this host's view: of a packet that came in, the local end is its destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropRecord {
    /// Kind [`KIND_DROP`].
    pub header: Header,
    /// Addresses and ports from the packet's own headers; `netns` from its socket or device; `family`
    /// from the listener where there is one, else from the headers.
    pub flow: Flow,
    /// Where in the kernel: an address for `/proc/kallsyms`.
    pub location: u64,
    /// `enum skb_drop_reason`; the numbers are the running kernel's own.
    pub reason: u32,
    /// `skb_iif`: the device it came in on; 0: this host was sending it.
    pub ifindex: u32,
    /// TCP sequence number, host order.
    pub seq: u32,
    /// TCP acknowledgement number, host order.
    pub ack: u32,
    /// With `listener`: as in [`SynAckRecord`].
    pub qlen: u32,
    /// Likewise.
    pub young: u32,
    /// Likewise.
    pub ack_backlog: u32,
    /// Likewise.
    pub max_ack_backlog: u32,
    /// Ethernet source address, with `has_mac`.
    pub source_mac: [u8; 6],
    /// 1: `source_mac` was read.
    pub has_mac: u8,
    /// TCP flags (FIN 1, SYN 2, RST 4, PSH 8, ACK 16).
    pub flags: u8,
    /// 1: the socket that the packet was for is a listener (`rx_sk`, Linux 6.11): a half-open, or the
    /// listener itself, has dealt with it.
    pub listener: u8,
    /// With `listener`: as in [`SynAckRecord`].
    pub defer_accept: u8,
    /// 1: it carries data.
    pub payload: u8,
    /// Zero.
    pub _pad: [u8; 5],
}

/// [`RequestRecord::moment`]: a SYN was taken, its half-open is made (`inet_csk_reqsk_queue_hash_add()`).
pub const REQUEST_BEGUN: u8 = 1;
/// [`RequestRecord::moment`]: a half-open ended without becoming a connection.
pub const REQUEST_ENDED: u8 = 2;
/// [`RequestRecord::moment`]: a SYN was not taken: no half-open was made, and no cookie sent.
pub const REQUEST_REFUSED: u8 = 3;

/// [`RequestRecord::how`]: not told.
pub const HOW_UNKNOWN: u8 = 0;
/// [`RequestRecord::how`]: the peer's RST, or an impossible SYN of its (`tcp_check_req()`).
pub const HOW_PACKET: u8 = 1;
/// [`RequestRecord::how`]: an ICMP error (`tcp_req_err()`).
pub const HOW_ICMP: u8 = 2;
/// [`RequestRecord::how`]: closed by a tool such as `ss -K` (`tcp_abort()`).
pub const HOW_ABORTED: u8 = 3;
/// [`RequestRecord::how`]: its own timer gave it up (`reqsk_timer_handler()`).
pub const HOW_TIMER: u8 = 4;

/// [`RequestRecord::queue`]: neither queue was full.
pub const QUEUE_NEITHER: u8 = 0;
/// [`RequestRecord::queue`]: the accept queue was full.
pub const QUEUE_ACCEPT: u8 = 1;
/// [`RequestRecord::queue`]: the SYN queue was full.
pub const QUEUE_SYN: u8 = 2;

/// A half-open began or ended, or a SYN was not taken: what no tracepoint of TCP tells. By fentry and
/// fexit, or by the tracepoints of the request's own timer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestRecord {
    /// Kind [`KIND_REQUEST`].
    pub header: Header,
    /// The half-open connection, or the SYN's.
    pub flow: Flow,
    /// Address of the `struct request_sock`; 0 for [`REQUEST_REFUSED`].
    pub req: u64,
    /// As in [`SynAckRecord`]; 0 while no SYN-ACK was built.
    pub snt_synack_us: u64,
    /// As in [`SynAckRecord`].
    pub timeout_jiffies: u32,
    /// As in [`SynAckRecord`].
    pub qlen: u32,
    /// As in [`SynAckRecord`].
    pub young: u32,
    /// As in [`SynAckRecord`].
    pub ack_backlog: u32,
    /// As in [`SynAckRecord`].
    pub max_ack_backlog: u32,
    /// As in [`SynAckRecord`].
    pub rto_max_jiffies: u32,
    /// `REQUEST_*`.
    pub moment: u8,
    /// Of [`REQUEST_ENDED`]: `HOW_*`.
    pub how: u8,
    /// Time-outs so far; of [`HOW_TIMER`], before the last one.
    pub num_timeout: u8,
    /// SYN-ACKs sent again.
    pub num_retrans: u8,
    /// As in [`SynAckRecord`].
    pub acked: u8,
    /// As in [`SynAckRecord`].
    pub syn_retries: u8,
    /// As in [`SynAckRecord`].
    pub sysctl_synack_retries: u8,
    /// As in [`SynAckRecord`].
    pub defer_accept: u8,
    /// `sk_state` of the listener.
    pub listener_state: u8,
    /// Of [`REQUEST_REFUSED`]: `QUEUE_*`.
    pub queue: u8,
    /// Zero.
    pub _pad: [u8; 6],
}

/// A record type: its kind, so that neither side can pair them wrongly.
///
/// # Safety
///
/// The type is `repr(C)`, starts with a [`Header`], has no padding that is not a named member, and
/// is valid for every byte pattern of its size.
pub unsafe trait Wire: Copy + 'static {
    /// Its [`Header::kind`].
    const KIND: u16;
}

macro_rules! wire {
    ($($record:ty, $kind:expr, $size:expr;)*) => {$(
        // SAFETY: repr(C), integer members only; the asserts below leave no room for padding.
        unsafe impl Wire for $record {
            const KIND: u16 = $kind;
        }
        const _: () = assert!(core::mem::size_of::<$record>() == $size);
        const _: () = assert!(core::mem::align_of::<$record>() == 8);
        const _: () = assert!(core::mem::offset_of!($record, header) == 0);
        const _: () = assert!(core::mem::offset_of!($record, flow) == 16);
        const _: () = assert!(($kind as usize) < KINDS);
    )*};
}

const _: () = assert!(core::mem::size_of::<Header>() == 16);
const _: () = assert!(core::mem::size_of::<Flow>() == 48);
wire! {
    StateRecord, KIND_STATE, 64 + 16 + 24 + 8 + 16 + 16;
    RetransmitRecord, KIND_RETRANSMIT, 64 + 8 + 32 + 8 + 8;
    SynAckRecord, KIND_SYNACK, 64 + 24 + 24 + 8;
    ResetRecord, KIND_RESET, 64 + 8 + 8;
    ErrorRecord, KIND_ERROR, 64 + 8 + 8 + 8;
    DropRecord, KIND_DROP, 64 + 8 + 16 + 16 + 16;
    RequestRecord, KIND_REQUEST, 64 + 16 + 24 + 8 + 8;
}
/// The longest record, bytes.
pub const MAX_RECORD: usize = core::mem::size_of::<StateRecord>();
