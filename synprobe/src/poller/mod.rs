//! Reads sock_diag and /proc on a thread of its own: a dump walks the kernel's whole connection table and
//! must not delay the ring.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use synprobe_ebpf::event::state;
use tokio::sync::mpsc;

use crate::{
    model::{Fate, PathQuestion, Tuple},
    sys::{
        clock::{CpuTimer, monotonic_ns},
        cpu_share::CpuShare,
        netns::{NetNs, NetnsIndex},
    },
    util::table_bounds::TableBounds,
};
use followed::FollowedListeners;
pub use followed::LeftOut;
use idle::IdleNamespaces;
use listener_owners::OwnerSearch;
pub use messages::{Hurry, LookUps, Report, Request, Round};
use seen::Seen;
use watched_netns::WatchedNetns;

mod discovery;
mod followed;
mod idle;
mod listener_owners;
mod messages;
mod round;
mod routes;
mod seen;
mod watched_netns;

/// Discovery takes no more than this share of one core: its pause is this many times its CPU time.
const PAUSE: u32 = 100;
/// How often settings and addresses of a namespace are read again.
const SETTINGS: Duration = Duration::from_secs(10);
/// The same where idle namespaces take turns.
const SETTINGS_OF_MANY: Duration = Duration::from_secs(60);
/// The opening of new namespaces takes one part in this many of a core.
const OPENING: u32 = 200;
/// CPU time for it, ahead of that share.
const OPENING_AHEAD: Duration = Duration::from_millis(50);
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
    followed: FollowedListeners,
    idle: IdleNamespaces,
    index: NetnsIndex,
    /// When namespaces are discovered again.
    discover_due: Option<Instant>,
    /// Whether the lack of file descriptors was logged.
    exhausted: bool,
    /// When it was last checked that somebody else has the namespaces.
    checked: Instant,
    /// When to check that again.
    check_after: Duration,
    /// What the opening of new namespaces may cost, after the first round.
    opening: CpuShare,
    hurry: Hurry,
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
            followed: FollowedListeners::within(TableBounds::default().listeners),
            idle: IdleNamespaces::default(),
            index: NetnsIndex::default(),
            discover_due: None,
            exhausted: false,
            checked: Instant::now(),
            check_after: CHECK,
            opening: CpuShare::new(OPENING, OPENING_AHEAD),
            hurry: Hurry::default(),
        }
    }

    /// Follows so many listeners at most.
    pub fn following(mut self, listeners: usize) -> Self {
        self.followed = FollowedListeners::within(listeners);
        self
    }

    /// Ends a round early where this asks for it.
    pub fn hurried_by(mut self, hurry: Hurry) -> Self {
        self.hurry = hurry;
        self
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
            let request = match self.watched.values().any(WatchedNetns::may_end) {
                true => {
                    requests.recv_timeout(self.check_after.saturating_sub(self.checked.elapsed()))
                }
                false => requests.recv().map_err(RecvTimeoutError::from),
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
        let timer = CpuTimer::begin();
        let index = &self.index;
        self.watched.retain(|inode, watched| {
            if !watched.may_end() || watched.netns.whereabouts().still_there() {
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
        self.checked = Instant::now();
        self.check_after = CHECK.max(timer.took() * PAUSE);
    }

    /// One round. With `all` it looks at idle namespaces too.
    pub fn round(&mut self, named: &HashSet<u32>, paths: &[PathQuestion], all: bool) -> Round {
        let (new, unopened) = self.discover(named);
        let mut round = Round {
            before_ns: monotonic_ns(),
            skipped: unopened,
            ..Round::default()
        };
        let inodes = self.watched.keys().copied();
        let chosen = self.idle.choose(inodes, named, all);
        let takes_turns = idle::take_turns(self.watched.len());
        let settings_age = match takes_turns {
            true => SETTINGS_OF_MANY,
            false => SETTINGS,
        };
        let mut looked_at = Vec::new();
        let mut took = Duration::ZERO;
        let quiet = |inode: &u32| self.idle.is_settled(*inode) && !named.contains(inode);
        // What is busy first: there may be no time for the rest.
        let mut order: Vec<(bool, u32)> = self.watched.keys().map(|i| (quiet(i), *i)).collect();
        order.sort_unstable();
        for (is_quiet, inode) in order {
            let Some(mut watched_netns) = self.watched.remove(&inode) else {
                continue;
            };
            let skip = self.hurry.is_set() && !watched_netns.given;
            if skip || !chosen.contains(&inode) {
                round.skipped += usize::from(skip && chosen.contains(&inode));
                round.idle.push(inode);
                self.watched.insert(inode, watched_netns);
                continue;
            }
            // CPU time, not wall time: on a busy host a dump must not seem expensive.
            let timer = CpuTimer::begin();
            if is_quiet && takes_turns && watched_netns.is_untouched() {
                took += timer.took();
                self.idle.note_untouched(inode);
                round.idle.push(inode);
                self.watched.insert(inode, watched_netns);
                continue;
            }
            let is_new = new.contains(&inode);
            // A deferred connect is in SYN_SENT before it sends anything; its event names the namespace.
            let may_rest = !all && !named.contains(&inode);
            let seen = Seen::of(&mut watched_netns, may_rest, &mut self.followed);
            // While it rests, no handshake meets its settings.
            if seen.as_ref().is_ok_and(|seen| !seen.rests)
                && watched_netns.settings_read.elapsed() >= settings_age
            {
                watched_netns.read_settings();
            }
            // The first look has a bound of its own: the next round does not wait for it.
            took += timer.took() * u32::from(!is_new);
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
        if all || !self.hurry.is_set() {
            self.owners.learn(&self.hurry);
        }
        for (inode, mut watched_netns, seen, is_new) in looked_at {
            let timer = CpuTimer::begin();
            round.take_in(&mut watched_netns, &seen, &self.owners, is_new);
            took += timer.took() * u32::from(!is_new);
            self.watched.insert(inode, watched_netns);
        }
        let callers = self.owners.take_callers();
        let is_watched = |netns| self.watched.contains_key(&netns);
        self.owners.retain(is_watched);
        self.followed.retain(is_watched);
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
