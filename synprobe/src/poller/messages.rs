//! Requests to the poller, and its reports.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::LeftOut;
use crate::{
    diag::icmp::IcmpErrors,
    model::{
        AcceptReading, ClientOwner, ConntrackReading, DestinationQuestion, Fate, HandshakeSettings,
        LaterCounters, ListenCounters, Listener, ListenerOwner, PathQuestion, ReturnPath,
        RouteAnswer, RouteQuestion, SocketDump, Tuple,
    },
    sys::clock::monotonic_ns,
};

/// How much time the poller has left: after it a round returns with what it has. Clones share it.
#[derive(Clone, Default)]
pub struct Hurry(Arc<RoundTimes>);

/// CLOCK_MONOTONIC nanoseconds; 0: any time.
#[derive(Default)]
struct RoundTimes {
    open_until_ns: AtomicU64,
    look_until_ns: AtomicU64,
}

impl Hurry {
    /// A round has this time from now on. Half of it is for opening: what is open is to be looked at too.
    pub fn within(&self, time: Duration) {
        let (now, time_ns) = (monotonic_ns(), time.as_nanos() as u64);
        let set = |until: &AtomicU64, ns| until.store(now + ns, Ordering::Relaxed);
        set(&self.0.open_until_ns, time_ns / 2);
        set(&self.0.look_until_ns, time_ns);
    }

    /// Whether there is no time left.
    pub fn is_set(&self) -> bool {
        is_over(&self.0.look_until_ns)
    }

    /// Whether no time is left to open what is not open yet.
    pub fn opens_no_more(&self) -> bool {
        is_over(&self.0.open_until_ns)
    }
}

fn is_over(until: &AtomicU64) -> bool {
    let until_ns = until.load(Ordering::Relaxed);
    until_ns != 0 && until_ns <= monotonic_ns()
}

/// A request.
pub enum Request {
    /// Dump every namespace.
    Round {
        /// Namespaces that events have named: to be opened.
        named: HashSet<u32>,
        /// Paths to be looked up.
        paths: Vec<PathQuestion>,
        /// Routes to be looked up.
        routes: Vec<RouteQuestion>,
        /// Connections whose real destination is asked for.
        destinations: Vec<DestinationQuestion>,
        /// Idle namespaces too, in which nothing happens.
        all: bool,
        /// No event names the callers of active opens: those in trouble are searched.
        callers: bool,
    },
    /// What became of these half-opens?
    Fates(Vec<Tuple>),
    /// Only these: the next round may be far.
    LookUps {
        /// Paths to be looked up.
        paths: Vec<PathQuestion>,
        /// Routes to be looked up.
        routes: Vec<RouteQuestion>,
    },
}

/// The answer to a request.
pub enum Report {
    /// One round.
    Round(Box<Round>),
    /// One for each that could be asked for.
    Fates(Vec<(Tuple, Fate)>),
    /// Between two rounds.
    LookUps(Box<LookUps>),
}

/// What was looked up between two rounds.
#[derive(Default)]
pub struct LookUps {
    /// The requested paths that exist.
    pub paths: Vec<(PathQuestion, ReturnPath)>,
    /// The answers to the routes that were asked for.
    pub routes: Vec<(RouteQuestion, RouteAnswer)>,
    /// Paths in namespaces that are not open: a round opens them.
    pub later_paths: Vec<PathQuestion>,
    /// The same of routes.
    pub later_routes: Vec<RouteQuestion>,
    /// CPU time.
    pub took: Duration,
}

/// What a round found.
#[derive(Default)]
pub struct Round {
    /// One for each namespace.
    pub dumps: Vec<SocketDump>,
    /// Listeners of namespaces that were not known before.
    pub owners: Vec<ListenerOwner>,
    /// The queues of every listener there is.
    pub queues: Vec<Listener>,
    /// When they were read, one for each namespace.
    pub accept_readings: Vec<AcceptReading>,
    /// One for each namespace.
    pub counters: Vec<ListenCounters>,
    /// Further counters, where they have changed.
    pub later_counters: Vec<(u32, LaterCounters)>,
    /// Addresses of the namespaces, where they were read in this round.
    pub addresses: Vec<(u32, Vec<IpAddr>)>,
    /// Settings of the namespaces, where they were read in this round.
    pub settings: Vec<(u32, HandshakeSettings)>,
    /// Connection tracking of the namespaces, where it was read in this round.
    pub conntrack: Vec<ConntrackReading>,
    /// The requested paths that exist.
    pub paths: Vec<(PathQuestion, ReturnPath)>,
    /// The answers to the routes that were asked for.
    pub routes: Vec<(RouteQuestion, RouteAnswer)>,
    /// The real destinations that were asked for, where connection tracking has them.
    pub destinations: Vec<(DestinationQuestion, SocketAddr)>,
    /// Of the same, the addresses at which a namespace with a transparent listener has connections.
    pub taken_over: Vec<(u32, SocketAddr)>,
    /// Where ICMP errors come in, by namespace, as long as the poller keeps that open: of every namespace in which they may be listened for.
    pub icmp: HashMap<u32, Weak<IcmpErrors>>,
    /// Namespaces that are still there, and were not looked at: nothing happens in them.
    pub idle: Vec<u32>,
    /// Namespaces that were to be looked at, and for which no time was left.
    pub skipped: usize,
    /// Namespaces whose sockets could not be read, and why. The next round tries again.
    pub failed: Vec<(u32, String)>,
    /// Namespaces with listeners that are not followed: there are too many.
    pub left_out: Vec<(u32, LeftOut)>,
    /// Active opens that are older than the run, and who called connect().
    pub callers: Vec<ClientOwner>,
    /// Before the queues were read, CLOCK_MONOTONIC nanoseconds.
    pub before_ns: u64,
    /// When the queues were read, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// Listeners whose owner's state was read: they are bounded.
    pub owners_read: usize,
    /// CPU time of the dumps.
    pub took: Duration,
}
