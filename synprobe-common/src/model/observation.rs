//! What is read from the host beside the kernel's records: the vocabulary of the engine's inputs.
//!
//! Plain data. The poller fills it, the engine takes it in, a recording keeps it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use synprobe_ebpf::event::{AF_INET, AF_INET6, Flow};

use super::{Connection, Family, Process, Role, Workload};
use crate::util::addresses::printable;

/// A connection as both a request_sock and its child see it: the family of the socket plays no part,
/// addresses are v4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
            workload: Workload::default(),
        }
    }
}

/// One half-open as sock_diag shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfOpenRow {
    /// Whose.
    pub tuple: Tuple,
    /// The socket's family.
    pub family: u16,
    /// `idiag_retrans`: SYN-ACK retransmissions (`num_retrans`).
    pub retrans: u8,
    /// `idiag_expires`: milliseconds to the SYN-ACK timer.
    pub expires_ms: u32,
}

/// One namespace's half-opens and counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketDump {
    /// The namespace, inode.
    pub netns: u32,
    /// Before the dump was asked for, CLOCK_MONOTONIC nanoseconds.
    pub before_ns: u64,
    /// After its last row.
    pub after_ns: u64,
    /// The half-opens.
    pub rows: Vec<HalfOpenRow>,
    /// Active opens in SYN_SENT; `None`: not asked for.
    pub syn_sent: Option<Vec<HalfOpenRow>>,
    /// The namespace's first: its rows may be older than the run.
    pub is_first: bool,
    /// `EmbryonicRsts`, where it could be read.
    pub embryonic_rsts: Option<u64>,
    /// Retransmissions counted, where they could be read.
    pub retransmitted: Option<RetransReading>,
    /// `TCPRetransFail`; 0 where it could not be read.
    pub retrans_fail: u64,
    /// `tcp_synack_retries`, where it could be read.
    pub synack_retries: Option<u32>,
    /// `tcp_syn_linear_timeouts`; 0 before 6.5.
    pub syn_linear: u32,
}

impl SocketDump {
    /// Whether it shows no handshake in progress.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.syn_sent.as_ref().is_none_or(Vec::is_empty)
    }
}

impl SocketDump {
    /// How long reading it took, microseconds: a row was read at some moment of the dump.
    pub fn took_us(&self) -> u64 {
        self.after_ns.saturating_sub(self.before_ns) / 1000
    }
}

/// The result of an exact look-up of a half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It is still half-open.
    HalfOpen,
    /// It is a connection now, or was one and is closing.
    Connected,
    /// It is not there.
    Gone,
}

/// The socket that holds a connection's addresses and ports, as sock_diag shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TupleHolder {
    /// Its state, as `include/net/tcp_states.h` numbers it.
    pub state: u8,
    /// Milliseconds until its timer fires: of TIME_WAIT the time that is left; `None` without a timer.
    pub expires_ms: Option<u32>,
    /// Inode of the socket; `None` where no process holds it (TIME_WAIT, closed, not accepted yet).
    pub inode: Option<u32>,
    /// The process that holds it, where it was found.
    pub process: Option<Process>,
}

/// Counts of retransmissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetransCounts {
    /// SYNs and SYN-ACKs.
    pub handshake: u64,
    /// All segments, SYNs and SYN-ACKs among them.
    pub segments: u64,
}

impl RetransCounts {
    /// This less an earlier one, never below 0.
    pub fn less(self, other: Self) -> Self {
        Self {
            handshake: self.handshake.saturating_sub(other.handshake),
            segments: self.segments.saturating_sub(other.segments),
        }
    }
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetransReading {
    /// Before they were read, CLOCK_MONOTONIC nanoseconds.
    pub before_ns: u64,
    /// After.
    pub after_ns: u64,
    /// `TCPSynRetrans` and `RetransSegs`. The latter is read first: what both hold is never in it alone.
    pub counts: RetransCounts,
}

/// A listening socket and its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerOwner {
    /// Network namespace, inode.
    pub netns: u32,
    /// Bound address, IPv4 mapped.
    pub local_addr: [u8; 16],
    /// Port, host order.
    pub local_port: u16,
    /// Who listens, where known.
    pub process: Option<Process>,
    /// Its cgroup v2 path.
    pub cgroup: Option<Arc<str>>,
}

/// An active open and who holds its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientOwner {
    /// Whose.
    pub tuple: Tuple,
    /// Who holds the socket.
    pub process: Process,
    /// Its cgroup v2 path.
    pub cgroup: Option<Arc<str>>,
}

