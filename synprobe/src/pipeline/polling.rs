//! The state of the poller's rounds, and the way to its thread.

use std::{
    collections::HashMap,
    sync::mpsc::{SyncSender, sync_channel},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::WatchOptions;
use crate::{
    model::{DestinationQuestion, PathQuestion, RouteQuestion, Tuple},
    poller::{Hurry, Poller, Report, Request},
    sys::{clock::monotonic_ns, netns::NetnsIndex},
    track::Fates,
};

/// The state of the rounds.
pub(super) struct Polling {
    pub(super) requests: SyncSender<Request>,
    reports: mpsc::Receiver<Report>,
    pub(super) hurry: Hurry,
    pub under_way: bool,
    pub(super) due: Instant,
    /// When the first round began, until it has reported.
    pub(super) first_began: Option<Instant>,
    /// How long it takes to count the sockets, once the programs are detached.
    pub count_takes: Duration,
    /// How long a look at everything and that take. A run with a duration begins its last one so much earlier.
    pub look_takes: Duration,
    /// The last round showed no handshake in progress and no connection that waits for accept(), and no record has come since it began.
    pub calm: bool,
    /// When the waits for accept() are read again.
    pub(super) accepts_due: Instant,
    /// How many of them were fed, by namespace and port.
    pub(super) accepts_told: HashMap<(u32, u16), u64>,
    /// Asked by the engine, for the next round.
    pub(super) paths: Vec<PathQuestion>,
    /// The same.
    pub(super) routes: Vec<RouteQuestion>,
    /// The same.
    pub(super) destinations: Vec<DestinationQuestion>,
    /// When look-ups between rounds are next allowed.
    pub(super) look_ups_due: Instant,
    /// Namespaces that the last round did not reach.
    pub(super) skipped: usize,
    /// Namespaces that the last round knew.
    pub(super) watched: usize,
}

impl Polling {
    /// Begins the poller's thread. `count_takes`: how long the sockets were counted before the run.
    pub fn begin(options: &WatchOptions, index: NetnsIndex, count_takes: Duration) -> Self {
        let (requests, to_serve) = sync_channel(1);
        let (from_serve, reports) = mpsc::channel(1);
        let hurry = Hurry::default();
        let only = options.selection.netns.is_some();
        let poller = Poller::new(options.namespaces.clone(), only)
            .opening_those_named(options.enters_dropping)
            .finding_by(index)
            .following(options.tables.listeners)
            .hurried_by(hurry.clone());
        tokio::task::spawn_blocking(move || poller.serve(&to_serve, &from_serve));
        Self {
            requests,
            reports,
            hurry,
            under_way: false,
            due: Instant::now(),
            first_began: Some(Instant::now()),
            count_takes,
            look_takes: count_takes,
            calm: false,
            accepts_due: Instant::now(),
            accepts_told: HashMap::new(),
            paths: Vec::new(),
            routes: Vec::new(),
            destinations: Vec::new(),
            look_ups_due: Instant::now(),
            skipped: 0,
            watched: 0,
        }
    }

    /// A record came: the next round is due now.
    pub fn wake(&mut self) {
        self.calm = false;
        self.due = Instant::now();
    }

    pub fn is_due(&self) -> bool {
        !self.under_way && self.due <= Instant::now()
    }

    /// When to see again whether a round is due: after `pause` at the latest.
    pub fn next_tick(&self, pause: Duration) -> Instant {
        let now = Instant::now();
        let due = Some(self.due).filter(|due| *due > now);
        due.map_or(now + pause, |due| due.min(now + pause))
    }

    /// What a round found; `None`: the poller is gone.
    pub async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// What has become of these half-opens.
    pub async fn ask(&mut self, tuples: Vec<Tuple>) -> Fates {
        let asked_ns = monotonic_ns();
        // The poller has reported, and waits.
        let of = match self.requests.try_send(Request::Fates(tuples)) {
            Ok(()) => match self.reports.recv().await {
                Some(Report::Fates(fates)) => fates,
                _ => Vec::new(),
            },
            Err(_) => Vec::new(),
        };
        Fates { asked_ns, of }
    }
}
