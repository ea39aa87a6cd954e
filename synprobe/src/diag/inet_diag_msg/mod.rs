//! One socket as `inet_diag` reports it (`struct inet_diag_msg` and its attributes).

#[cfg(test)]
mod tests;

use synprobe_ebpf::event::{AF_INET, AF_INET6, Flow};

use super::netlink::NetlinkAttributes;

/// Length of `struct inet_diag_msg` (`linux/inet_diag.h`, unchanged since 3.3).
pub(super) const MSG: usize = 72;

/// `INET_DIAG_INFO`: asks for, and carries, `struct tcp_info`.
pub(super) const INET_DIAG_INFO: u16 = 2;
/// `INET_DIAG_SKMEMINFO` : asks for, and carries, the words of `SK_MEMINFO_*`.
pub(super) const INET_DIAG_SKMEMINFO: u16 = 7;
/// `SK_MEMINFO_DROPS` (`linux/sock_diag.h`): where `sk_drops` is among those words.
const SK_MEMINFO_DROPS: usize = 8;
/// `INET_DIAG_SKV6ONLY` (4.2); the kernel adds it unasked to rows in LISTEN and CLOSE.
const INET_DIAG_SKV6ONLY: u16 = 11;
/// `INET_DIAG_CGROUP_ID` (5.8); added unasked to every row that is a full socket.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// `INET_DIAG_SOCKOPT` (5.10); added unasked to every row that is a full socket: the bits of
/// `struct inet_diag_sockopt`.
const INET_DIAG_SOCKOPT: u16 = 22;
/// `transparent` in its first byte. Bit fields begin at the lowest bit on a little-endian machine.
const TRANSPARENT: u8 = if cfg!(target_endian = "little") {
    1 << 5
} else {
    1 << 2
};

/// Masks of states for a dump: `1 << state`, with the numbers of [`synprobe_ebpf::event::state`].
pub mod mask {
    use synprobe_ebpf::event::state;

    /// `TCPF_ESTABLISHED`.
    pub const ESTABLISHED: u32 = 1 << state::ESTABLISHED;
    /// `TCPF_SYN_SENT`.
    pub const SYN_SENT: u32 = 1 << state::SYN_SENT;
    /// `TCPF_SYN_RECV`: half-opens too, since the kernel adds `TCPF_NEW_SYN_RECV` to it
    /// (`tcp_diag_dump()`).
    pub const SYN_RECV: u32 = 1 << state::SYN_RECV;
    /// `TCPF_CLOSE_WAIT`.
    pub const CLOSE_WAIT: u32 = 1 << state::CLOSE_WAIT;
    /// `TCPF_LISTEN`. Asked for alone, the kernel walks only its table of listeners.
    pub const LISTEN: u32 = 1 << state::LISTEN;
    /// Every state from ESTABLISHED to CLOSING. Bit 13 (`TCPF_BOUND_INACTIVE`, 6.8) is left out:
    /// such sockets are in no handshake.
    pub const ALL: u32 = (1 << (state::CLOSING + 1)) - 2;
}

/// One socket, half-open or TIME_WAIT entry. Raw as the kernel reports it, but for addresses and
/// ports, which are in the forms of [`Flow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// `AF_INET` or `AF_INET6`: the socket's family, and for a half-open its listener's.
    pub family: u16,
    /// State as reported: a request_sock shows as SYN_RECV (3), TIME_WAIT as its substate.
    pub state: u8,
    /// `idiag_timer`: 0 none, 1 retransmit (always, for a half-open), 2 keepalive, 3 TIME_WAIT,
    /// 4 zero-window probe.
    pub timer: u8,
    /// `idiag_retrans`: `icsk_retransmits`, or for a half-open its SYN-ACK retransmissions, caused
    /// by its timer or by the peer's SYN (`num_retrans`, not `num_timeout`).
    pub retrans: u8,
    /// Milliseconds until `timer` fires; 0 also when it is overdue.
    pub expires_ms: u32,
    /// Local address, network order, IPv4 as `::ffff:a.b.c.d`.
    pub local_addr: [u8; 16],
    /// Peer address, in the same form; all zero (or `::ffff:0.0.0.0`) for a listener.
    pub peer_addr: [u8; 16],
    /// Local port, host order.
    pub local_port: u16,
    /// Peer port, host order; 0 for a listener.
    pub peer_port: u16,
    /// LISTEN: connections that wait for accept() (`sk_ack_backlog`); else bytes not yet read.
    pub rqueue: u32,
    /// LISTEN: the limit of that queue (`sk_max_ack_backlog`; one more fits); else bytes not acked.
    pub wqueue: u32,
    /// Owner's user id; 0 for half-opens and TIME_WAIT too, which have none.
    pub uid: u32,
    /// Inode of the socket; 0 where there is none: half-opens, TIME_WAIT, not yet accepted, closed.
    pub inode: u32,
    /// Device the socket is bound to, or for a link-local half-open the one its SYN came in on; 0:
    /// none.
    pub ifindex: u32,
    /// `skc_cookie`, never 0: being asked is what sets it. A child inherits that of its half-open
    /// when the request was dumped before.
    pub cookie: u64,
    /// LISTEN in IPv6: whether it serves IPv6 alone, because IPV6_V6ONLY is set or because it is bound
    /// to an IPv6 address (`__inet6_bind()`); `None` elsewhere.
    pub v6only: Option<bool>,
    /// cgroup v2 id of the socket, as `bpf_get_current_cgroup_id()` numbers it; `None` for half-opens
    /// and TIME_WAIT, and before 5.8.
    pub cgroup: Option<u64>,
    /// Whether IP_TRANSPARENT (or IPV6_TRANSPARENT) is set: TPROXY may hand it connections to other addresses and
    /// ports. `None` for half-opens and TIME_WAIT, and before 5.10.
    pub transparent: Option<bool>,
    /// Only on request, and only of full sockets.
    pub tcp_info: Option<TcpInfo>,
    /// `sk_drops`: packets discarded at this socket. Of a listener it is its own share of its
    /// namespace's ListenDrops and more (`tcp_listendrop()`, `sk_drops_inc()`). Only on request,
    /// and only of full sockets.
    pub drops: Option<u32>,
}

