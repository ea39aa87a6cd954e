//! Packets of handshakes that this host dropped (`skb:kfree_skb`, Linux 5.17).

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use super::{Ends, drop_words::in_sysctl};
use crate::util::bounded::Bounded;

/// Kinds of drops remembered for one connection, in one namespace.
const KINDS: usize = 4;
/// The same in all namespaces: others may have the same addresses and ports, and drop what they like.
const ALL_KINDS: usize = 8 * KINDS;
/// Sequence numbers remembered of one kind.
const SEQS: usize = 8;
/// A client repeats the SYN of one connect() for 127 s by default: a later packet is of another, nanoseconds.
const ONE_CONNECT_NS: u64 = 140_000_000_000;

/// Which segment of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Packet {
    /// SYN without ACK.
    Syn,
    /// SYN with ACK.
    SynAck,
    /// Neither SYN nor RST.
    Ack,
    /// RST.
    Rst,
}

impl Packet {
    /// From the TCP flags.
    pub fn of(flags: u8) -> Self {
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const ACK: u8 = 16;
        match flags & (SYN | RST | ACK) {
            f if f & RST != 0 => Self::Rst,
            f if f & SYN != 0 && f & ACK != 0 => Self::SynAck,
            f if f & SYN != 0 => Self::Syn,
            _ => Self::Ack,
        }
    }

    /// The client's initial sequence number, as this segment's own numbers give it; `None`: they do not. No
    /// address translation changes it.
    pub fn syn_seq(self, seq: u32, ack: u32) -> Option<u32> {
        match self {
            Self::Syn => Some(seq),
            Self::SynAck => Some(ack.wrapping_sub(1)),
            // An ACK may come from either end, and later than the handshake.
            Self::Ack | Self::Rst => None,
        }
    }

    /// `1 SYN`, `12 SYNs`
    pub fn counted(self, n: u64) -> String {
        match (self, n) {
            (Self::Syn, 1) => "1 SYN".to_owned(),
            (Self::SynAck, 1) => "1 SYN-ACK".to_owned(),
            (Self::Ack, 1) => "1 ACK".to_owned(),
            (Self::Rst, 1) => "1 RST".to_owned(),
            (Self::Syn, n) => format!("{n} SYNs"),
            (Self::SynAck, n) => format!("{n} SYN-ACKs"),
            (Self::Ack, n) => format!("{n} ACKs"),
            (Self::Rst, n) => format!("{n} RSTs"),
        }
    }

    /// RFC 9293's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::SynAck => "SYN-ACK",
            Self::Ack => "ACK",
            Self::Rst => "RST",
        }
    }
}

/// How far an incoming packet came before it was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropStage {
    /// Before any socket was looked up.
    BeforeSocket,
    /// At the listener: its own keys, filters and limits refused it (`tcp_v4_rcv()`, net/ipv4/tcp_ipv4.c).
    AtSocket,
}

impl DropStage {
    /// What that means for the listener of a SYN.
    pub fn words(self) -> &'static str {
        match self {
            Self::BeforeSocket => "they were dropped on the way to the listener",
            Self::AtSocket => "they reached the listener's socket, whose own settings refuse them",
        }
    }
}

