//! Reads sock_diag and /proc on a thread of its own: a dump walks the kernel's whole connection table and
//! must not delay the ring.

use std::{
    collections::{HashMap, HashSet},
    io, mem,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use synprobe_ebpf::event::state;
use tokio::sync::mpsc;

use crate::{
    diag::{counters::CounterReader, icmp::IcmpErrors, route::Routes, sock_diag::SockDiag},
    model::{Fate, HandshakeSettings, PathQuestion, QueueSettings, Tuple},
    sys::{
        clock::{monotonic_ns, thread_cpu},
        fd_limit,
        netns::{self, NetNs, NetnsIndex},
    },
};
use idle::IdleNamespaces;
use listener_owners::OwnerSearch;
pub use messages::{LookUps, Report, Request, Round};
use watched_netns::{Seen, WatchedNetns};

mod idle;
mod listener_owners;
mod messages;
mod routes;
mod watched_netns;

/// How often namespaces are discovered.
const DISCOVER: Duration = Duration::from_secs(10);
/// Discovery takes no more than this share of one core: its pause is this many times its CPU time.
const PAUSE: u32 = 100;
/// How often settings and addresses of a namespace are read again.
const SETTINGS: Duration = Duration::from_secs(10);
/// The same where idle namespaces take turns.
const SETTINGS_OF_MANY: Duration = Duration::from_secs(60);
/// CPU time for the opening of new namespaces in one round, after the first.
const NEW: Duration = Duration::from_millis(20);
/// How often it is checked that somebody else still has each namespace. One that is found alone twice is closed: our
/// sockets would keep it alive.
const CHECK: Duration = Duration::from_millis(300);
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
    idle: IdleNamespaces,
    index: NetnsIndex,
    /// When namespaces are discovered again.
    discover_due: Option<Instant>,
    /// Whether the lack of file descriptors was logged.
    exhausted: bool,
    /// When it was last checked that somebody else has the namespaces.
    checked: Instant,
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
            idle: IdleNamespaces::default(),
            index: NetnsIndex::default(),
            discover_due: None,
            exhausted: false,
            checked: Instant::now(),
        }
    }

    /// Also opens namespaces that the requests name, where only the given ones are searched.
    pub fn opening_those_named(mut self, open: bool) -> Self {
        self.opens_named |= open;
        self
    }

    /// Finds namespaces by what others know too, and shares the cost of searches with them.
    pub fn finding_by(mut self, index: NetnsIndex) -> Self {
        self.index = index;
        self
    }

    /// Answers requests until their sender is gone. In between it lets go of namespaces that nobody else has.
    pub fn serve(mut self, requests: &Receiver<Request>, reports: &mpsc::Sender<Report>) {
        loop {
            let request = match self.watched.values().all(|watched| watched.given) {
                true => requests.recv().map_err(RecvTimeoutError::from),
                false => requests.recv_timeout(CHECK.saturating_sub(self.checked.elapsed())),
            };
            let report = match request {
                Ok(request) => self.answer(request),
                Err(RecvTimeoutError::Timeout) => {
                    self.let_go();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if reports.blocking_send(report).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, request: Request) -> Report {
        match request {
            Request::Round {
                named,
                paths,
                routes,
                destinations,
                all,
                callers,
            } => {
                self.owners.wants_all_callers = callers;
                let mut round = self.round(&named, &paths, all);
                round.routes = routes::look_up(&mut self.watched, &routes);
                round.destinations = routes::destinations(&self.watched, &destinations);
                round.taken_over = routes::taken_over(&mut self.watched, &destinations);
                Report::Round(Box::new(round))
            }
            Request::Fates(tuples) => Report::Fates(self.fates(&tuples)),
            Request::LookUps { paths, routes } => {
                let found = routes::between_rounds(&mut self.watched, paths, routes);
                Report::LookUps(Box::new(found))
            }
        }
    }

    /// Closes namespaces that nobody else has. Where only the process is gone that showed one, it is looked for.
    fn let_go(&mut self) {
        self.checked = Instant::now();
        let index = &self.index;
        self.watched.retain(|inode, watched| {
            if watched.given || watched.netns.whereabouts().still_there() {
                watched.alone = false;
                return true;
            }
            if let Some(netns) = index.find_used(*inode) {
                watched.netns = netns;
                return true;
            }
            // The search may take a moment.
            !mem::replace(&mut watched.alone, true)
        });
    }

    /// One round. With `all` it looks at idle namespaces too.
    pub fn round(&mut self, named: &HashSet<u32>, paths: &[PathQuestion], all: bool) -> Round {
        let new = self.discover(named);
        let mut round = Round {
            before_ns: monotonic_ns(),
            ..Round::default()
        };
        let inodes = self.watched.keys().copied();
        let chosen = self.idle.choose(inodes, named, all);
        let settings_age = match chosen.len() < self.watched.len() {
            true => SETTINGS_OF_MANY,
            false => SETTINGS,
        };
        let mut looked_at = Vec::new();
        let mut took = Duration::ZERO;
        for (inode, mut watched_netns) in mem::take(&mut self.watched) {
            if !chosen.contains(&inode) {
                round.idle.push(inode);
                self.watched.insert(inode, watched_netns);
                continue;
            }
            let is_new = new.contains(&inode);
            // CPU time, not wall time: on a busy host a dump must not seem expensive.
            let began = thread_cpu();
            if watched_netns.settings_read.elapsed() >= settings_age {
                watched_netns.read_settings();
            }
            // A deferred connect is in SYN_SENT before it sends anything; its event names the namespace.
            let may_rest = !all && !named.contains(&inode);
            let seen = Seen::of(&mut watched_netns, may_rest);
            // The first look has a bound of its own: the next round does not wait for it.
            took += thread_cpu().saturating_sub(began) * u32::from(!is_new);
            let seen = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    watched_netns.reopen();
                    round.failed.push((inode, error.to_string()));
                    self.watched.insert(inode, watched_netns);
                    continue;
                }
            };
            self.idle.note(inode, &seen);
            let all = seen.listeners.iter().map(|l| l.inode).collect();
            self.owners.saw(inode, all);
            self.owners.want_callers(&seen, inode);
            looked_at.push((inode, watched_netns, seen, is_new));
        }
        // It has a bound of its own.
        self.owners.learn();
        for (inode, mut watched_netns, seen, is_new) in looked_at {
            let began = thread_cpu();
            round.take_in(&mut watched_netns, &seen, &self.owners, is_new);
            took += thread_cpu().saturating_sub(began) * u32::from(!is_new);
            self.watched.insert(inode, watched_netns);
        }
        let callers = self.owners.take_callers();
        self.owners
            .retain(|netns| self.watched.contains_key(&netns));
        Round {
            paths: routes::paths(&mut self.watched, paths),
            icmp: self
                .watched
                .iter()
                .filter_map(|(netns, watched)| {
                    Some((*netns, Arc::downgrade(watched.icmp.as_ref()?)))
                })
                .collect(),
            callers,
            at_ns: monotonic_ns(),
            took,
            ..round
        }
    }

    /// Opens new namespaces; returns their inodes.
    fn discover(&mut self, named: &HashSet<u32>) -> Vec<u32> {
        let first = self.discover_due.is_none();
        let due = self.discover_due.is_none_or(|at| at <= Instant::now());
        let began = thread_cpu();
        let mut found: Vec<NetNs> = self.given.drain(..).collect();
        let given: HashSet<u32> = found.iter().map(NetNs::inode).collect();
        if due {
            if !self.only {
                let discovery = netns::discover();
                if discovery.exhausted {
                    self.no_descriptors();
                }
                found.extend(discovery.namespaces);
            }
            let pause = thread_cpu().saturating_sub(began) * PAUSE;
            self.discover_due = Some(Instant::now() + pause.max(DISCOVER));
        }
        for inode in named {
            if self.opens_named
                && !self.watched.contains_key(inode)
                && !self.refused.contains(inode)
            {
                found.extend(self.index.find(*inode));
            }
        }
        // Known ones are closed before more are opened.
        found.retain(|netns| !self.watched.contains_key(&netns.inode()));
        let mut new = Vec::new();
        // The search has a bound of its own.
        let began = thread_cpu();
        for netns in found {
            let inode = netns.inode();
            if self.watched.contains_key(&inode) {
                continue;
            }
            // Who makes namespaces by the thousand costs a bounded share: the rest waits.
            if !first && thread_cpu().saturating_sub(began) > NEW {
                break;
            }
            if fd_limit::scarce() {
                self.no_descriptors();
                break;
            }
            let given = given.contains(&inode);
            // On one thread, which enters the namespace once.
            let opened = netns.run(|| self.open(&netns, given));
            match opened.and_then(|opened| opened) {
                Ok(watched_netns) => {
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

    fn open(&mut self, netns: &NetNs, given: bool) -> io::Result<WatchedNetns> {
        let sock_diag = SockDiag::open(netns)?;
        let counters = self.less_without("counters", CounterReader::open, netns);
        let routes = self.less_without("routes", Routes::open, netns);
        let icmp = self.less_without("ICMP errors", IcmpErrors::open, netns);
        let mut watched_netns = WatchedNetns {
            transparent: false,
            netns: netns.clone(),
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
            listen_drops: None,
            migrate_req: None,
            waiting: HashSet::new(),
            still_at: None,
            begun: false,
            given,
            alone: false,
            settings_read: Instant::now(),
        };
        watched_netns.read_settings();
        Ok(watched_netns)
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
