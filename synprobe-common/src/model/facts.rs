//! Facts about a handshake beyond its line: the basis of verdicts.

/// A listener's queues at the moment of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Half-opens (`icsk_accept_queue.qlen`).
    pub qlen: u32,
    /// Those of them whose SYN-ACK timer has not fired yet.
    pub young: u32,
    /// Connections that wait for accept() (`sk_ack_backlog`).
    pub accept_queue: u32,
    /// The limit of both (`sk_max_ack_backlog`); full is above it.
    pub max: u32,
}

impl Queue {
    /// Whether the accept queue takes no more (`sk_acceptq_is_full()`).
    pub fn accept_queue_is_full(&self) -> bool {
        self.accept_queue > self.max
    }

    /// How full the SYN queue is, of what fits (one more than its limit, or as many).
    pub fn syn_fill(&self) -> f64 {
        f64::from(self.qlen) / (f64::from(self.max) + 1.0)
    }
}

/// Whether an active open that ended in CLOSE sent a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SynSent {
    /// Not known.
    #[default]
    Unknown,
    /// One was built and handed down.
    Built,
    /// None: connect() found no free tuple, or its route did not take the chosen ports.
    NoTuple,
    /// None: connect() was deferred to the first write (TCP_FASTOPEN_CONNECT), or failed before it built one.
    NotBuilt,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When it began, CLOCK_MONOTONIC nanoseconds, where that is known.
    pub began_ns: Option<u64>,
    /// Where that is not known: it did not begin before this.
    pub not_before_ns: u64,
    /// When it ended, or was last known to be open, CLOCK_MONOTONIC nanoseconds.
    pub ended_ns: u64,
    /// The final ACK arrived and was discarded: the accept queue was full, or TCP_DEFER_ACCEPT waits for data
    /// (`inet_request_sock.acked`, or the packet itself was seen to be discarded).
    pub acked: bool,
    /// An ACK came and was discarded, and this kernel does not tell why (before Linux 6.15): it may be the final
    /// one, or none that fits.
    pub ack_untold: bool,
    /// A segment came that the half-open ignored: outside of its window, or with an old timestamp. Anybody can send
    /// one.
    pub ignored_segment: bool,
    /// Whether the listener has TCP_DEFER_ACCEPT, where an event showed it.
    pub defer_accept: Option<bool>,
    /// The listener's queues at the last event that showed them.
    pub queue: Option<Queue>,
    /// Whether the accept queue was full at an event of this handshake.
    pub queue_was_full: bool,
    /// An ICMP error that was noted and did not end it: the name of its errno.
    pub soft_error: Option<String>,
    /// It is older than the run.
    pub preexisting: bool,
    /// An event showed its retransmissions and their triggers, from its beginning on.
    pub history_known: bool,
    /// It came through a SYN cookie, or may have.
    pub cookie: bool,
    /// When a listener that may be its own was closed while it was open, CLOCK_MONOTONIC nanoseconds.
    pub listener_closed_ns: Option<u64>,
    /// Then others of the same address (SO_REUSEPORT) still listened.
    pub others_listen: bool,
    /// The kernel chose no local port for it.
    pub unbound: bool,
    /// The peer's RST itself was seen, and it ended the handshake.
    pub reset_seen: bool,
    /// Sequence number of that RST: the peer's kernel takes it from our SYN-ACK, so it is the SYN's and one (RFC 9293,
    /// section 3.10.7.1).
    pub rst_seq: Option<u32>,
    /// A RST came for a half-open, and this kernel does not tell whether it fitted the window (before Linux 6.15).
    pub reset_untold: bool,
    /// SYNs of this connection (same port) after the RST that ended it.
    pub syn_after_reset: u32,
    /// Client, not established: from the first SYN, when the kernel would have given up, µs.
    pub would_give_up_us: Option<u64>,
    /// Client: what its socket has set as TCP_USER_TIMEOUT, µs, where a retransmission showed it.
    pub user_timeout_us: Option<u64>,
    /// Client: the same of TCP_SYNCNT.
    pub syn_count: Option<u8>,
    /// Time-outs that have passed without an answer.
    pub time_outs: u32,
    /// The client's initial sequence number, where a record showed it.
    pub syn_seq: Option<u32>,
    /// The server's.
    pub syn_ack_seq: Option<u32>,
    /// Client, ended in CLOSE: whether a SYN was sent, where that is known.
    pub syn: SynSent,
    /// Client: SYNs that the kernel repeated long before a time-out was due. Only an answer that it refused
    /// makes it do so (`tcp_rcv_synsent_state_process()`: the timer is set to TCP_TIMEOUT_MIN).
    pub early_repeats: u32,
    /// Client: how long after the SYN before it the last of those was sent, µs.
    pub early_gap_us: Option<u64>,
    /// Client: the first SYN asked for Fast Open, and its repetitions did not.
    pub first_syn_had_fast_open: bool,
    /// Client: the first SYN asked for ECN, and its repetitions did not.
    pub first_syn_had_ecn: bool,
    /// Client: the first SYN had data and was too large for the path (ICMP fragmentation-needed); the kernel sent
    /// it again at once, without.
    pub syn_too_large: bool,
    /// Client: the peer's own SYN came while ours was under way (simultaneous open), and was answered.
    pub peer_called_too: bool,
    /// Client, established after a repetition: how long before that the SYN was sent which the answer echoes,
    /// by its timestamp, µs (`tcp_rtt_tsopt_us()`). `None` without timestamps.
    pub echo_us: Option<u64>,
    /// Client, established after a repetition: time since the last SYN, µs.
    pub since_last_syn_us: Option<u64>,
}

impl Facts {
    /// What came before this, CLOCK_MONOTONIC nanoseconds, is no part of the handshake.
    pub fn since_ns(&self) -> u64 {
        self.began_ns.unwrap_or(self.not_before_ns)
    }
}

/// The half-opens of one port at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HalfOpenCounts {
    /// All of them.
    pub open: u64,
    /// Those whose peer has sent nothing but SYNs, although the SYN-ACK was retransmitted.
    pub silent: u64,
    /// From how many addresses those come.
    pub silent_sources: u64,
}
