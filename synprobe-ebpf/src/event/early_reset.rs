//! Connections that are reset right after their handshake.

use super::{Flow, Header};

/// `tcp:tcp_receive_reset` on a connection that has received no data, within
/// [`EARLY_RESET_US`](crate::config::EARLY_RESET_US) after its handshake, or after its first data where nothing
/// was acknowledged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EarlyResetRecord {
    /// Kind [`KIND_EARLY_RESET`](super::KIND_EARLY_RESET).
    pub header: Header,
    /// The connection.
    pub flow: Flow,
    /// Address of the `struct sock`.
    pub sock: u64,
    /// `tcp_sock.bytes_sent`: data that it has sent, retransmissions included, bytes.
    pub bytes_sent: u64,
    /// cgroup v2 id of the caller of connect(); 0 unless `tgid` is known.
    pub cgroup: u64,
    /// `comm` of the caller, NUL-padded; only with `tgid`.
    pub comm: [u8; 16],
    /// Since the socket became ESTABLISHED (`tcp_sock.rcvq_space.time`), microseconds.
    pub age_us: u64,
    /// Where data was sent and none acknowledged: since it was sent (`tcp_sock.first_tx_mstamp`), microseconds.
    pub data_age_us: u32,
    /// Process (thread group) id of the caller of connect(). Set in quiet mode while it is still known;
    /// otherwise 0.
    pub tgid: u32,
    /// `sk_state`: ESTABLISHED, or CLOSE_WAIT where the peer sent a FIN first.
    pub state: u8,
    /// 1 where data was sent and none of it was acknowledged.
    pub unacknowledged: u8,
    /// Zero.
    pub _pad: [u8; 6],
}
