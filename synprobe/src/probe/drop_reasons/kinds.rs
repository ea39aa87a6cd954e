//! Reasons with which a packet is freed that only its receiver, or its sender, makes one of a handshake.

/// The reasons for which `tcp_check_req()` (net/ipv4/tcp_minisocks.c) frees a half-open's packet. NOT_SPECIFIED: a repeated SYN, a RST or SYN that kills it, an ACK that
/// TCP_DEFER_ACCEPT ignores. The others are as named; before 6.15 they too are NOT_SPECIFIED.
pub(super) static HALF_OPEN: &[&str] = &[
    "NOT_SPECIFIED",
    "TCP_LISTEN_OVERFLOW",
    "TCP_OVERWINDOW",
    "TCP_RFC7323_PAWS",
    "TCP_RFC7323_TSECR",
];

/// The reasons for which a socket in SYN_SENT frees an answer (`tcp_rcv_synsent_state_process()`, 6.11 to
/// 6.18): INVALID_ACK_SEQUENCE (it acknowledges something else), RFC7323_PAWS (the echoed timestamp, or an old
/// one), RESET (without ACK), FLAGS (neither SYN nor RST). NOT_SPECIFIED where a kernel gives no other.
pub(super) static ANSWER: &[&str] = &[
    "NOT_SPECIFIED",
    "TCP_FASTOPEN",
    "TCP_FLAGS",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_INVALID_SYN",
    "TCP_RESET",
    "TCP_RFC7323_PAWS",
    "TCP_RFC7323_TSECR",
];

/// The reasons for which an existing connection frees a SYN: INVALID_SYN (`tcp_validate_incoming()`, after a
/// challenge ACK); in TIME_WAIT RFC7323_TW_PAWS (6.15) and NOT_SPECIFIED (`tcp_timewait_state_process()`).
pub(super) static EXISTING: &[&str] = &[
    "NOT_SPECIFIED",
    "TCP_INVALID_SYN",
    "TCP_RFC7323_PAWS",
    "TCP_RFC7323_TW_PAWS",
];

/// The reason for which a SYN is freed that found no socket (`tcp_v4_rcv()`): the kernel answers it with a RST.
pub(super) const NO_SOCKET: &str = "NO_SOCKET";

/// The reason for which a frame is freed that another station was to get (`ip_rcv_core()`, `ip6_rcv_core()`).
pub(super) const OTHER_STATION: &str = "OTHERHOST";

/// Whether an outgoing packet can meet the reason. Those of the receiving side are frequent, and left out.
pub(super) fn can_be_outgoing(name: &str) -> bool {
    const RECEIVING: &[&str] = &[NO_SOCKET, OTHER_STATION, "PKT_TOO_SMALL", "SOCKET_RCVBUFF"];
    !name.starts_with("TCP_") && !name.starts_with("IP_IN") && !RECEIVING.contains(&name)
}
