//! What sock_diag and /proc tell, asked for on a thread of its own: a dump walks the kernel's whole
//! connection table and must not hold up the ring.

use std::{
    collections::{HashMap, HashSet},
    io, mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use synprobe_ebpf::event::state;
use tokio::sync::mpsc;

use crate::{
    diag::{
        addresses::addresses,
        counters::{self, CounterReader},
        icmp::IcmpErrors,
        inet_diag_msg::{Row, mask},
        listen_queues::{self, ListenQueues},
        listen_sockets::ListenSockets,
        route::Routes,
        sock_diag::{self, Query, SockDiag},
    },
    model,
    sys::{
        clock::{monotonic_ns, thread_cpu},
        fd_limit,
        netns::{self, NetNs},
        sysctl::sysctl_numbers,
    },
    track::{CounterReading, Fate, HalfOpenRow, Listener, RetransCounts, Snapshot, Tuple},
    verdict::context::{Counters, Path, PathQuestion},
};
use listener_owners::Owners;

mod listener_owners;

/// How often namespaces are looked for anew.
const DISCOVER: Duration = Duration::from_secs(10);
/// A namespace that nobody lives in, that no event names and no half-open is in is let go after this.
const FORGET: Duration = Duration::from_secs(60);
/// Half-opens asked for one by one in a round, at most; about a microsecond each, the rest waits for
/// the next round.
const ASKED: usize = 65_536;

/// What to do.
pub enum Request {
    /// Dump every namespace.
    Survey {
        /// Namespaces that events have named: to be looked for.
        named: HashSet<u32>,
        /// Ways to be looked up.
        paths: Vec<PathQuestion>,
    },
    /// What became of these?
    Ask(Vec<Tuple>),
}

/// What came of it.
pub enum Report {
    /// One round.
    Survey {
        /// One for each namespace.
        snapshots: Vec<Snapshot>,
        /// Listeners of namespaces that were not known before.
        listeners: Vec<Listener>,
        /// The queues of every listener there is.
        queues: Vec<model::Listener>,
        /// One for each namespace.
        counters: Vec<Counters>,
        /// Of the namespaces whose addresses were read in this round.
        addresses: Vec<(u32, Vec<IpAddr>)>,
        /// Those of the ways asked for that there are.
        paths: Vec<(PathQuestion, Path)>,
        /// Where ICMP errors come in, of every namespace in which they may be listened for.
        icmp: Vec<Arc<IcmpErrors>>,
        /// When the queues were looked at, CLOCK_MONOTONIC, nanoseconds.
        at_ns: u64,
        /// What the dumps took, time on the CPU.
        took: Duration,
    },
    /// One for each that could be asked for.
    Fates(Vec<(Tuple, Fate)>),
}

/// A namespace that is watched.
struct WatchedNetns {
    netns: NetNs,
    sock_diag: SockDiag,
    counters: Option<CounterReader>,
    routes: Option<Routes>,
    icmp: Option<Arc<IcmpErrors>>,
    /// `tcp_synack_retries`, `tcp_syn_linear_timeouts`, as last read.
    settings: [Option<u64>; 2],
    /// What limits its queues, as last read.
    limits: model::QueueSettings,
    /// Its addresses are to be read again.
    moved: bool,
    /// Whether its SYN_SENT were asked for.
    begun: bool,
    /// Whether the caller holds the namespace anyway.
    given: bool,
    /// When it was last known to be somebody else's too.
    in_use: Instant,
}

/// The state of the thread.
pub struct Poller {
    /// Namespaces named by the caller; only these if `only`.
    given: Vec<NetNs>,
    only: bool,
    watched: HashMap<u32, WatchedNetns>,
    refused: HashSet<u32>,
    owners: Owners,
    discovered: Option<Instant>,
    /// Whether it was said that there are no more file descriptors.
    exhausted: bool,
}

impl Poller {
    /// Watches `given`, and unless `only` every other namespace that can be found.
    pub fn new(given: Vec<NetNs>, only: bool) -> Self {
        Self {
            given,
            only,
            watched: HashMap::new(),
            refused: HashSet::new(),
            owners: Owners::default(),
            discovered: None,
            exhausted: false,
        }
    }

    /// Answers requests until their sender is gone.
    pub fn serve(mut self, mut requests: mpsc::Receiver<Request>, reports: mpsc::Sender<Report>) {
        while let Some(request) = requests.blocking_recv() {
            let report = match request {
                Request::Survey { named, paths } => self.survey(&named, &paths),
                Request::Ask(tuples) => Report::Fates(self.ask(&tuples)),
            };
            if reports.blocking_send(report).is_err() {
                return;
            }
        }
    }

    /// One round.
    pub fn survey(&mut self, named: &HashSet<u32>, paths: &[PathQuestion]) -> Report {
        let new = self.discover(named);
        let mut round = Round::default();
        let watched = mem::take(&mut self.watched);
        let mut inodes = HashSet::new();
        let mut took = Duration::ZERO;
        for (inode, mut station) in watched {
            // Its own time on the CPU, not the clock's: a busy host must not make it look dear.
            let began = thread_cpu();
            let seen = Seen::of(&mut station);
            took += thread_cpu().saturating_sub(began);
            let seen = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    log::warn!("sockets of namespace {}: {error}", station.netns.name());
                    continue;
                }
            };
            // Owners are not part of the price: they bound their own.
            let is_new = new.contains(&inode);
            let all: Vec<u32> = seen.listeners.iter().map(|l| l.inode).collect();
            self.owners.learn(&all, is_new);
            inodes.extend(all);
            let began = thread_cpu();
            round.take_in(&mut station, seen, &self.owners, is_new);
            took += thread_cpu().saturating_sub(began);
            self.watched.insert(inode, station);
        }
        self.owners.retain(&inodes);
        Report::Survey {
            snapshots: round.snapshots,
            listeners: round.listeners,
            queues: round.queues,
            counters: round.counters,
            addresses: round.addresses,
            paths: self.look_up(paths),
            icmp: self
                .watched
                .values()
                .filter_map(|s| s.icmp.clone())
                .collect(),
            at_ns: monotonic_ns(),
            took,
        }
    }

    fn look_up(&mut self, wanted: &[PathQuestion]) -> Vec<(PathQuestion, Path)> {
        let mut found = Vec::new();
        for path in wanted {
            let routes = self
                .watched
                .get_mut(&path.netns)
                .and_then(|s| s.routes.as_mut());
            let Some(routes) = routes else { continue };
            let Ok(Some(route)) = routes.route(path.peer, Some(path.local)) else {
                continue;
            };
            let mac = routes.next_hop(&route, path.peer).ok().flatten();
            let back = Path {
                ifindex: route.ifindex,
                interface: route.interface.unwrap_or_default(),
                gateway: route.gateway,
                mac,
            };
            found.push((*path, back));
        }
        found
    }

    /// Opens what is new; its inodes.
    fn discover(&mut self, named: &HashSet<u32>) -> Vec<u32> {
        let due = self.discovered.is_none_or(|at| at.elapsed() >= DISCOVER);
        let mut found: Vec<NetNs> = self.given.drain(..).collect();
        let given: HashSet<u32> = found.iter().map(NetNs::inode).collect();
        if due {
            self.discovered = Some(Instant::now());
            for station in self.watched.values_mut() {
                station.settings = settings(&station.netns);
                station.limits = listen_queues::read_settings(&station.netns).unwrap_or_default();
                station.moved = true;
            }
            if !self.only {
                let discovery = netns::discover();
                if discovery.exhausted {
                    self.no_descriptors();
                }
                found.extend(discovery.namespaces);
            }
        }
        for inode in found.iter().map(NetNs::inode).chain(named.iter().copied()) {
            if let Some(station) = self.watched.get_mut(&inode) {
                station.in_use = Instant::now();
            }
        }
        if due {
            // Our sockets would keep a namespace alive that everybody else has left.
            self.watched
                .retain(|_, s| s.given || s.in_use.elapsed() < FORGET);
        }
        for inode in named {
            if !self.only && !self.watched.contains_key(inode) && !self.refused.contains(inode) {
                found.extend(netns::find(*inode));
            }
        }
        // What is known is let go before more is opened.
        found.retain(|netns| !self.watched.contains_key(&netns.inode()));
        let mut new = Vec::new();
        for netns in found {
            let inode = netns.inode();
            if self.watched.contains_key(&inode) {
                continue;
            }
            if fd_limit::scarce() {
                self.no_descriptors();
                break;
            }
            match SockDiag::open(&netns) {
                Ok(sock_diag) => {
                    let counters = self.less_without("counters", CounterReader::open, &netns);
                    let routes = self.less_without("routes", Routes::open, &netns);
                    let icmp = self.less_without("ICMP errors", IcmpErrors::open, &netns);
                    self.watched.insert(
                        inode,
                        WatchedNetns {
                            settings: settings(&netns),
                            limits: listen_queues::read_settings(&netns).unwrap_or_default(),
                            moved: true,
                            netns,
                            sock_diag,
                            counters,
                            routes,
                            icmp: icmp.map(Arc::new),
                            begun: false,
                            given: given.contains(&inode),
                            in_use: Instant::now(),
                        },
                    );
                    new.push(inode);
                }
                Err(error) if fd_limit::used_up(&error) => self.no_descriptors(),
                Err(error) => {
                    if self.refused.insert(inode) {
                        log::warn!("namespace {} cannot be looked into: {error}", netns.name());
                    }
                }
            }
        }
        new
    }

    /// What a namespace is watched without if it must be.
    fn less_without<T>(
        &mut self,
        what: &str,
        open: impl FnOnce(&NetNs) -> io::Result<T>,
        netns: &NetNs,
    ) -> Option<T> {
        let opened = open(netns);
        if let Err(error) = &opened {
            log::info!("{what} of namespace {}: {error}", netns.name());
            if fd_limit::used_up(error) {
                self.no_descriptors();
            }
        }
        opened.ok()
    }

    /// Says so, once.
    fn no_descriptors(&mut self) {
        if !mem::replace(&mut self.exhausted, true) {
            log::warn!("{}", fd_limit::advice());
        }
    }

    fn ask(&mut self, tuples: &[Tuple]) -> Vec<(Tuple, Fate)> {
        let mut fates = Vec::new();
        for tuple in tuples.iter().take(ASKED) {
            let Some(station) = self.watched.get_mut(&tuple.netns) else {
                continue;
            };
            // An error says nothing; the next round asks again.
            let Ok(row) = station.sock_diag.get(&tuple.flow(), 0) else {
                continue;
            };
            let fate = match row.map(|row| row.state) {
                // The look-up falls back to the listener where the connection is gone.
                None | Some(state::LISTEN) => Fate::Gone,
                Some(state::SYN_RECV | state::NEW_SYN_RECV) => Fate::HalfOpen,
                Some(_) => Fate::Connected,
            };
            fates.push((*tuple, fate));
        }
        fates
    }
}