/// The members of `struct tcp_info` that concern a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `tcpi_retransmits`: time-outs in a row (`icsk_retransmits`).
    pub retransmits: u8,
    /// `tcpi_backoff`: `icsk_backoff`; 0 while SYN retransmits are linear.
    pub backoff: u8,
    /// `tcpi_rto`, microseconds.
    pub rto_us: u32,
    /// `tcpi_unacked`: packets in flight; LISTEN: as [`Row::rqueue`].
    pub unacked: u32,
    /// `tcpi_sacked`; LISTEN: as [`Row::wqueue`].
    pub sacked: u32,
    /// `tcpi_rtt`: smoothed, microseconds; 0 without a sample.
    pub rtt_us: u32,
    /// `tcpi_total_retrans`: segments retransmitted over the socket's life.
    pub total_retrans: u32,
}

impl TcpInfo {
    /// Reads the members up to `tcpi_total_retrans` (offset 100, in every kernel since 2.6.13).
    fn parse(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; 104] = bytes.first_chunk()?;
        Some(Self {
            retransmits: b[2],
            backoff: b[4],
            rto_us: u32_at(b, 8),
            unacked: u32_at(b, 24),
            sacked: u32_at(b, 28),
            rtt_us: u32_at(b, 68),
            total_retrans: u32_at(b, 100),
        })
    }
}

impl Row {
    /// Reads the payload of one reply; `None` when it is too short or of another family.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let b: &[u8; MSG] = payload.first_chunk()?;
        let family = u16::from(b[0]);
        let address: fn(&[u8; MSG], usize) -> [u8; 16] = match family {
            AF_INET => mapped_at,
            AF_INET6 => plain_at,
            _ => return None,
        };
        let mut row = Self {
            family,
            state: b[1],
            timer: b[2],
            retrans: b[3],
            local_port: u16::from_be_bytes([b[4], b[5]]),
            peer_port: u16::from_be_bytes([b[6], b[7]]),
            local_addr: address(b, 8),
            peer_addr: address(b, 24),
            ifindex: u32_at(b, 40),
            // Two words, the low one first whatever the byte order (sock_diag_save_cookie()).
            cookie: u64::from(u32_at(b, 44)) | u64::from(u32_at(b, 48)) << 32,
            expires_ms: u32_at(b, 52),
            rqueue: u32_at(b, 56),
            wqueue: u32_at(b, 60),
            uid: u32_at(b, 64),
            inode: u32_at(b, 68),
            ..Self::default()
        };
        for (kind, value) in NetlinkAttributes::new(&payload[MSG..]) {
            match kind {
                INET_DIAG_INFO => row.tcp_info = TcpInfo::parse(value),
                INET_DIAG_SKMEMINFO => row.drops = word(value, SK_MEMINFO_DROPS),
                INET_DIAG_SKV6ONLY => row.v6only = value.first().map(|set| *set != 0),
                INET_DIAG_SOCKOPT => {
                    row.transparent = value.first().map(|bits| bits & TRANSPARENT != 0);
                }
                INET_DIAG_CGROUP_ID => {
                    row.cgroup = value.first_chunk().map(|id| u64::from_ne_bytes(*id));
                }
                _ => {}
            }
        }
        Some(row)
    }

    /// The connection this row is of, in the form that the probes' records have.
    #[must_use]
    pub fn flow(&self, netns: u32) -> Flow {
        Flow {
            local_addr: self.local_addr,
            peer_addr: self.peer_addr,
            local_port: self.local_port,
            peer_port: self.peer_port,
            family: self.family,
            netns,
            ..Flow::default()
        }
    }
}

/// Whether an address is `::ffff:a.b.c.d`.
#[must_use]
pub fn is_v4_mapped(addr: &[u8; 16]) -> bool {
    addr[..10] == [0; 10] && addr[10..12] == [0xff; 2]
}

/// Whether an address is `::` or `::ffff:0.0.0.0`.
#[must_use]
pub fn is_wildcard(addr: &[u8; 16]) -> bool {
    addr[12..] == [0; 4] && (addr[..12] == [0; 12] || is_v4_mapped(addr))
}

/// The n-th 32-bit word of an attribute; `None` where an older kernel has fewer.
fn word(value: &[u8], n: usize) -> Option<u32> {
    let bytes = value.get(4 * n..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn plain_at(bytes: &[u8; MSG], at: usize) -> [u8; 16] {
    let mut addr = [0; 16];
    addr.copy_from_slice(&bytes[at..at + 16]);
    addr
}

fn mapped_at(bytes: &[u8; MSG], at: usize) -> [u8; 16] {
    let mut addr = [0; 16];
    addr[10..12].fill(0xff);
    addr[12..].copy_from_slice(&bytes[at..at + 4]);
    addr
}
