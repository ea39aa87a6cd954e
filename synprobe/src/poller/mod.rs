//! Reads sock_diag and /proc on a thread of its own: a dump walks the kernel's whole connection table and
//! must not delay the ring.

use std::{
    collections::{HashMap, HashSet},
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use synprobe_ebpf::event::state;
use tokio::sync::mpsc;

use crate::{
    diag::{counters::CounterReader, icmp::IcmpErrors, route::Routes, sock_diag::SockDiag},
    model::{Fate, HandshakeSettings, PathQuestion, QueueSettings, ReturnPath, Tuple},
    sys::{
        clock::{monotonic_ns, thread_cpu},
        fd_limit,
        netns::{self, NetNs},
    },
};
use listener_owners::OwnerSearch;
pub use messages::{Report, Request, Round};
use watched_netns::{Seen, WatchedNetns};

mod listener_owners;
mod messages;
mod routes;
mod watched_netns;

/// How often namespaces are discovered.
const DISCOVER: Duration = Duration::from_secs(10);
/// A namespace without a process, an event or a half-open is closed after this time.
const FORGET: Duration = Duration::from_secs(60);
/// Half-opens looked up in a round, at most: about a microsecond each. The rest waits for the next round.
const ASKED: usize = 65_536;

/// The state of the thread.
pub struct Poller {
    /// Namespaces named by the caller; only these if `only`.
    given: Vec<NetNs>,
    only: bool,
    /// Whether others that events name are opened all the same.
    opens_named: bool,
    watched: HashMap<u32, WatchedNetns>,
    refused: HashSet<u32>,
    owners: OwnerSearch,
    discovered: Option<Instant>,
    /// Whether the lack of file descriptors was logged.
    exhausted: bool,
}

impl Poller {
    /// Watches `given`, and unless `only` every other namespace that can be found.
    pub fn new(given: Vec<NetNs>, only: bool) -> Self {
        Self {
            given,
            only,
            opens_named: !only,
            watched: HashMap::new(),
            refused: HashSet::new(),
            owners: OwnerSearch::default(),
            discovered: None,
            exhausted: false,
        }
    }

    /// Also opens namespaces that the requests name, where only the given ones are searched.
    pub fn opening_those_named(mut self, open: bool) -> Self {
        self.opens_named |= open;
        self
    }

    /// Answers requests until their sender is gone.
    pub fn serve(mut self, mut requests: mpsc::Receiver<Request>, reports: mpsc::Sender<Report>) {
        while let Some(request) = requests.blocking_recv() {
            let report = match request {
                Request::Round {
                    named,
                    paths,
                    routes,
                    destinations,
                } => {
                    let mut round = self.round(&named, &paths);
                    round.routes = routes::look_up(&mut self.watched, &routes);
                    round.destinations = routes::destinations(&self.watched, &destinations);
                    Report::Round(Box::new(round))
                }
                Request::Fates(tuples) => Report::Fates(self.fates(&tuples)),
            };
            if reports.blocking_send(report).is_err() {
                return;
            }
        }
    }

    /// One round.
    pub fn round(&mut self, named: &HashSet<u32>, paths: &[PathQuestion]) -> Round {
        let new = self.discover(named);
        let mut round = Round::default();
        let watched = mem::take(&mut self.watched);
        let mut inodes = HashSet::new();
        let mut took = Duration::ZERO;
        for (inode, mut watched_netns) in watched {
            // CPU time, not wall time: on a busy host a dump must not seem expensive.
            let began = thread_cpu();
            let seen = Seen::of(&mut watched_netns);
            took += thread_cpu().saturating_sub(began);
            let seen = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    log::warn!(
                        "sockets of namespace {}: {error}",
                        watched_netns.netns.name()
                    );
                    continue;
                }
            };
            // The search for owners is not included: it has a bound of its own.
            let is_new = new.contains(&inode);
            let all: Vec<u32> = seen.listeners.iter().map(|l| l.inode).collect();
            self.owners.learn(&all, is_new);
            inodes.extend(all);
            let began = thread_cpu();
            round.take_in(&mut watched_netns, &seen, &self.owners, is_new);
            took += thread_cpu().saturating_sub(began);
            self.watched.insert(inode, watched_netns);
        }
        self.owners.retain(&inodes);
        Round {
            paths: self.look_up(paths),
            icmp: self
                .watched
                .values()
                .filter_map(|watched| watched.icmp.clone())
                .collect(),
            at_ns: monotonic_ns(),
            took,
            ..round
        }
    }

    fn look_up(&mut self, wanted: &[PathQuestion]) -> Vec<(PathQuestion, ReturnPath)> {
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
            let back = ReturnPath {
                ifindex: route.ifindex,
                interface: route.interface.unwrap_or_default(),
                gateway: route.gateway,
                mac,
            };
            found.push((*path, back));
        }
        found
    }

    /// Opens new namespaces; returns their inodes.
    fn discover(&mut self, named: &HashSet<u32>) -> Vec<u32> {
        let due = self.discovered.is_none_or(|at| at.elapsed() >= DISCOVER);
        let mut found: Vec<NetNs> = self.given.drain(..).collect();
        let given: HashSet<u32> = found.iter().map(NetNs::inode).collect();
        if due {
            self.discovered = Some(Instant::now());
            for watched_netns in self.watched.values_mut() {
                watched_netns.read_settings();
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
            if let Some(watched_netns) = self.watched.get_mut(&inode) {
                watched_netns.in_use = Instant::now();
            }
        }
        if due {
            // Our sockets would keep a namespace alive that has no other user.
            self.watched
                .retain(|_, s| s.given || s.in_use.elapsed() < FORGET);
        }
        for inode in named {
            if self.opens_named
                && !self.watched.contains_key(inode)
                && !self.refused.contains(inode)
            {
                found.extend(netns::find(*inode));
            }
        }
        // Known ones are closed before more are opened.
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
                    let mut watched_netns = WatchedNetns {
                        netns,
                        sock_diag,
                        counters,
                        routes,
                        icmp: icmp.map(Arc::new),
                        synack_retries: None,
                        settings: HandshakeSettings::default(),
                        limits: QueueSettings::default(),
                        conntrack: None,
                        is_stale: true,
                        no_routes6: None,
                        begun: false,
                        given: given.contains(&inode),
                        in_use: Instant::now(),
                    };
                    watched_netns.read_settings();
                    self.watched.insert(inode, watched_netns);
                    new.push(inode);
                }
                Err(error) if fd_limit::used_up(&error) => self.no_descriptors(),
                Err(error) => {
                    if self.refused.insert(inode) {
                        log::warn!("namespace {} cannot be read: {error}", netns.name());
                    }
                }
            }
        }
        new
    }

    /// Opens a source that a namespace can be watched without.
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

    /// Logs the lack of file descriptors, once.
    fn no_descriptors(&mut self) {
        if !mem::replace(&mut self.exhausted, true) {
            log::warn!("{}", fd_limit::advice());
        }
    }

    fn fates(&mut self, tuples: &[Tuple]) -> Vec<(Tuple, Fate)> {
        let mut fates = Vec::new();
        for tuple in tuples.iter().take(ASKED) {
            let Some(watched_netns) = self.watched.get_mut(&tuple.netns) else {
                continue;
            };
            // After an error the next round asks again.
            let Ok(row) = watched_netns.sock_diag.get(&tuple.flow(), 0) else {
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

#[cfg(test)]
mod tests;