fn settings(netns: &NetNs) -> [Option<u64>; 2] {
    let names = [
        "net/ipv4/tcp_synack_retries",
        "net/ipv4/tcp_syn_linear_timeouts",
    ];
    sysctl_numbers(netns, names).unwrap_or_default()
}

/// What one namespace showed.
struct Seen {
    half_opens: sock_diag::SockDump,
    syn_sent: Vec<Row>,
    is_first: bool,
    listeners: ListenSockets,
    counters: Option<counters::MibCounters>,
    counted_ns: u64,
}

impl Seen {
    fn of(station: &mut WatchedNetns) -> io::Result<Self> {
        // One walk for both: most of its price is the walk.
        let query = Query::states(mask::SYN_RECV | mask::SYN_SENT);
        let mut half_opens = station.sock_diag.dump(&query)?;
        // In place: of half-opens there may be a million.
        let syn_sent = half_opens
            .rows
            .extract_if(.., |row| row.state == state::SYN_SENT)
            .collect();
        let reader = station.counters.as_mut();
        let counters = reader.and_then(|reader| reader.read().ok());
        let counted_ns = monotonic_ns();
        let listeners = ListenSockets::read(&mut station.sock_diag)?;
        Ok(Self {
            half_opens,
            syn_sent,
            is_first: !mem::replace(&mut station.begun, true),
            listeners,
            counters,
            counted_ns,
        })
    }

