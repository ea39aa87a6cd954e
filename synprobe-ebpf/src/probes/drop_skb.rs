//! `skb:kfree_skb`: a packet is dropped. Arguments: `(skb, location, reason)` since 5.17, and the receiving
//! socket, `rx_sk`, since 6.11.
//!
//! It is raised for every kind of packet, so packets of no handshake must be rejected in a few tens of
//! nanoseconds: by the reason, then by the state of the socket, then by the headers.
//!
//! These are reported:
//!
//! - This host dropped a handshake packet (`REASONS_WANTED`, or without a reason in one of `REFUSING_FUNCTIONS`).
//! - The receiver is a listener, and one of its half-opens processed a retransmitted SYN, a RST or an ACK that
//!   it does not accept; `tcp_v4_rcv()` then frees the packet (`REASONS_HALF_OPEN`). Packets that reach the
//!   listener itself have other reasons and are not reported: the last ACK of a closed connection, a stray RST.
//! - The receiver is in SYN_SENT and does not accept the packet (`REASONS_ANSWER`,
//!   `tcp_rcv_synsent_state_process()`). The RST that ends it and the SYN-ACK that it accepts are consumed:
//!   they raise no event, or raise it in a later state.
//! - The receiver is a connection that exists, and the packet is a SYN, or a SYN-ACK that its peer repeats
//!   (`REASONS_EXISTING`, `tcp_validate_incoming()`, `tcp_timewait_state_process()`).
//! - The packet is a SYN that found no socket (`NO_SOCKET_REASON`): the kernel answers it with a RST.
//! - The packet is a SYN or SYN-ACK in a frame for another link address than the device's (`OTHER_STATION_REASON`): the
//!   sender's neighbour entry may be wrong.
//! - The packet is this host's own SYN, and its socket is still in SYN_SENT (`REASONS_OUTGOING`): whatever the
//!   reason, the SYN did not leave.

use aya_ebpf::{
    helpers::generated::bpf_jiffies64, macros::raw_tracepoint, programs::RawTracePointContext,
};
use synprobe_ebpf::{
    config::{
        DROPS_PER_SECOND, MISSING, OTHER_DROPS_PER_SECOND, OTHER_STATIONS_PER_SECOND,
        OTHERS_WITHOUT_SOCKET_PER_SECOND, REASONS_INCOMING, REASONS_OUTGOING, REASONS_WANTED,
        ROLE_CLIENT,
    },
    event::{AF_INET, AF_INET6, DropRecord, Flow, KIND_DROP, state},
    stats::REGULAR,
};

