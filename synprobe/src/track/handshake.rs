//! One handshake under way.

use synprobe_ebpf::event::{AF_INET, AF_INET6, Flow};

use crate::{
    model::{Connection, DwellSource, Facts, Family, Role, TcpState},
    util::addresses::printable,
};

/// Gaps kept for the ladder; no schedule has more steps that a person would read.
const LADDER: usize = 64;

/// A connection as both a request_sock and its child see it: the family of the socket plays no part,
/// addresses are v4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Network namespace, inode.
    pub netns: u32,
    /// Local address.
    pub local_addr: [u8; 16],
    /// Peer address.
    pub peer_addr: [u8; 16],
    /// Local port, host order.
    pub local_port: u16,
    /// Peer port, host order.
    pub peer_port: u16,
}

impl From<&Flow> for Tuple {
    fn from(flow: &Flow) -> Self {
        Self {
            netns: flow.netns,
            local_addr: flow.local_addr,
            peer_addr: flow.peer_addr,
            local_port: flow.local_port,
            peer_port: flow.peer_port,
        }
    }
}

impl Tuple {
    /// As the exact look-up of sock_diag takes it.
    pub fn flow(&self) -> Flow {
        let mapped = |addr: [u8; 16]| printable(addr).is_ipv4();
        Flow {
            local_addr: self.local_addr,
            peer_addr: self.peer_addr,
            local_port: self.local_port,
            peer_port: self.peer_port,
            family: if mapped(self.peer_addr) {
                AF_INET
            } else {
                AF_INET6
            },
            netns: self.netns,
            ..Flow::default()
        }
    }

    /// The connection as lines print it. `family` is the socket's own.
    pub fn connection(&self, id: u64, role: Role, family: u16) -> Connection {
        let (local_addr, peer_addr) = (printable(self.local_addr), printable(self.peer_addr));
        // The peer decides: a local wildcard is `::` on any IPv6 socket.
        let ipv4 = peer_addr.is_ipv4();
        Connection {
            id,
            role,
            family: if ipv4 { Family::Ipv4 } else { Family::Ipv6 },
            v4_mapped: ipv4 && family == AF_INET6,
            local_addr,
            local_port: (self.local_port != 0).then_some(self.local_port),
            peer_addr,
            peer_port: (self.peer_port != 0).then_some(self.peer_port),
            netns: self.netns,
            netns_name: None,
            pid: None,
            comm: None,
            cgroup: None,
        }
    }
}

/// When it began, and how well that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at_ns: u64,
    /// Where that comes from.
    pub source: DwellSource,
    /// Bound of its error, microseconds; 0: exact to the clock.
    pub error_us: u64,
}

/// One handshake under way.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHandshake {
    /// Whose.
    pub connection: Connection,
    /// SYN_SENT or SYN_RECV.
    pub state: TcpState,
    /// First SYN or first SYN-ACK; `None`: it was there before, and nothing tells.
    pub start: Option<Start>,
    /// The last transmission of the SYN or SYN-ACK that was seen.
    pub last_tx_ns: Option<u64>,
    /// Sent again, all in all.
    pub retransmits: u32,
    /// `tcp_sock.total_retrans` at the last record that told it; `None`: it was there before.
    pub counted: Option<u32>,
    /// Of them, because the peer repeated its SYN.
    pub by_peer: u32,
    /// Ordinal of the last time-out that was seen.
    pub time_outs: u32,
    /// Measured gaps.
    pub gaps_us: Vec<u64>,
    /// Whether its beginning was printed.
    pub announced: bool,
    /// Whether the filter is still undecided: the local port is not known.
    pub undecided: bool,
    /// A RST was seen coming.
    pub reset_seen: bool,
    /// Last error reported to the socket.
    pub soft_error: u32,
    /// When that was, CLOCK_MONOTONIC nanoseconds.
    pub told_ns: Option<u64>,
    /// When a RST came that may have killed it, likewise.
    pub rst_ns: Option<u64>,
    /// First SYN time-out where it is not the kernel's constant, microseconds.
    pub base_us: Option<u64>,
    /// When the kernel gives up, by its schedule; and the length of the last time-out before it.
    pub gives_up: Option<(u64, u64)>,
    /// The last moment at which it was known to be alive.
    pub alive_ns: u64,
    /// Dumps in a row that did not show it.
    pub absences: u8,
    /// It ended with its listener then, CLOCK_MONOTONIC nanoseconds, unless another listener took it over
    /// (`tcp_migrate_req`).
    pub moved_ns: Option<u64>,
    /// What verdicts are drawn from.
    pub facts: Facts,
}

impl OpenHandshake {
    /// A handshake that has just come to be known.
    pub fn new(
        connection: Connection,
        state: TcpState,
        start: Option<Start>,
        alive_ns: u64,
    ) -> Self {
        Self {
            connection,
            state,
            start,
            last_tx_ns: start.filter(|s| s.error_us == 0).map(|s| s.at_ns),
            retransmits: 0,
            counted: None,
            by_peer: 0,
            time_outs: 0,
            gaps_us: Vec::new(),
            announced: false,
            undecided: false,
            reset_seen: false,
            soft_error: 0,
            told_ns: None,
            rst_ns: None,
            base_us: None,
            gives_up: None,
            alive_ns,
            absences: 0,
            moved_ns: None,
            facts: Facts::default(),
        }
    }

    /// Notes a transmission; gives the gap since the one before it, microseconds.
    pub fn transmitted(&mut self, at_ns: u64) -> Option<u64> {
        let gap = self
            .last_tx_ns
            .map(|last| at_ns.saturating_sub(last) / 1000);
        if let Some(gap) = gap.filter(|_| self.gaps_us.len() < LADDER) {
            self.gaps_us.push(gap);
        }
        self.last_tx_ns = Some(at_ns);
        self.alive_ns = self.alive_ns.max(at_ns);
        gap
    }

    /// Time since it began, microseconds.
    pub fn dwell_us(&self, at_ns: u64) -> Option<u64> {
        self.start
            .map(|start| at_ns.saturating_sub(start.at_ns) / 1000)
    }
}