/// One namespace's counters at one moment; `None` where it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenCounters {
    /// Inode of the namespace.
    pub netns: u32,
    /// `ListenOverflows`.
    pub listen_overflows: Option<u64>,
    /// `ListenDrops`.
    pub listen_drops: Option<u64>,
    /// `SyncookiesSent`.
    pub syncookies_sent: Option<u64>,
    /// `SyncookiesRecv`.
    pub syncookies_recv: Option<u64>,
    /// `TCPReqQFullDrop`.
    pub req_q_full_drop: Option<u64>,
    /// `Ip: OutNoRoutes` and `Ip6OutNoRoutes` together: packets of this host for which there was no route.
    pub out_no_routes: Option<u64>,
    /// `Tcp: OutRsts`: RSTs that the namespace sent.
    pub out_rsts: Option<u64>,
    /// `net.ipv4.tcp_migrate_req` (Linux 5.14).
    pub migrate_req: Option<u64>,
    /// What recordings have apart.
    #[serde(skip)]
    pub later: LaterCounters,
}

/// Further counters of a namespace, which recordings of earlier versions do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterCounters {
    /// `SyncookiesFailed`: ACKs that were taken for the answer to a SYN cookie, and had no valid one.
    pub syncookies_failed: Option<u64>,
    /// Where `net.ipv4.tcp_synack_retries` is 0: `TCPTimeouts` less `RetransSegs`, time-outs after which nothing was
    /// sent again.
    pub silent_timeouts: Option<u64>,
}

/// Counts of connection tracking in one namespace, all CPUs together; `None`: this kernel does not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackCounts {
    /// Entries in the table now.
    pub entries: Option<u64>,
    /// Packets dropped because they could not be tracked (`nf_conntrack_in()`).
    pub drop: Option<u64>,
    /// Entries evicted because the table was full.
    pub early_drop: Option<u64>,
    /// Packets dropped because their tuple was taken (`__nf_conntrack_confirm()`).
    pub insert_failed: Option<u64>,
    /// Packets that belong to no valid connection. Conntrack itself does not drop them.
    pub invalid: Option<u64>,
}

/// The state of connection tracking in one namespace at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackReading {
    /// Inode of the namespace.
    pub netns: u32,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// Read because of a dropped packet, just before its record was taken in.
    pub at_drop: bool,
    /// `net.netfilter.nf_conntrack_max`.
    pub max: Option<u64>,
    /// The counts.
    pub counts: ConntrackCounts,
}

/// A return path to be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathQuestion {
    /// In this namespace.
    pub netns: u32,
    /// To this peer.
    pub peer: IpAddr,
    /// From this address.
    pub local: IpAddr,
}

/// The path that answers take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnPath {
    /// Index of the device.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
    /// The router, where the peer is not on the link.
    pub gateway: Option<IpAddr>,
    /// Ethernet address of the neighbour that gets the answer.
    pub mac: Option<[u8; 6]>,
}

/// A route to be looked up: where a packet goes on to, and where its answer would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteQuestion {
    /// In this namespace.
    pub netns: u32,
    /// Who sent the packet.
    pub from: IpAddr,
    /// Whom to.
    pub to: IpAddr,
    /// Index of the device by which it came; 0: not known.
    pub came_by: u32,
}

/// The answer to a [`RouteQuestion`], as the kernel's own look-ups give it (`RTM_GETROUTE` with `RTA_SRC` and
/// `RTA_IIF`: policy routing decides as it does for the packet).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAnswer {
    /// Name of the device by which the packet came.
    pub came_by: Option<String>,
    /// Whether the destination is local to the namespace; `None`: not known.
    pub is_local: Option<bool>,
    /// The device that has the destination as its address.
    pub address_of: Option<String>,
    /// Where a packet that is not for this namespace goes on to; `None`: nowhere, or not known.
    pub onward: Option<Hop>,
    /// Where an answer goes; `None`: nowhere, or not known.
    pub back: Option<Hop>,
}

/// The next step of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Index of the device by which it leaves.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
    /// The router; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
}

/// A connection of a client of which it is asked where this host's NAT sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DestinationQuestion {
    /// In this namespace.
    pub netns: u32,
    /// The client's end.
    pub local: SocketAddr,
    /// The address and port called.
    pub peer: SocketAddr,
}

/// Settings of a network namespace that decide how its handshakes go; `None` where one could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakeSettings {
    /// `net.ipv4.tcp_syn_retries`.
    pub syn_retries: Option<u64>,
    /// `net.ipv4.tcp_syn_linear_timeouts` (6.5).
    pub syn_linear_timeouts: Option<u64>,
    /// `net.ipv4.tcp_abort_on_overflow`.
    pub abort_on_overflow: Option<u64>,
    /// `net.ipv4.tcp_syncookies`.
    pub syncookies: Option<u64>,
}

/// Counters of a network namespace (`/proc/net/netstat`) on which the meaning of an event depends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakeCounters {
    /// When they were read, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// `EmbryonicRsts`, where it could be read.
    pub embryonic_rsts: Option<u64>,
    /// `SyncookiesRecv`, where it could be read.
    pub syncookies_recv: Option<u64>,
}
