//! State transitions of a full socket.

use super::{Flow, Header};

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
    /// Process (thread group) id of the caller. Set where the transition runs in its context
    /// (CLOSE→SYN_SENT, →LISTEN, and SYN_SENT→CLOSE with [`SYN_NO_TUPLE`]). In quiet mode also set when SYN_SENT is left and the caller of
    /// connect() is still known. Otherwise 0.
    pub tgid: u32,
    /// `sk_err` at the transition, a positive errno or 0.
    pub sk_err: u32,
    /// `sk_err_soft`, a positive errno or 0.
    pub sk_err_soft: u32,
    /// `tcp_sock.total_retrans`.
    pub total_retrans: u32,
    /// `tcp_sock.srtt_us`: eight times the smoothed RTT, microseconds; 0 without a sample.
    pub srtt_us: u32,
    /// `tcp_sock.total_rto_time`, milliseconds (6.7+); 0 where absent.
    pub total_rto_time_ms: u32,
    /// State left; see [`state`](super::state).
    pub old: u8,
    /// State entered.
    pub new: u8,
    /// Where SYN_SENT is left for CLOSE: whether a SYN was built, one of `SYN_*`.
    pub syn: u8,
    /// At LISTEN→CLOSE: which queues are known, [`ACCEPT_QUEUE`] or [`BOTH_QUEUES`]. Otherwise 0.
    pub queue_known: u8,
    /// The next sequence number expected from the peer, without the data that it has sent (`rcv_nxt` less
    /// `bytes_received`): one more than the peer's initial one. Set where a handshake ends with a connection.
    ///
    /// At LISTEN→CLOSE, with [`BOTH_QUEUES`]: half-opens of this very socket (`icsk_accept_queue.qlen`), which end with
    /// it unless `tcp_migrate_req` is set. Otherwise 0.
    pub rcv_first_or_half_open: u32,
    /// `comm` of the caller, NUL-padded; only with `tgid`.
    pub comm: [u8; 16],
    /// When connect() was called, CLOCK_MONOTONIC nanoseconds. Set in quiet mode when SYN_SENT is left and
    /// the time is still known; otherwise 0.
    pub began_ns: u64,
    /// As in [`RetransmitRecord`](super::RetransmitRecord), where SYN_SENT is left.
    pub retrans_stamp_ms: u32,
    /// The first sequence number that is not acknowledged, without what is (`snd_una` less `bytes_acked`). Where
    /// SYN_SENT is left, with a SYN: the initial one of this host, because `bytes_acked` counts the SYN. Where
    /// SYN_RECV is left: one more.
    ///
    /// At LISTEN→CLOSE, with `queue_known`: `sk_ack_backlog`, the connections in the accept queue, which
    /// `inet_csk_listen_stop()` resets right after. Otherwise 0.
    pub snd_first_or_backlog: u32,
}

impl StateRecord {
    /// At LISTEN→CLOSE: the connections in the accept queue. `None`: not known, or another transition.
    #[must_use]
    pub fn accept_queue(&self) -> Option<u32> {
        (self.queue_known != 0).then_some(self.snd_first_or_backlog)
    }

    /// At LISTEN→CLOSE: the half-opens of the socket. `None`: not known, or another transition.
    #[must_use]
    pub fn half_opens(&self) -> Option<u32> {
        (self.queue_known == BOTH_QUEUES).then_some(self.rcv_first_or_half_open)
    }

    /// The peer's first sequence number, as [`Self::rcv_first_or_half_open`] has it. `None`: not known.
    #[must_use]
    pub fn rcv_first(&self) -> Option<u32> {
        (self.queue_known == 0 && self.rcv_first_or_half_open != 0)
            .then_some(self.rcv_first_or_half_open)
    }

    /// This host's first sequence number, as [`Self::snd_first_or_backlog`] has it. `None`: not known.
    #[must_use]
    pub fn snd_first(&self) -> Option<u32> {
        (self.queue_known == 0 && self.snd_first_or_backlog != 0)
            .then_some(self.snd_first_or_backlog)
    }
}

/// [`StateRecord::queue_known`]: the accept queue alone, in recordings of earlier versions.
pub const ACCEPT_QUEUE: u8 = 1;
/// [`StateRecord::queue_known`]: the accept queue and the SYN queue.
pub const BOTH_QUEUES: u8 = 2;

/// [`StateRecord::syn`]: not known.
pub const SYN_UNKNOWN: u8 = 0;
/// [`StateRecord::syn`]: `tcp_connect()` built one (`retrans_stamp` is set).
pub const SYN_BUILT: u8 = 1;
/// [`StateRecord::syn`]: there was none, and the socket had no sequence number yet: `tcp_v4_connect()` failed
/// in `inet_hash_connect()` (the tuple is in use), or its route did not take the chosen ports.
pub const SYN_NO_TUPLE: u8 = 2;
/// [`StateRecord::syn`]: there was none, but the socket had a sequence number: connect() was deferred to the
/// first write (TCP_FASTOPEN_CONNECT), or `tcp_connect()` failed before it built one.
pub const SYN_NOT_BUILT: u8 = 3;
