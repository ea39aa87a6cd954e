//! Settings that the loader writes before it loads the programs: offsets of the running kernel's members,
//! and the filter.
//!
//! They are read-only globals, which the verifier folds into constants. A disabled filter, or a feature
//! whose member the kernel lacks, costs nothing.

/// In [`Offsets`]: the running kernel does not have the member.
pub const MISSING: u32 = u32::MAX;

/// [`Member::feature`] of members that only the program on `skb:kfree_skb` reads. If one is missing, the
/// hook is not used.
pub const DROPS_FEATURE: &str = "packets that this host itself drops, and why";

/// [`Member::feature`] of members that show which port was called, of a packet that NAT has changed.
pub const NAT_FEATURE: &str = "which port was called before DNAT, of a packet that this host drops";

/// [`Member::feature`] of members that show that a connection is reset right after its handshake.
pub const EARLY_RESETS_FEATURE: &str = "connections that are reset right after the handshake";

/// [`Member::feature`] of members that show what the first SYN had and its repetitions have not.
pub const OPTIONS_FEATURE: &str = "options of the first SYN (Fast Open, ECN)";

/// [`Member::feature`] of members that only the program on `inet_csk_accept()` reads.
pub const ACCEPT_FEATURE: &str = "how long each connection waits for accept()";

/// [`Member::feature`] of members that only the programs of the exact mode read.
pub const EXACT_FEATURE: &str = "the end of a half-open at the moment it happens (exact mode)";

/// How a member is read, and how its place is encoded in [`Offsets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Byte offset from the start of the outer structure; the member has at least this many bytes.
    Bytes(u32),
    /// A bitfield inside one byte: see [`bits`].
    Bits,
}

/// One kernel member that the programs read.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The structure, as BTF names it.
    pub container: &'static str,
    /// The path inside it; anonymous structures and unions have no name in it.
    pub path: &'static str,
    /// How it is read.
    pub access: Access,
    /// Whether the member is required. A missing one is an error that names it.
    pub required: bool,
    /// The feature that is lost without it, for `preflight`; empty for a required member.
    pub feature: &'static str,
}

/// Encodes a bitfield's place: byte offset, first bit in that byte, width in bits.
pub const fn bits(byte_offset: u32, shift: u32, width: u32) -> u32 {
    (byte_offset << 8) | (shift << 4) | width
}

/// The inverse of [`bits`].
pub const fn unpack_bits(place: u32) -> (usize, u32, u32) {
    ((place >> 8) as usize, (place >> 4) & 0xf, place & 0xf)
}