    fn counter(&self, name: &str) -> Option<u64> {
        self.counters.as_ref()?.get(name)
    }
}

/// What a round gathers.
#[derive(Default)]
struct Round {
    snapshots: Vec<Snapshot>,
    listeners: Vec<Listener>,
    queues: Vec<model::Listener>,
    counters: Vec<Counters>,
    addresses: Vec<(u32, Vec<IpAddr>)>,
}

impl Round {
    fn take_in(&mut self, station: &mut WatchedNetns, seen: Seen, owners: &Owners, is_new: bool) {
        let netns = station.netns.inode();
        if is_new {
            self.listeners.extend(seen.listeners.iter().map(|l| {
                let who = owners.who(l.inode).unwrap_or_default();
                Listener {
                    netns,
                    local_addr: l.local_addr,
                    local_port: l.local_port,
                    process: who.process,
                    cgroup: who.cgroup,
                }
            }));
        }
        let look = ListenQueues {
            listeners: &seen.listeners,
            half_opens: &seen.half_opens.rows,
            counters: seen.counters.as_ref(),
            settings: &station.limits,
        };
        let name: Arc<str> = station.netns.name().into();
        let lines = look.lines(&name, |inode| owners.who(inode));
        self.queues.extend(lines);
        self.counters.push(Counters {
            netns,
            listen_overflows: seen.counter("ListenOverflows"),
            listen_drops: seen.counter("ListenDrops"),
            syncookies_sent: seen.counter("SyncookiesSent"),
            syncookies_recv: seen.counter("SyncookiesRecv"),
            req_q_full_drop: seen.counter("TCPReqQFullDrop"),
        });
        if mem::take(&mut station.moved) {
            match addresses(&station.netns) {
                Ok(addresses) => self.addresses.push((netns, addresses)),
                Err(error) => {
                    log::warn!("addresses of namespace {}: {error}", station.netns.name());
                }
            }
        }
        self.snapshots
            .push(snapshot(netns, &station.settings, &seen));
    }
}