use super::{
    before_nat::called_before_nat,
    drop_receiver::{
        counts, for_receiver, is_no_socket, is_other_station, listed, netns_of, refused_at, role,
        sender_in_syn_sent,
    },
    finish,
    set_state::first_of,
    tcp_flags::{ACK, FIN, RST, SYN},
};
use crate::{
    emit::{emit, held_back, tally, within_limit},
    filter::{either_port_passes, ends_pass, inode_passes, ports_pass, role_passes},
    kread::{Kptr, Ports, ReadError, fill_addr, fill_flow, mapped, netns, peer_addr, place},
    maps::{
        DROP_SECOND, OF_ITS_PORTS, OF_NO_SOCKET, OF_OTHER_STATIONS, OF_OTHERS, OF_OTHERS_NO_SOCKET,
        OF_SELECTION,
    },
};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_LEN: u16 = 14;
const TCP: u8 = 6;
/// A header outside the linear part, which cannot be read.
const NOT_LINEAR: ReadError = -14;

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn drop_skb_rx(ctx: RawTracePointContext) -> i32 {
    let result = try_drop_skb(&ctx, ctx.arg(3));
    finish(&ctx, KIND_DROP, result)
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn drop_skb(ctx: RawTracePointContext) -> i32 {
    let result = try_drop_skb(&ctx, 0);
    finish(&ctx, KIND_DROP, result)
}

#[inline(always)]
fn try_drop_skb(ctx: &RawTracePointContext, rx_sk: u64) -> Result<(), ReadError> {
    tally(REGULAR, |s| &mut s.drop_runs);
    let reason: u32 = ctx.arg(2);
    let wanted = listed(REASONS_WANTED, reason) || rx_sk == 0 && refused_at(ctx.arg(1));
    let skb = Kptr::new(ctx.arg(0));
    let receiver = (rx_sk != 0).then(|| Kptr::new(rx_sk));
    let without_socket = receiver.is_none() && is_no_socket(reason);
    let (receiver_state, sender) = match receiver {
        None => {
            let sender = match wanted || listed(REASONS_OUTGOING, reason) {
                true => sender_in_syn_sent(skb)?,
                false => None,
            };
            if !wanted && sender.is_none() && !without_socket {
                return Ok(());
            }
            (0, sender)
        }
        Some(sk) => {
            if !wanted && !for_receiver(reason) {
                return Ok(());
            }
            let receiver_state: u8 = sk.read(place!(state))?;
            if !counts(skb, sk, receiver_state, reason, wanted)? {
                return Ok(());
            }
            (receiver_state, None)
        }
    };
    let listener = receiver.filter(|_| receiver_state == state::LISTEN);
    tally(REGULAR, |s| &mut s.drop_looks);
    let Some(segment) = PacketHeaders::of(skb)? else {
        return Ok(());
    };
    let relevant = match receiver_state {
        0 if without_socket => segment.flags & (SYN | RST | ACK) == SYN,
        state::LISTEN | state::SYN_SENT => segment.flags & (SYN | RST | ACK) != 0,
        0 | state::SYN_RECV => {
            let bare_ack = segment.flags & (ACK | FIN) == ACK && !segment.payload;
            segment.flags & (SYN | RST) != 0 || bare_ack
        }
        _ => segment.flags & (SYN | RST) == SYN,
    };
    if !relevant {
        return Ok(());
    }
    let arrived_on: u32 = skb.read(place!(skb_iif))?;
    // In another namespace the packet is a received one.
    let sender = sender.filter(|_| arrived_on == 0 && segment.flags & SYN != 0);
    if !wanted && receiver.is_none() && sender.is_none() && !without_socket {
        return Ok(());
    }
    let incoming = sender.is_none()
        && (arrived_on != 0 || receiver.is_some() || listed(REASONS_INCOMING, reason));
    let role = match receiver_state {
        state::SYN_SENT => Some(ROLE_CLIENT),
        _ => role(segment.flags, incoming, listener.is_some()),
    };
    let device = Kptr::new(skb.read(place!(skb_dev))?);
    let other_station = is_other_station(reason);
    if other_station && (segment.flags & SYN == 0 || !segment.is_for_another_than(device)?) {
        return Ok(());
    }
    let netns = match receiver.or(sender) {
        Some(sk) => netns(sk)?,
        None => netns_of(skb, device, incoming)?,
    };
    let ports = match sender {
        Some(sk) => Ports::of(sk)?,
        None => segment.ports(incoming),
    };
    let peer = || match (sender, incoming) {
        (Some(sk), _) => peer_addr(sk, sk.read(place!(family))?),
        (None, true) => segment.source(),
        (None, false) => segment.destination(),
    };
    let called = match receiver {
        None => called_before_nat(skb)?,
        Some(_) => 0,
    };
    let mut asked = ports;
    if without_socket && called != 0 && !ports_pass(ports) {
        asked.local = called;
    }
    let selected = role.is_none_or(role_passes) && inode_passes(netns) && ends_pass(asked, peer)?;
    if other_station {
        if !within_limit(&DROP_SECOND, OF_OTHER_STATIONS, OTHER_STATIONS_PER_SECOND) {
            return Ok(());
        }
    } else if without_socket && !selected {
        if !within_limit(
            &DROP_SECOND,
            OF_OTHERS_NO_SOCKET,
            OTHERS_WITHOUT_SOCKET_PER_SECOND,
        ) {
            return Ok(());
        }
    } else if without_socket {
        if !within_limit(&DROP_SECOND, OF_NO_SOCKET, DROPS_PER_SECOND) {
            held_back(KIND_DROP, |s| &mut s.no_socket_held_back);
            return Ok(());
        }
    } else if selected {
        if !within_limit(&DROP_SECOND, OF_SELECTION, DROPS_PER_SECOND) {
            held_back(KIND_DROP, |s| &mut s.held_back);
            return Ok(());
        }
    } else if !wanted || !is_let_through(&segment, called) {
        return Ok(());
    }
    emit(|r: &mut DropRecord, header| {
        r.header = header;
        if let Some(sk) = sender {
            fill_flow(&mut r.flow, sk, ports)?;
            r.sender = state::SYN_SENT;
        } else {
            segment.fill_addrs(&mut r.flow, incoming)?;
            r.flow.local_port = ports.local;
            r.flow.peer_port = ports.peer;
            r.flow.family = segment.family;
            r.flow.netns = netns;
        }
        r.receiver = receiver_state;
        r.location = ctx.arg(1);
        r.reason = reason;
        r.ifindex = match (incoming, arrived_on) {
            (true, 0) if device.address() != 0 => device.read(place!(dev_ifindex))?,
            _ => arrived_on,
        };
        r.seq = u32::from_be(segment.tcp.read(4)?);
        r.ack = u32::from_be(segment.tcp.read(8)?);
        r.flags = segment.flags;
        r.payload = u8::from(segment.payload);
        r.check = u16::from_be(segment.tcp.read(16)?);
        if receiver.is_none() {
            r.ack_backlog = u32::from(segment.header_len);
            r.max_ack_backlog = u32::from(called);
        }
        if let Some(mac) = segment.source_mac {
            r.source_mac = mac.read(0)?;
            r.has_mac = 1;
        }
        if let Some(listener) = listener {
            r.listener = 1;
            // The socket's family can differ from that of the packet.
            r.flow.family = listener.read(place!(family))?;
            r.flow.listener_port = listener.read(place!(num))?;
            r.qlen = listener.read(place!(qlen))?;
            r.young = listener.read(place!(young))?;
            r.ack_backlog = listener.read(place!(ack_backlog))?;
            r.max_ack_backlog = listener.read(place!(max_ack_backlog))?;
            r.defer_accept = listener.read(place!(defer_accept))?;
        }
        if let Some(sk) = receiver
            && r.idle_jiffies().is_some()
        {
            // SAFETY: a helper without arguments.
            let now = unsafe { bpf_jiffies64() } as u32;
            r.qlen = now.wrapping_sub(sk.read_or(place!(rcv_tstamp), now)?);
            // bytes_received counts a FIN too.
            let first = first_of(sk, place!(rcv_nxt), place!(bytes_received))?;
            r.young = first.wrapping_sub(1);
        }
        Ok(())
    });
    Ok(())
}

/// Whether a packet outside the selection gives a record. It may be of a selected handshake: dropped in another
/// namespace, or with other ends after NAT. The agent knows by its sequence number. `called`: the port before DNAT; 0: none.
#[inline(always)]
fn is_let_through(segment: &PacketHeaders, called: u16) -> bool {
    // Where a packet is forwarded, none of its ends is the local one. Addresses would not fit on the stack.
    let mut ports = segment.ports(true);
    let mut of_its_ports = either_port_passes(ports);
    if !of_its_ports && called != 0 {
        ports.local = called;
        of_its_ports = either_port_passes(ports);
    }
    let passes = match of_its_ports {
        true => within_limit(&DROP_SECOND, OF_ITS_PORTS, DROPS_PER_SECOND),
        false => within_limit(&DROP_SECOND, OF_OTHERS, OTHER_DROPS_PER_SECOND),
    };
    match (passes, of_its_ports) {
        (true, _) => (),
        (false, true) => held_back(KIND_DROP, |s| &mut s.elsewhere_held_back),
        (false, false) => held_back(KIND_DROP, |s| &mut s.others_held_back),
    }
    passes
}

/// Positions of a TCP segment's headers, and the fields that decide about it. Other fields are read
/// directly into a record: a BPF program has 512 bytes of stack.
pub(super) struct PacketHeaders {
    pub(super) family: u16,
    ip: Kptr,
    tcp: Kptr,
    /// Both in host order.
    source_port: u16,
    destination_port: u16,
    flags: u8,
    payload: bool,
    /// Bytes of the TCP header.
    header_len: u16,
    source_mac: Option<Kptr>,
}

impl PacketHeaders {
    /// `None` unless the packet is TCP directly above IPv4 or IPv6. IPv6 extension headers are not followed,
    /// and only the first fragment has a TCP header.
    #[inline(always)]
    pub(super) fn of(skb: Kptr) -> Result<Option<Self>, ReadError> {
        let protocol = u16::from_be(skb.read(place!(skb_protocol))?);
        if protocol != ETH_P_IP && protocol != ETH_P_IPV6 {
            return Ok(None);
        }
        let head: u64 = skb.read(place!(skb_head))?;
        let mac: u16 = skb.read(place!(skb_mac))?;
        let has_mac = mac != u16::MAX;
        let mut ip: u16 = skb.read(place!(skb_network))?;
        // Dropped before the kernel set the network header (CPU_BACKLOG); the link header is set already.
        if ip == 0 && has_mac {
            ip = mac.wrapping_add(ETH_LEN);
        }
        let at = |offset: u16| Kptr::new(head.wrapping_add(u64::from(offset)));
        let (family, ip_len, ip_payload) = if protocol == ETH_P_IP {
            let h: [u8; 12] = at(ip).read(0)?;
            let len = u16::from(h[0] & 0xf) * 4;
            let is_later_fragment = u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0;
            if h[0] >> 4 != 4 || len < 20 || h[9] != TCP || is_later_fragment {
                return Ok(None);
            }
            let total = u16::from_be_bytes([h[2], h[3]]);
            (AF_INET, len, total.saturating_sub(len))
        } else {
            let h: [u8; 8] = at(ip).read(0)?;
            if h[0] >> 4 != 6 || h[6] != TCP {
                return Ok(None);
            }
            (AF_INET6, 40, u16::from_be_bytes([h[4], h[5]]))
        };
        let tcp = ip.wrapping_add(ip_len);
        let tail: u32 = skb.read(place!(skb_tail))?;
        if u32::from(tcp) + 20 > tail {
            return Err(NOT_LINEAR);
        }
        let h: [u8; 16] = at(tcp).read(0)?;
        let tcp_len = u16::from(h[12] >> 4) * 4;
        let has_ethernet = has_mac && ip.wrapping_sub(mac) == ETH_LEN;
        Ok(Some(Self {
            family,
            ip: at(ip),
            tcp: at(tcp),
            source_port: u16::from_be_bytes([h[0], h[1]]),
            destination_port: u16::from_be_bytes([h[2], h[3]]),
            flags: h[13],
            // A length of 0 means that it does not fit into 16 bits.
            payload: ip_payload == 0 || ip_payload > tcp_len,
            header_len: tcp_len,
            source_mac: has_ethernet.then(|| at(mac.wrapping_add(6))),
        }))
    }

    /// Whether the frame has another destination than the device's own link address. A program of tc can change what the
    /// kernel takes it for, and not that.
    #[inline(always)]
    fn is_for_another_than(&self, device: Kptr) -> Result<bool, ReadError> {
        let Some(source) = self.source_mac else {
            return Ok(false);
        };
        if place!(dev_addr) == MISSING || device.address() == 0 {
            return Ok(false);
        }
        let to: [u8; 6] = Kptr::new(source.address().wrapping_sub(6)).read(0)?;
        let own: [u8; 6] = Kptr::new(device.read(place!(dev_addr))?).read(0)?;
        Ok(to != own)
    }

    #[inline(always)]
    pub(super) fn source(&self) -> Result<[u8; 16], ReadError> {
        match self.family {
            AF_INET => Ok(mapped(self.ip.read(12)?)),
            _ => self.ip.read(8),
        }
    }

    #[inline(always)]
    pub(super) fn destination(&self) -> Result<[u8; 16], ReadError> {
        match self.family {
            AF_INET => Ok(mapped(self.ip.read(16)?)),
            _ => self.ip.read(24),
        }
    }

    /// Both addresses from this host's view. They go straight to their destination: on the stack is no room for them.
    #[inline(always)]
    pub(super) fn fill_addrs(&self, flow: &mut Flow, incoming: bool) -> Result<(), ReadError> {
        let (source, destination) = match incoming {
            true => (&raw mut flow.peer_addr, &raw mut flow.local_addr),
            false => (&raw mut flow.local_addr, &raw mut flow.peer_addr),
        };
        fill_addr(source, self.ip, self.family, (12, 8))?;
        fill_addr(destination, self.ip, self.family, (16, 24))
    }

    /// The ports from this host's view.
    #[inline(always)]
    pub(super) fn ports(&self, incoming: bool) -> Ports {
        let (local, peer) = match incoming {
            true => (self.destination_port, self.source_port),
            false => (self.source_port, self.destination_port),
        };
        Ports { local, peer }
    }
}