/// One kind of drop of one connection's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPacket {
    /// Namespace in which it happened.
    pub netns: u32,
    /// Who sent the packet.
    pub from: SocketAddr,
    /// Whom to.
    pub to: SocketAddr,
    /// Which segment.
    pub packet: Packet,
    /// It came in; otherwise this host was sending it.
    pub incoming: bool,
    /// The kernel's name for the reason, such as `NETFILTER_DROP`.
    pub reason: Cow<'static, str>,
    /// The same in words.
    pub words: Cow<'static, str>,
    /// Commands that show, or mend, what did it.
    pub remedy: Cow<'static, str>,
    /// The kernel function, where it is known.
    pub place: Option<Arc<str>>,
    /// The device by which it came, where that is known.
    pub device: Option<Arc<str>>,
    /// How many.
    pub count: u64,
    /// The last of them, CLOCK_MONOTONIC nanoseconds.
    pub last_ns: u64,
    /// Index of the device by which it came; 0: this host was sending it, or not known.
    pub came_by: u32,
    /// The client's initial sequence number, where the segment shows it.
    pub syn_seq: Option<u32>,
    /// The TCP flags of the first.
    pub flags: u8,
    /// The port that the client called, where DNAT of this namespace changed it.
    pub called_port: Option<u16>,
    /// Whether conntrack counted an INVALID packet around it; `None`: not known.
    pub invalid: Option<bool>,
    /// Their sequence numbers: each half-open of one connect has another. The last [`SEQS`].
    pub seqs: Vec<u32>,
}

impl DroppedPacket {
    fn same_kind(&self, other: &Self) -> bool {
        (self.netns, self.packet, self.incoming, &self.reason)
            == (other.netns, other.packet, other.incoming, &other.reason)
            && (self.from, self.syn_seq, &self.words) == (other.from, other.syn_seq, &other.words)
    }

    fn add_seqs(&mut self, seqs: &[u32]) {
        for seq in seqs {
            if !self.seqs.contains(seq) {
                self.seqs.push(*seq);
            }
        }
        let excess = self.seqs.len().saturating_sub(SEQS);
        self.seqs.drain(..excess);
    }

    /// Both ends of its connection.
    pub fn ends(&self) -> Ends {
        Ends::between(self.from, self.to)
    }

    /// Whether the next hop did not answer ARP or neighbour discovery. Over IPv6 the kernel gives what waits for it no
    /// reason (`neigh_invalidate()`).
    pub fn is_of_neighbour(&self) -> bool {
        let at = self.place.as_deref();
        self.reason.starts_with("NEIGH_")
            || matches!(at, Some("neigh_invalidate" | "ndisc_error_report"))
    }

    /// Whether a route or a routing rule of a type that leads nowhere discarded it.
    pub fn is_of_a_route(&self) -> bool {
        let at = self.place.as_deref();
        self.reason == "NOT_SPECIFIED"
            && matches!(at, Some("ip_error" | "dst_discard" | "dst_discard_out"))
    }

    /// Whether it may be a copy that a switch sent back, and that a bridge discards, or one of a frame for another
    /// station that a switch floods.
    pub fn may_be_a_copy(&self) -> bool {
        self.place.as_deref() == Some("br_handle_frame_finish") || self.is_for_other_station()
    }

    /// Whether the frame was addressed to another station.
    pub fn is_for_other_station(&self) -> bool {
        self.reason == "OTHERHOST"
    }

    /// How far it came, by the reason.
    pub fn stage(&self) -> DropStage {
        let at_socket = [
            "TCP_MD5",
            "TCP_AO",
            "TCP_AUTH_HDR",
            "TCP_MINTTL",
            "SOCKET_FILTER",
            "SOCKET_BACKLOG",
        ];
        match at_socket.iter().any(|name| self.reason.starts_with(name)) {
            true => DropStage::AtSocket,
            false => DropStage::BeforeSocket,
        }
    }

    /// `NETFILTER_DROP at nft_do_chain`
    pub fn cause(&self) -> String {
        match &self.place {
            Some(place) => format!("{} at {place}", self.reason),
            None => self.reason.to_string(),
        }
    }

    /// One sentence.
    pub fn fact(&self) -> String {
        let way = if self.incoming {
            "that came in"
        } else {
            "on its way out"
        };
        format!(
            "this host dropped the {} {way}, from {} to {}, {}: {} ({})",
            self.packet.name(),
            self.from,
            self.to,
            times(self.count),
            self.words,
            self.cause()
        )
    }

