//! SYNs that found no socket at the address and port they called: the kernel answers each with a RST
//! (`tcp_v4_rcv()`, `skb:kfree_skb` with NO_SOCKET).

use std::net::{IpAddr, SocketAddr};

use super::{Context, ListenerHistory, RefusedSyn};
use crate::{
    model::{Handshake, Role},
    util::bounded::Bounded,
    verdict::parts::peer_counts::PeerCounts,
};

/// The kernel's name for the reason.
pub const NO_SOCKET: &str = "NO_SOCKET";

/// Called ends that are counted individually, and peers of each.
const ENDS: usize = 1024;
const PEERS: usize = 64;
/// SYNs of one end whose senders are remembered.
const SYNS_OF_END: usize = 256;
/// SYNs remembered by their sequence number.
const SYNS: usize = 4096;
/// SYNs of one peer that show a client which comes back. A port scan sends one or two.
const COMES_BACK: u64 = 3;

/// A SYN that found no socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynWithoutSocket {
    /// Namespace in which it arrived.
    pub netns: u32,
    /// Where it went.
    pub local: SocketAddr,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The client's initial sequence number.
    pub syn_seq: u32,
    /// The port that was called, where DNAT or REDIRECT of this namespace changed it.
    pub called_port: Option<u16>,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
}

/// The SYNs that one end got, and that found no socket there.
pub struct NoSocketSum {
    /// Namespace.
    pub netns: u32,
    /// The end that was called.
    pub local: SocketAddr,
    /// How many.
    pub count: u64,
    /// Who sent them.
    pub(in crate::verdict) peers: PeerCounts,
    /// A port that was called before NAT, and how many called it.
    pub called: Option<(u16, u64)>,
    /// Their senders and sequence numbers; the first of them.
    pub seqs: Vec<(SocketAddr, u32)>,
    /// The last of them, CLOCK_MONOTONIC nanoseconds.
    pub last_ns: u64,
}

impl NoSocketSum {
    fn new(syn: &SynWithoutSocket) -> Self {
        Self {
            netns: syn.netns,
            local: syn.local,
            count: 0,
            peers: PeerCounts::default(),
            called: syn.called_port.map(|port| (port, 0)),
            seqs: Vec::new(),
            last_ns: 0,
        }
    }
}

/// See the module.
pub(super) struct NoSocketSyns {
    ends: Bounded<(u32, SocketAddr), NoSocketSum>,
    by_syn_seq: Bounded<u32, SynWithoutSocket>,
    /// Ends that a peer called in a namespace, and where nothing listens.
    called: Bounded<(u32, IpAddr), u64>,
}

impl Default for NoSocketSyns {
    fn default() -> Self {
        Self {
            ends: Bounded::new(ENDS),
            by_syn_seq: Bounded::new(SYNS),
            called: Bounded::new(ENDS),
        }
    }
}

impl NoSocketSyns {
    /// Forgets ends whose last SYN is older, CLOCK_MONOTONIC nanoseconds.
    pub fn forget_before(&mut self, cutoff_ns: u64) {
        self.ends.retain(|_, sum| sum.last_ns >= cutoff_ns);
        self.by_syn_seq.retain(|_, syn| syn.at_ns >= cutoff_ns);
    }
}

impl Context {
    /// SYNs of a namespace that were seen to find no socket: the kernel sent a RST for each.
    pub fn syns_without_socket(&self, netns: u32) -> u64 {
        let ends = self.no_socket.ends.iter();
        let there = ends.filter(|((of, _), _)| *of == netns);
        there.map(|(_, sum)| sum.count).sum()
    }

    /// Takes in a SYN that found no socket. `selected`: it is of the selection; others only explain a client's end.
    pub fn note_syn_without_socket(&mut self, syn: SynWithoutSocket, selected: bool) {
        self.no_socket.by_syn_seq.insert(syn.syn_seq, syn);
        let key = (syn.netns, syn.local);
        let ends = &mut self.no_socket.ends;
        if selected && ends.get(&key).is_none() {
            ends.insert(key, NoSocketSum::new(&syn));
        }
        if let Some(sum) = ends.get_mut(&key).filter(|_| selected) {
            if !sum.peers.has(syn.peer.ip()) {
                let by = (syn.netns, syn.peer.ip());
                match self.no_socket.called.get_mut(&by) {
                    Some(ends) => *ends += 1,
                    None => drop(self.no_socket.called.insert(by, 1)),
                }
            }
            sum.count += 1;
            match (&mut sum.called, syn.called_port) {
                (Some((port, count)), Some(called)) if *port == called => *count += 1,
                (none @ None, Some(called)) => *none = Some((called, 1)),
                _ => (),
            }
            sum.peers.add(syn.peer.ip(), 1, PEERS);
            sum.last_ns = sum.last_ns.max(syn.at_ns);
            if sum.seqs.len() < SYNS_OF_END {
                sum.seqs.push((syn.peer, syn.syn_seq));
            }
        }
    }

    /// Namespaces in which SYNs found no socket.
    pub(super) fn no_socket_namespaces(&self) -> impl Iterator<Item = u32> {
        self.no_socket.by_syn_seq.iter().map(|(_, syn)| syn.netns)
    }

    /// Where on this host a client's last SYN found no socket, by its sequence number: NAT does not change that.
    pub fn found_no_socket(&self, h: &Handshake) -> Option<&SynWithoutSocket> {
        let syn = self.no_socket.by_syn_seq.get(&h.facts.syn_seq?)?;
        (h.connection.role == Role::Client && syn.at_ns >= h.facts.since_ns()).then_some(syn)
    }

    /// Whether somebody misses a listener there: the user asks for the port, a rule of NAT sends SYNs there, a listener has
    /// the port at another address or was closed, or a client comes back. Scans call other ports once or twice.
    pub fn listener_is_missed(&self, netns: u32, local: SocketAddr) -> bool {
        let port = local.port();
        let comes_back = || {
            let sum = self.no_socket.ends.get(&(netns, local));
            sum.is_some_and(|sum| sum.called.is_some() || sum.peers.highest() >= COMES_BACK)
        };
        self.selection.names_port(port)
            || self.listeners_of_port(netns, port).next().is_some()
            || comes_back()
    }

    /// Ends without a listener that a peer called in a namespace: the more, the more it looks like a scan.
    pub fn called_in_vain(&self, netns: u32, peer: IpAddr) -> u64 {
        self.no_socket
            .called
            .get(&(netns, peer))
            .copied()
            .unwrap_or(0)
    }

    /// Whether a SYN found no socket at a port where none is missed.
    pub fn is_of_a_scan(&self, refused: &RefusedSyn) -> bool {
        let local = refused
            .local
            .filter(|_| refused.reason.as_deref() == Some(NO_SOCKET));
        local.is_some_and(|local| !self.listener_is_missed(refused.netns, local))
    }

    /// The listeners of a port in a namespace, at whichever address, closed ones included.
    pub fn listeners_of_port(
        &self,
        netns: u32,
        port: u16,
    ) -> impl Iterator<Item = &ListenerHistory> {
        self.histories.of_port(netns, port)
    }

    /// The ends of the selection at which a listener is missed.
    pub fn missed_listeners(&self) -> impl Iterator<Item = &NoSocketSum> {
        let all = self.no_socket.ends.iter().map(|(_, sum)| sum);
        all.filter(|sum| {
            self.selection.wants(Role::Server) && self.listener_is_missed(sum.netns, sum.local)
        })
    }
}
