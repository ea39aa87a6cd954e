//! Packets of a handshake that this host dropped.

use super::{Flow, Header};

/// `skb:kfree_skb`: this host dropped a packet of a handshake, or a half-open processed and freed one.
///
/// [`Flow`] is this host's view: for a received packet the local end is the destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropRecord {
    /// Kind [`KIND_DROP`].
    pub header: Header,
    /// Addresses and ports from the packet's headers. `netns` is that of its socket or device. `family` is
    /// the listener's where there is one, otherwise that of the headers.
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
    /// With `listener`: as in [`SynAckRecord`](super::SynAckRecord).
    pub qlen: u32,
    /// As `qlen`.
    pub young: u32,
    /// As `qlen`.
    pub ack_backlog: u32,
    /// As `qlen`.
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
    /// Zero.
    pub _pad: [u8; 5],
}
