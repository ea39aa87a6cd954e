//! Packets of a handshake that this host dropped.

use super::{Flow, Header, state};

/// `skb:kfree_skb`: this host dropped a packet of a handshake, or a socket processed and freed one.
///
/// [`Flow`] is this host's view: for a received packet the local end is the destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropRecord {
    /// Kind [`KIND_DROP`].
    pub header: Header,
    /// Addresses and ports from the packet's headers. `netns` is that of its socket or device. `family` is
    /// the listener's where there is one, otherwise that of the headers. With `sender` the whole flow is the
    /// socket's: address translation may have changed the packet already.
    pub flow: Flow,
    /// Kernel address of the caller; see `/proc/kallsyms`.
    pub location: u64,
    /// `enum skb_drop_reason`; the numbers differ between kernels.
    pub reason: u32,
    /// `skb_iif`: the device that received it; 0: this host was sending it.
    pub ifindex: u32,
    /// TCP sequence number, host order.
    pub seq: u32,
    /// TCP acknowledgement number, host order.
    pub ack: u32,
    /// With `listener`: as in [`SynAckRecord`](super::SynAckRecord). With an existing connection
    /// ([`DropRecord::idle_jiffies`]): jiffies since it last received an ACK.
    pub qlen: u32,
    /// With `listener` as `qlen`. With an existing connection: its peer's initial sequence number.
    pub young: u32,
    /// As `qlen`. Without a receiving socket: length of the TCP header, bytes; 0: not known.
    pub ack_backlog: u32,
    /// As `qlen`. Without a receiving socket: see [`DropRecord::called_port`]; 0: not known, or no DNAT.
    pub max_ack_backlog: u32,
    /// Ethernet source address, with `has_mac`.
    pub source_mac: [u8; 6],
    /// 1: `source_mac` was read.
    pub has_mac: u8,
    /// TCP flags (FIN 1, SYN 2, RST 4, PSH 8, ACK 16).
    pub flags: u8,
    /// 1: the receiving socket is a listener (`rx_sk`, Linux 6.11). A half-open or the listener itself
    /// processed the packet.
    pub listener: u8,
    /// With `listener`: as in [`SynAckRecord`](super::SynAckRecord).
    pub defer_accept: u8,
    /// 1: the packet carries data.
    pub payload: u8,
    /// `sk_state` of the receiving socket (`rx_sk`, Linux 6.11); 0: there is none, or it is not known. In
    /// SYN_SENT: the socket refused an answer to its SYN, or the packet was dropped before it. From
    /// ESTABLISHED on: a SYN met this existing connection.
    pub receiver: u8,
    /// SYN_SENT: the packet is the SYN of this host's own socket (`skb->sk`), which is still in that state.
    /// Otherwise 0.
    pub sender: u8,
    /// Zero.
    pub _pad: u8,
    /// The TCP header's checksum, host order.
    pub check: u16,
}

impl DropRecord {
    /// The port that the client called, where DNAT (REDIRECT too) of this namespace changed the destination.
    pub fn called_port(&self) -> Option<u16> {
        match self.receiver {
            0 if self.max_ack_backlog != 0 => u16::try_from(self.max_ack_backlog).ok(),
            _ => None,
        }
    }

    /// Whether a SYN met a connection that exists, TIME_WAIT included.
    pub fn met_existing(&self) -> bool {
        state::is_existing(self.receiver)
    }

    /// Whether the SYN that met an existing connection is a copy of the one that opened it.
    pub fn is_copy_of_first_syn(&self) -> bool {
        self.idle_jiffies().is_some() && self.seq == self.young
    }

    /// Whether the peer of an existing connection repeated the SYN-ACK that opened it.
    pub fn is_repeated_syn_ack(&self) -> bool {
        const SYN_ACK: u8 = 2 | 16;
        self.flags & SYN_ACK == SYN_ACK && self.is_copy_of_first_syn()
    }

    /// Jiffies since the existing connection last received an ACK (`tcp_sock.rcv_tstamp`). `None` in
    /// TIME_WAIT, whose socket does not have it.
    pub fn idle_jiffies(&self) -> Option<u32> {
        (self.met_existing() && self.receiver != state::TIME_WAIT).then_some(self.qlen)
    }
}