    /// The remedy, with this packet's addresses.
    pub fn remedy(&self) -> String {
        // What waits for a neighbour is on its way out, also where this host forwards it.
        let (local, peer) = if self.incoming && !self.is_of_neighbour() {
            (self.to.ip(), self.from.ip())
        } else {
            (self.from.ip(), self.to.ip())
        };
        let known = self
            .remedy
            .replace("<peer>", &peer.to_string())
            .replace("<local>", &local.to_string());
        match &self.device {
            Some(device) if is_plain(device) => known
                .replace(".<device>.", &format!(".{}.", in_sysctl(device)))
                .replace("<device>", device),
            // Which device it was is not known: a command that needs it cannot run.
            _ => without_device(&known),
        }
    }
}

/// Whether a shell takes the name as it is.
fn is_plain(device: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
    !device.starts_with('-') && device.bytes().all(ok)
}

/// The commands that name no device, and the devices where none is left.
fn without_device(remedy: &str) -> String {
    let (commands, comment) = match remedy.split_once(" # ") {
        Some((commands, comment)) => (commands, format!(" # {comment}")),
        None => (remedy, String::new()),
    };
    let mut left: Vec<&str> = commands
        .split("; ")
        .filter(|command| !command.contains("<device>"))
        .collect();
    if left.len() < commands.split("; ").count() {
        left.push("ip -s link");
    }
    left.dedup();
    left.join("; ") + &comment
}

/// `1 connection`, `12 connections`
pub fn connections(n: u64) -> String {
    match n {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    }
}

/// `once`, `twice`, `5 times`
pub fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

/// See the module.
#[derive(Default)]
pub struct DroppedPackets {
    by_ends: Bounded<Ends, Vec<DroppedPacket>>,
    /// The ends under which packets of a handshake were dropped, by its client's initial sequence number.
    by_syn_seq: Bounded<u32, Vec<Ends>>,
}

impl DroppedPackets {
    /// One more.
    pub fn note(&mut self, discard: DroppedPacket) {
        let ends = discard.ends();
        self.note_syn_seq(&discard, ends);
        let Some(kinds) = self.by_ends.get_mut(&ends) else {
            self.by_ends.insert(ends, vec![discard]);
            return;
        };
        if let Some(kind) = kinds.iter_mut().find(|k| k.same_kind(&discard)) {
            if discard.last_ns.saturating_sub(kind.last_ns) > ONE_CONNECT_NS {
                *kind = discard;
                return;
            }
            kind.count += discard.count;
            if kind.invalid != discard.invalid {
                kind.invalid = None;
            }
            kind.add_seqs(&discard.seqs);
            kind.last_ns = kind.last_ns.max(discard.last_ns);
            return;
        }
        let of_netns = kinds.iter().filter(|k| k.netns == discard.netns).count();
        // The oldest is evicted: what holds a handshake up is dropped again.
        let full = of_netns >= KINDS || kinds.len() >= ALL_KINDS;
        let of = |k: &DroppedPacket| of_netns < KINDS || k.netns == discard.netns;
        let oldest = (0..kinds.len())
            .filter(|at| full && of(&kinds[*at]))
            .min_by_key(|at| kinds[*at].last_ns);
        match oldest {
            Some(at) => kinds[at] = discard,
            None => kinds.push(discard),
        }
    }

    fn note_syn_seq(&mut self, discard: &DroppedPacket, ends: Ends) {
        let Some(seq) = discard.syn_seq else { return };
        let Some(known) = self.by_syn_seq.get_mut(&seq) else {
            self.by_syn_seq.insert(seq, vec![ends]);
            return;
        };
        // NAT on the way makes others; more than a few are no NAT.
        if known.len() < KINDS && !known.contains(&ends) {
            known.push(ends);
        }
    }

