//! What the engine takes in.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use synprobe_ebpf::event::DropRecord;

use crate::{
    decode::Event,
    model::{
        AcceptCounts, AcceptReading, ClientOwner, ConntrackReading, Counted, DestinationQuestion,
        FilterReading, HandshakeCounters, HandshakeSettings, LaterCounters, ListenCounters,
        Listener, ListenerOwner, Missed, PathQuestion, RecordedListenCounters, RecordedListener,
        ReturnPath, Role, RouteAnswer, RouteQuestion, SocketDump, Tuple, TupleHolder,
        WorkloadNames,
    },
    track::Fates,
    verdict::context::NO_SOCKET,
};

/// One thing that was seen, read or answered. Inputs are fed in the order in which they became known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Input {
    /// Something was lost.
    Lost {
        /// When that was noticed, CLOCK_MONOTONIC nanoseconds.
        at_ns: u64,
        /// How many, and why: as in a `lost` line.
        events: u64,
        /// See there.
        reason: String,
        /// Which records they may have been.
        of: Missed,
    },
    /// The name of a network namespace; `None`: it has none.
    NetnsName(u32, Option<Arc<str>>),
    /// The path of a cgroup v2 id.
    CgroupPath(u64, Option<Arc<str>>),
    /// Settings of a namespace.
    Settings(u32, HandshakeSettings),
    /// Counters of a namespace: the answer to [`Engine::needs_counters`](super::Engine::needs_counters).
    Counters(u32, HandshakeCounters),
    /// The poller begins a round: from here on ends are remembered until [`Self::PollEnds`].
    PollBegins,
    /// Listeners and their owners.
    Owners(Vec<ListenerOwner>),
    /// [`Self::ListenSockets`] as earlier versions recorded it.
    Queues {
        /// See there.
        at_ns: u64,
        /// See there.
        listeners: Vec<RecordedListener>,
        /// See there.
        counters: Vec<RecordedListenCounters>,
    },
    /// The addresses of a namespace.
    Addresses(u32, Vec<IpAddr>),
    /// The answer to a question about the way back to a peer.
    Path(PathQuestion, ReturnPath),
    /// [`Self::IcmpError`] as earlier versions recorded it.
    Icmp {
        /// This host's end.
        local: SocketAddr,
        /// The other end.
        peer: SocketAddr,
        /// Who sent the error.
        from: IpAddr,
        /// Type and code, in words.
        what: String,
    },
    /// What sock_diag shows of one namespace. Half-opens that it does not show become questions.
    Dump(Box<SocketDump>),
    /// The answer: what became of them.
    Fates(Fates),
    /// The round is over.
    PollEnds {
        /// When, CLOCK_MONOTONIC nanoseconds.
        at_ns: u64,
    },
    /// The half-opens are to be counted by port.
    CountHalfOpens,
    /// What the kernel side has counted of one role and port since the run began (the quiet mode): by bucket of
    /// `synprobe_ebpf::histogram`, all CPUs. After them the sum of their times, microseconds; recordings of
    /// earlier versions do not have it.
    Completed(Role, Option<u16>, Vec<u64>),
    /// All counts of the kernel side are fed.
    CompletedAll,
    /// Sockets by state, as they are at the end of the run.
    SocketStates(Box<Counted>),
    /// Judges what was fed. CLOCK_REALTIME − CLOCK_MONOTONIC, nanoseconds, for its lines.
    BatchEnds(i64),
    /// Handshakes that are still open end with the run: at most `most` of them.
    EndOpen {
        /// When, CLOCK_MONOTONIC nanoseconds.
        at_ns: u64,
        /// Their lines have to fit into memory.
        most: u32,
    },
    /// The run is over.
    End {
        /// When, CLOCK_MONOTONIC nanoseconds.
        at_ns: u64,
        /// Records that were due, by the kernel side's counters.
        produced: u64,
    },
    /// The state of a namespace's connection tracking: before the drop that it was read for.
    Conntrack(ConntrackReading),
    /// The name of a device, by namespace and index; `None`: there is none.
    Device(u32, u32, Option<Arc<str>>),
    /// The listeners with their queues, socket by socket, and counters of their namespaces.
    ListenSockets {
        /// Before they were read, CLOCK_MONOTONIC nanoseconds.
        before_ns: u64,
        /// After that.
        at_ns: u64,
        /// Every listener of a namespace that was polled.
        listeners: Vec<Listener>,
        /// One for each namespace.
        counters: Vec<ListenCounters>,
    },
    /// The answer to a question about a packet's route.
    Route(RouteQuestion, Box<RouteAnswer>),
    /// Which socket holds these addresses and ports, as read just before the next record; `None`: none does.
    Holder(Tuple, Option<TupleHolder>),
    /// Where this host's NAT sends a client's connection.
    Destination(DestinationQuestion, SocketAddr),
    /// Who holds the sockets of active opens that are older than the run.
    Callers(Vec<ClientOwner>),
    /// Namespaces that this round did not look at, because nothing happens in them. They still exist.
    NotPolled(Vec<u32>),
    /// What a process belongs to: all processes of a cgroup v2 path, or, where that does not decide it, one.
    Workload {
        /// All processes of this cgroup.
        cgroup: Option<Arc<str>>,
        /// This one.
        pid: Option<u32>,
        /// What it is; `None`: nothing is known.
        names: Option<Arc<WorkloadNames>>,
    },
    /// The accept queues of the next [`Self::ListenSockets`]: when they were read, and `PassiveOpens` around that.
    AcceptReadings(Vec<AcceptReading>),
    /// The quiet mode: handshakes of this host's servers that the kernel side has only counted so far, by port.
    ServerCounts {
        /// The ports whose connections wait for accept().
        ports: Vec<(u16, u64)>,
        /// Ports for which the kernel side had no room, all together.
        others: u64,
    },
    /// What was measured at accept() since the run began, of the ports at which that rose.
    AcceptCounts(Vec<AcceptCounts>),
    /// The rules of a namespace's packet filter: the answer to [`Engine::wanted_rules`](super::Engine::wanted_rules).
    Rules(Box<FilterReading>),
    /// The problems of the window are to be judged.
    JudgeProblems {
        /// When, CLOCK_MONOTONIC nanoseconds.
        at_ns: u64,
        /// Successful active opens that the kernel side has only counted since the run began, where that was
        /// read.
        counted_clients: Option<u64>,
    },
    /// An ICMP error about a connection of this host: [`Self::Icmp`] with what tells a forged one.
    IcmpError {
        /// Namespace that received it.
        netns: u32,
        /// When it was read, CLOCK_MONOTONIC nanoseconds.
        at_ns: u64,
        /// This host's end.
        local: SocketAddr,
        /// The other end.
        peer: SocketAddr,
        /// Who sent the error.
        from: IpAddr,
        /// Type and code, in words.
        what: String,
        /// Sequence number of the embedded segment.
        seq: u32,
    },
    /// Which of the next [`Self::ListenSockets`] have IP_TRANSPARENT set: namespace and inode of the socket. Left out
    /// where there are none.
    TransparentListeners(Vec<(u32, u32)>),
    /// A namespace with a transparent listener has connections at this address, which a client of this host calls.
    TakenOver(u32, SocketAddr),
    /// Further counters of the next [`Self::ListenSockets`], by namespace, where they have changed.
    LaterCounters(Vec<(u32, LaterCounters)>),
    // The records come last: a recording keeps them as they are, and numbers the others.
    /// A record of the kernel side; not a drop.
    #[serde(skip)]
    Event(Event),
    /// A record of a dropped packet, and what it means on the kernel that wrote it; `None`: the reason does
    /// not lie on this host. The reason of a socket, or of a half-open (Linux 6.15), has a name and no words.
    #[serde(skip)]
    Drop(DropRecord, Option<Arc<DropMeaning>>),
}

/// What a drop reason means: words and numbers of the kernel that dropped the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropMeaning {
    /// The kernel's name for the reason, such as `NETFILTER_DROP`.
    pub reason: Cow<'static, str>,
    /// The same in words.
    pub words: Cow<'static, str>,
    /// Commands that show or fix the cause.
    pub remedy: Cow<'static, str>,
    /// The kernel function, where it is known.
    pub place: Option<Arc<str>>,
}

impl DropMeaning {
    /// Whether the packet is a SYN that found no socket.
    pub fn is_no_socket(&self) -> bool {
        self.reason == NO_SOCKET
    }

    /// Whether the cause lies on this host. The reason of a socket's own processing has a name and no words.
    pub fn is_own_doing(&self) -> bool {
        !self.words.is_empty()
    }
}