fn sent_again(seen: &Seen) -> Option<RetransCounts> {
    Some(RetransCounts {
        handshake: seen.counter("TCPSynRetrans")?,
        segments: seen.counter("RetransSegs")?,
    })
}

fn snapshot(inode: u32, settings: &[Option<u64>; 2], seen: &Seen) -> Snapshot {
    let dump = &seen.half_opens;
    let as_row = |row: &Row| HalfOpenRow {
        tuple: Tuple {
            netns: inode,
            local_addr: row.local_addr,
            peer_addr: row.peer_addr,
            local_port: row.local_port,
            peer_port: row.peer_port,
        },
        family: row.family,
        retrans: row.retrans,
        expires_ms: row.expires_ms,
    };
    let [synack_retries, syn_linear] = *settings;
    let small = |value: Option<u64>| value.and_then(|v| u32::try_from(v).ok());
    Snapshot {
        netns: inode,
        before_ns: dump.before_ns,
        after_ns: dump.after_ns,
        rows: dump.rows.iter().map(as_row).collect(),
        syn_sent: Some(seen.syn_sent.iter().map(as_row).collect()),
        is_first: seen.is_first,
        synack_retries: small(synack_retries),
        syn_linear: small(syn_linear).unwrap_or(0),
        sent_again: sent_again(seen).map(|again| CounterReading {
            before_ns: dump.after_ns,
            after_ns: seen.counted_ns,
            again,
        }),
        retrans_fail: seen.counter("TCPRetransFail").unwrap_or(0),
        embryonic_rsts: seen.counter("EmbryonicRsts"),
        fates: Vec::new(),
        asked_ns: 0,
    }
}

#[cfg(test)]
mod tests;