    /// What was dropped of a handshake under other addresses or ports than its own: address translation.
    /// `between`: while it lasted, CLOCK_MONOTONIC nanoseconds.
    pub fn translated(
        &self,
        syn_seq: u32,
        own: &Ends,
        between: std::ops::RangeInclusive<u64>,
    ) -> Vec<&DroppedPacket> {
        let ends = self.by_syn_seq.get(&syn_seq).into_iter().flatten();
        // The kernel's NAT stays in one family (nf_nat_core.c).
        ends.filter(|ends| *ends != own && ends.is_ipv4() == own.is_ipv4())
            .filter_map(|ends| self.by_ends.get(ends))
            .flatten()
            .filter(|d| d.syn_seq == Some(syn_seq) && between.contains(&d.last_ns))
            .collect()
    }

    /// What was dropped of a connection since a moment, most first.
    pub fn of(&self, ends: &Ends, since_ns: u64) -> Vec<&DroppedPacket> {
        let mut found: Vec<&DroppedPacket> = self
            .by_ends
            .get(ends)
            .into_iter()
            .flatten()
            .filter(|d| d.last_ns >= since_ns)
            .collect();
        found.sort_by_key(|d| std::cmp::Reverse(d.count));
        found
    }

    /// Forgets those whose last is older, CLOCK_MONOTONIC nanoseconds.
    pub fn forget_before(&mut self, cutoff_ns: u64) {
        self.by_ends.retain(|_, kinds| {
            kinds.retain(|kind| kind.last_ns >= cutoff_ns);
            !kinds.is_empty()
        });
        let by_ends = &self.by_ends;
        self.by_syn_seq.retain(|_, known| {
            known.retain(|ends| by_ends.get(ends).is_some());
            !known.is_empty()
        });
    }

    /// Every kind of drop of every connection that is remembered.
    pub fn iter(&self) -> impl Iterator<Item = &DroppedPacket> {
        self.by_ends.iter().flat_map(|(_, kinds)| kinds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Outcome,
        verdict::fixtures::{active, discard},
    };

    #[test]
    fn a_remedy_runs_as_it_is_printed() {
        let mut d = DroppedPacket {
            remedy: "ip route get <peer>; tc filter show dev <device> # why".into(),
            ..discard(&active(Outcome::TimedOut), Packet::Syn, 1)
        };
        assert_eq!(d.remedy(), "ip route get 10.0.0.9; ip -s link # why");
        d.device = Some("eth0.100".into());
        assert_eq!(
            d.remedy(),
            "ip route get 10.0.0.9; tc filter show dev eth0.100 # why"
        );
        // A device may have any name.
        d.device = Some("e;reboot".into());
        assert_eq!(d.remedy(), "ip route get 10.0.0.9; ip -s link # why");
        d.remedy = "nft list ruleset".into();
        assert_eq!(d.remedy(), "nft list ruleset");
    }

    #[test]
    fn other_namespaces_leave_room_for_the_own_one_and_an_earlier_connect_is_not_counted() {
        let mut all = DroppedPackets::default();
        let h = active(Outcome::TimedOut);
        for n in 0..1000 {
            all.note(DroppedPacket {
                netns: 100 + n,
                ..discard(&h, Packet::Syn, 1)
            });
        }
        let own = discard(&h, Packet::Syn, 3);
        all.note(own.clone());
        let found = all.of(&own.ends(), 0);
        assert_eq!(found.len(), ALL_KINDS);
        assert_eq!(found[0], &own);
        let later = DroppedPacket {
            last_ns: own.last_ns + 2 * ONE_CONNECT_NS,
            count: 1,
            ..own.clone()
        };
        all.note(later.clone());
        assert_eq!(all.of(&own.ends(), later.last_ns), [&later]);
    }

    #[test]
    fn the_listeners_own_settings_are_told_from_the_way_to_it() {
        let mut d = discard(&active(Outcome::TimedOut), Packet::Syn, 1);
        assert_eq!(d.stage(), DropStage::BeforeSocket);
        for reason in ["TCP_MD5FAILURE", "TCP_AONOTFOUND", "SOCKET_FILTER"] {
            d.reason = reason.into();
            assert_eq!(d.stage(), DropStage::AtSocket);
        }
    }
}