macro_rules! members {
    ($($(#[$doc:meta])* $field:ident = $container:literal : $path:literal, $access:expr, $required:literal, $feature:expr;)*) => {
        /// Place of each member in the running kernel; [`MISSING`] where it has none.
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub struct Offsets {
            $($(#[$doc])* pub $field: u32,)*
        }

        /// Every member of [`Offsets`], in its order.
        pub const MEMBERS: &[Member] = &[$(Member {
            container: $container,
            path: $path,
            access: $access,
            required: $required,
            feature: $feature,
        },)*];

        impl Offsets {
            /// The table from its places in the order of [`MEMBERS`].
            pub const fn from_array(places: [u32; MEMBERS.len()]) -> Self {
                let mut next = 0;
                $(let $field = places[next]; next += 1;)*
                let _ = next;
                Self { $($field,)* }
            }
        }
    };
}

use Access::{Bits, Bytes};
members! {
    /// Address family.
    family = "sock": "__sk_common.skc_family", Bytes(2), true, "";
    /// Local port, host order.
    num = "sock": "__sk_common.skc_num", Bytes(2), true, "";
    /// Peer port, network order.
    dport = "sock": "__sk_common.skc_dport", Bytes(2), true, "";
    /// Local IPv4 address.
    rcv_saddr = "sock": "__sk_common.skc_rcv_saddr", Bytes(4), true, "";
    /// Peer IPv4 address.
    daddr = "sock": "__sk_common.skc_daddr", Bytes(4), true, "";
    /// Local IPv6 address.
    v6_rcv_saddr = "sock": "__sk_common.skc_v6_rcv_saddr", Bytes(16), false, "IPv6";
    /// Peer IPv6 address.
    v6_daddr = "sock": "__sk_common.skc_v6_daddr", Bytes(16), false, "IPv6";
    /// `struct net *`.
    net = "sock": "__sk_common.skc_net.net", Bytes(8), false, "network namespaces";
    /// TCP state.
    state = "sock": "__sk_common.skc_state", Bytes(1), true, "";
    /// IP protocol.
    protocol = "sock": "sk_protocol", Bytes(2), true, "";
    /// Pending error.
    err = "sock": "sk_err", Bytes(4), true, "";
    /// Soft error.
    err_soft = "sock": "sk_err_soft", Bytes(4), true, "";
    /// Accept queue length.
    ack_backlog = "sock": "sk_ack_backlog", Bytes(4), true, "";
    /// Queue limit.
    max_ack_backlog = "sock": "sk_max_ack_backlog", Bytes(4), true, "";
    /// Local port, network order; outlives the port's release.
    sport = "inet_sock": "inet_sport", Bytes(2), true, "";
    /// Retransmission timeout, jiffies.
    rto = "inet_connection_sock": "icsk_rto", Bytes(4), true, "";
    /// RTO maximum, jiffies.
    rto_max = "inet_connection_sock": "icsk_rto_max", Bytes(4), false, "a socket's own RTO maximum (Linux 6.15)";
    /// TCP_USER_TIMEOUT, ms.
    user_timeout = "inet_connection_sock": "icsk_user_timeout", Bytes(4), true, "";
    /// Timeouts of this segment.
    retransmits = "inet_connection_sock": "icsk_retransmits", Bytes(1), true, "";
    /// Which timer is armed.
    pending = "inet_connection_sock": "icsk_pending", Bytes(1), true, "";
    /// Exponential backoff.
    backoff = "inet_connection_sock": "icsk_backoff", Bytes(1), true, "";
    /// TCP_SYNCNT.
    syn_retries = "inet_connection_sock": "icsk_syn_retries", Bytes(1), true, "";
    /// Congestion state.
    ca_state = "inet_connection_sock": "icsk_ca_state", Bits, true, "";
    /// SYN queue length.
    qlen = "inet_connection_sock": "icsk_accept_queue.qlen", Bytes(4), true, "";
    /// Requests whose timer has not fired.
    young = "inet_connection_sock": "icsk_accept_queue.young", Bytes(4), true, "";
    /// TCP_DEFER_ACCEPT, in retransmissions.
    defer_accept = "inet_connection_sock": "icsk_accept_queue.rskq_defer_accept", Bytes(1), true, "";
    /// Smoothed RTT, µs × 8.
    srtt = "tcp_sock": "srtt_us", Bytes(4), true, "";
    /// Retransmissions of the connection.
    total_retrans = "tcp_sock": "total_retrans", Bytes(4), true, "";
    /// First transmission of the segment being retransmitted, ms.
    retrans_stamp = "tcp_sock": "retrans_stamp", Bytes(4), true, "";
    /// Fast Open was tried with the SYN.
    syn_fastopen = "tcp_sock": "syn_fastopen", Bits, false, OPTIONS_FEATURE;
    /// ECN, as negotiated; in SYN_SENT as requested.
    ecn_flags = "tcp_sock": "ecn_flags", Bytes(1), false, OPTIONS_FEATURE;
    /// When an ACK last arrived, jiffies.
    rcv_tstamp = "tcp_sock": "rcv_tstamp", Bytes(4), false, DROPS_FEATURE;
    /// The next sequence number to be written; 0 before `tcp_v4_connect()` has chosen one.
    write_seq = "tcp_sock": "write_seq", Bytes(4), true, "";
    /// The first sequence number that is not acknowledged.
    snd_una = "tcp_sock": "snd_una", Bytes(4), true, "";
    /// The next one expected from the peer.
    rcv_nxt = "tcp_sock": "rcv_nxt", Bytes(4), true, "";
    /// Data received, bytes; a FIN counts as one.
    bytes_received = "tcp_sock": "bytes_received", Bytes(8), true, "";
    /// Data sent, bytes.
    bytes_sent = "tcp_sock": "bytes_sent", Bytes(8), false, EARLY_RESETS_FEATURE;
    /// Data that the peer acknowledged, bytes; its SYN counts as one at a client (`tcp_snd_una_update()`).
    bytes_acked = "tcp_sock": "bytes_acked", Bytes(8), true, "";
    /// When the first of the data in flight was sent, µs (`tcp_rate_skb_sent()`).
    first_tx = "tcp_sock": "first_tx_mstamp", Bytes(8), false, EARLY_RESETS_FEATURE;
    /// When the socket became ESTABLISHED, µs, as long as nothing was read from it.
    rcvq_time = "tcp_sock": "rcvq_space.time", Bytes(8), false, EARLY_RESETS_FEATURE;
    /// Send window.
    snd_wnd = "tcp_sock": "snd_wnd", Bytes(4), true, "";
    /// Time spent in RTO recovery, ms.
    total_rto_time = "tcp_sock": "total_rto_time", Bytes(4), false, "SYN_RECV dwell of a half-open whose SYN-ACK retransmissions were missed (Linux 6.7)";
    /// Control block of an skb.
    skb_cb = "sk_buff": "cb", Bytes(48), true, "";
    /// Start of an skb's buffer; its headers lie at offsets from here.
    skb_head = "sk_buff": "head", Bytes(8), false, DROPS_FEATURE;
    /// End of the linear part, an offset from the head on every 64-bit machine.
    skb_tail = "sk_buff": "tail", Bytes(4), false, DROPS_FEATURE;
    /// IP header, an offset from the head.
    skb_network = "sk_buff": "network_header", Bytes(2), false, DROPS_FEATURE;
    /// Link header, an offset from the head; all ones where there is none.
    skb_mac = "sk_buff": "mac_header", Bytes(2), false, DROPS_FEATURE;
    /// Protocol above the link header, network order.
    skb_protocol = "sk_buff": "protocol", Bytes(2), false, DROPS_FEATURE;
    /// The sending socket; later on ingress the receiving one.
    skb_sk = "sk_buff": "sk", Bytes(8), false, DROPS_FEATURE;
    /// `struct net_device *`.
    skb_dev = "sk_buff": "dev", Bytes(8), false, DROPS_FEATURE;
    /// Receiving device; 0: none.
    skb_iif = "sk_buff": "skb_iif", Bytes(4), false, DROPS_FEATURE;
    /// The connection's entry in conntrack, and how the packet relates to it in the low bits.
    skb_nfct = "sk_buff": "_nfct", Bytes(8), false, NAT_FEATURE;
    /// What conntrack knows of a connection: bits.
    ct_status = "nf_conn": "status", Bytes(8), false, NAT_FEATURE;
    /// Both directions of a connection; the original one is the first.
    ct_tuplehash = "nf_conn": "tuplehash", Bytes(8), false, NAT_FEATURE;
    /// The ends, inside a direction.
    hash_tuple = "nf_conntrack_tuple_hash": "tuple", Bytes(8), false, NAT_FEATURE;
    /// The port of the destination, inside the ends; network order.
    tuple_port = "nf_conntrack_tuple": "dst.u.all", Bytes(2), false, NAT_FEATURE;
    /// A device's number.
    dev_ifindex = "net_device": "ifindex", Bytes(4), false, DROPS_FEATURE;
    /// A device's link address: a pointer to it.
    dev_addr = "net_device": "dev_addr", Bytes(8), false, DROPS_FEATURE;
    /// A device's `struct net *`.
    dev_net = "net_device": "nd_net.net", Bytes(8), false, "network namespaces";
    /// First sequence number, inside the control block.
    cb_seq = "tcp_skb_cb": "seq", Bytes(4), true, "";
    /// TCP flags, inside the control block: the low byte, also since they have 16 bits (6.16).
    cb_flags = "tcp_skb_cb": "tcp_flags", Bytes(1), false, DROPS_FEATURE;
    /// Segments, inside the control block.
    cb_segs = "tcp_skb_cb": "tcp_gso_segs", Bytes(2), true, "";
    /// Timer expiries of a request.
    num_timeout = "request_sock": "num_timeout", Bits, true, "";
    /// SYN-ACK retransmissions.
    num_retrans = "request_sock": "num_retrans", Bytes(1), true, "";
    /// Base timeout of a request, jiffies.
    req_timeout = "request_sock": "timeout", Bytes(4), false, "a request's own SYN-ACK time-out (Linux 6.1)";
    /// The listener.
    listener = "request_sock": "__req_common.skc_listener", Bytes(8), true, "";
    /// NULL while the request's timer is not armed.
    timer_pprev = "request_sock": "rsk_timer.entry.pprev", Bytes(8), true, "";
    /// The request's SYN-ACK timer, which begins with this (`struct timer_list`, always).
    rsk_timer = "request_sock": "rsk_timer.entry.next", Bytes(8), false, EXACT_FEATURE;
    /// The function of a timer.
    timer_function = "timer_list": "function", Bytes(8), false, EXACT_FEATURE;
    /// NULL once a request was removed from the connection table.
    node_pprev = "sock": "__sk_common.skc_nulls_node.pprev", Bytes(8), false, EXACT_FEATURE;
    /// Packets that a socket dropped.
    drops = "sock": "sk_drops.counter", Bytes(4), false, EXACT_FEATURE;
    /// Since when a connection that no one has read from is established, microseconds of CLOCK_MONOTONIC
    /// (`tcp_init_buffer_space()`); 0 before.
    established = "tcp_sock": "rcvq_space.time", Bytes(8), false, ACCEPT_FEATURE;
    /// The final ACK arrived and was not accepted.
    acked = "inet_request_sock": "acked", Bits, true, "";
    /// First SYN-ACK, µs.
    snt_synack = "tcp_request_sock": "snt_synack", Bytes(8), true, "";
    /// The client's initial sequence number.
    rcv_isn = "tcp_request_sock": "rcv_isn", Bytes(4), true, "";
    /// The server's.
    snt_isn = "tcp_request_sock": "snt_isn", Bytes(4), true, "";
    /// Namespace inode.
    ns_inum = "net": "ns.inum", Bytes(4), true, "";
    /// tcp_syn_retries; an int before 5.13, whose low byte holds every valid value.
    sysctl_syn_retries = "net": "ipv4.sysctl_tcp_syn_retries", Bytes(1), true, "";
    /// tcp_synack_retries, in the same way.
    sysctl_synack_retries = "net": "ipv4.sysctl_tcp_synack_retries", Bytes(1), true, "";
    /// tcp_syn_linear_timeouts.
    sysctl_syn_linear = "net": "ipv4.sysctl_tcp_syn_linear_timeouts", Bytes(1), false, "linear SYN time-outs (Linux 6.5: earlier kernels have none)";
}

/// [`Filter::role`]: both ends.
pub const ROLE_ANY: u32 = 0;
/// [`Filter::role`]: active opens.
pub const ROLE_CLIENT: u32 = 1;
/// [`Filter::role`]: passive opens.
pub const ROLE_SERVER: u32 = 2;

/// [`Filter::ports`]: either end's port must be in [`PORTS_EITHER`].
pub const BY_EITHER_PORT: u32 = 1;
/// [`Filter::ports`]: the local port must be in [`PORTS_LOCAL`].
pub const BY_LOCAL_PORT: u32 = 2;
/// [`Filter::ports`]: the peer port must be in [`PORTS_PEER`].
pub const BY_PEER_PORT: u32 = 4;

/// Index of the bitmap of [`BY_EITHER_PORT`].
pub const PORTS_EITHER: usize = 0;
/// Index of the bitmap of [`BY_LOCAL_PORT`].
pub const PORTS_LOCAL: usize = 1;
/// Index of the bitmap of [`BY_PEER_PORT`].
pub const PORTS_PEER: usize = 2;
/// Words of one port bitmap: port `p` is bit `p % 64` of word `p / 64`.
pub const PORT_WORDS: usize = 65536 / 64;

/// Words of one bitmap of `enum skb_drop_reason`: reason `r` is bit `r % 64` of word `r / 64`. The
/// core's reasons end at some 130 (Linux 6.18); those of other subsystems, which have a number in
/// the upper 16 bits, are never listed.
pub const REASON_WORDS: usize = 4;
/// Index of the bitmap of reasons that are reported for any receiver.
pub const REASONS_WANTED: usize = 0;
/// Index of the bitmap of reasons that occur only on ingress, before the kernel has set the receiving
/// device.
pub const REASONS_INCOMING: usize = 1;
/// Index of the bitmap of reasons with which a half-open frees a packet. They count only where the
/// receiver is a listener.
pub const REASONS_HALF_OPEN: usize = 2;
/// Index of the bitmap of reasons with which a socket in SYN_SENT frees an answer that it does not accept.
pub const REASONS_ANSWER: usize = 3;
/// Index of the bitmap of reasons with which an existing connection frees a SYN.
pub const REASONS_EXISTING: usize = 4;
/// Index of the bitmap of reasons that an outgoing packet can meet.
pub const REASONS_OUTGOING: usize = 5;
/// Index of the word behind the bitmaps: the number of the reason with which a SYN is freed that found no socket; 0:
/// this kernel has none.
pub const NO_SOCKET_REASON: usize = 6 * REASON_WORDS;
/// Index of the next word: the number of the reason with which a frame for another station is freed; 0: this kernel has
/// none.
pub const OTHER_STATION_REASON: usize = NO_SOCKET_REASON + 1;
/// Words of all bitmaps together, and these.
pub const ALL_REASON_WORDS: usize = OTHER_STATION_REASON + 1;

/// Functions that free without a reason what this host does not deliver. Their drops count whatever the reason; other
/// functions free so what they have sent.
pub const REFUSING_FUNCTIONS: [&str; 7] = [
    "nf_queue",
    "br_handle_frame_finish",
    "ip_error",
    "dst_discard_out",
    "dst_discard",
    "neigh_invalidate",
    "ndisc_error_report",
];
/// Words of their address ranges, start and end of each: a function may have a part that the compiler has split off.
pub const REFUSING_WORDS: usize = REFUSING_FUNCTIONS.len() * 2 * 2;

/// Maximum of `drop` records per CPU and second.
pub const DROPS_PER_SECOND: u64 = 1000;
/// The same of packets outside the selection. One of them may belong to a selected handshake: dropped in another
/// namespace, or after NAT changed its ends.
pub const OTHER_DROPS_PER_SECOND: u64 = 200;
/// Maximum per CPU and second of `drop` records of SYNs outside the selection that found no socket. They explain a client
/// of the selection and nothing else: those beyond are not counted.
pub const OTHERS_WITHOUT_SOCKET_PER_SECOND: u64 = 20;
/// The same of frames for another station. A device in promiscuous mode may see any number: those beyond are not counted.
pub const OTHER_STATIONS_PER_SECOND: u64 = 20;

/// A RST is early that comes within this time after the handshake, or after the first data where nothing was
/// acknowledged; microseconds.
pub const EARLY_RESET_US: u64 = 1_000_000;
/// Maximum of records of early resets per CPU and second.
pub const EARLY_RESETS_PER_SECOND: u64 = 200;

/// Functions that identify how a half-open ended, in the order of `ENDED_BY_*` from 1 on. Each has an
/// address range, and one for its part that the compiler moved away (`.cold`).
pub const ENDING_FUNCTIONS: [&str; 4] = [
    "tcp_check_req",
    "tcp_req_err",
    "tcp_abort",
    "reqsk_timer_handler",
];
/// Maximum of address ranges of each of [`ENDING_FUNCTIONS`].
pub const RANGES_EACH: usize = 2;
/// The function that drops a half-open; its caller identifies the cause.
pub const DROP_FUNCTION: &str = "inet_csk_reqsk_queue_drop";
/// Words of the exact mode's settings: the `EXACT_*` indices, then start and end of each range.
pub const EXACT_WORDS: usize = EXACT_RANGES + ENDING_FUNCTIONS.len() * RANGES_EACH * 2;
/// Index in the exact mode's settings: 1 where the begin of half-opens is reported too.
pub const EXACT_BEGINS: usize = 0;
/// Index: the address of `reqsk_timer_handler()`.
pub const EXACT_HANDLER: usize = 1;
/// Index: the address of [`DROP_FUNCTION`].
pub const EXACT_DROP_FUNCTION: usize = 2;
/// Index of the first address range; a missing one is empty.
pub const EXACT_RANGES: usize = 3;

/// The filter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this namespace (its inode); 0: all.
    pub netns: u32,
    /// And this one; the same inode where there is only one.
    pub netns_too: u32,
    /// One of the `ROLE_*` constants.
    pub role: u32,
    /// Which port bitmaps apply: `BY_*_PORT` bits; 0: all ports.
    pub ports: u32,
    /// 1: the peer's address must match the trie `PEERS`.
    pub peers: u32,
    /// 1: every transition; 0: those into and out of SYN_SENT and SYN_RECV, and of listeners.
    pub all_states: u32,
    /// 1: pass a client whose local port is not chosen yet, although it may not match later (the agent then
    /// discards it). 0: no requested local port is ephemeral.
    pub unbound: u32,
    /// Not 0: a handshake that takes fewer microseconds and needs no retransmission is only counted
    /// ([`histogram`](crate::histogram)). Its begin gives no record.
    pub slow_us: u32,
    /// 1: the program on `inet_sock_set_state` sets its running flag, for its stand-in.
    pub stand_in: u32,
}
