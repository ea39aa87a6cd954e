//! Reads the rules of packet filters, on a thread of its own: the only one that keeps CAP_NET_ADMIN.
//!
//! The engine asks for a namespace when a packet was dropped in it, and once more at the end. A run that was told its
//! namespaces reads theirs at its beginning: the counters of rules can then be compared from the first drop on.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{timeout, timeout_at},
};

use super::run::Run;
use crate::{
    diag::rules,
    engine::Input,
    model::{FilterFound, FilterReading},
    sys::{clock::monotonic_ns, netns::NetNs, privileges},
};

/// Namespaces that wait for the thread, at most. More are asked for again.
const WAITING: usize = 16;
/// Namespaces that are read at the beginning, at most.
const AT_THE_BEGINNING: usize = 4;
/// How long the beginning of a run waits for its readings.
const FIRST: Duration = Duration::from_millis(250);
/// The thread, and its answers.
pub(super) struct RuleReading {
    /// `None`: without CAP_NET_ADMIN there is no thread.
    requests: Option<mpsc::Sender<NetNs>>,
    readings: mpsc::Receiver<FilterReading>,
    refusals: mpsc::Sender<FilterReading>,
    under_way: usize,
}

impl RuleReading {
    /// Begins the thread, where it may read rules. `confined`: it gives up what it does not need, for itself; whether
    /// it enters other namespaces.
    ///
    /// # Errors
    /// EAGAIN: no thread can be created.
    pub fn begin(confined: Option<bool>) -> io::Result<Self> {
        let (refusals, readings) = mpsc::channel(WAITING);
        let may = privileges::held().is_ok_and(|held| held >> privileges::NET_ADMIN & 1 == 1);
        let requests = may.then(|| {
            let (requests, mut wanted) = mpsc::channel::<NetNs>(WAITING);
            let answers = refusals.clone();
            let (less, has_less) = std::sync::mpsc::channel();
            let serve = move || {
                if let Some(elsewhere) = confined
                    && let Err(error) = privileges::give_up_but_rules(elsewhere)
                {
                    // The run's own thread reports the same.
                    log::debug!("the thread that reads rules keeps its privileges: {error}");
                }
                let _ = less.send(());
                while let Some(netns) = wanted.blocking_recv() {
                    if answers.blocking_send(rules::read(&netns)).is_err() {
                        return;
                    }
                }
            };
            let begun = thread::Builder::new().name("rules".into()).spawn(serve);
            begun.map(|_| {
                // From the run's first line on no thread has more than it needs.
                let _ = has_less.recv();
                requests
            })
        });
        Ok(Self {
            requests: requests.transpose()?,
            readings,
            refusals,
            under_way: 0,
        })
    }

    /// The next reading.
    pub async fn next(&mut self) -> FilterReading {
        match self.readings.recv().await {
            Some(reading) => {
                self.under_way = self.under_way.saturating_sub(1);
                reading
            }
            // It holds a sender itself.
            None => std::future::pending().await,
        }
    }

    fn ask(&mut self, netns: NetNs) {
        let inode = netns.inode();
        let asked = match &self.requests {
            Some(requests) => requests.try_send(netns).is_ok(),
            None => self.refuse(inode, FilterFound::NotPermitted),
        };
        self.under_way += usize::from(asked);
    }

    fn refuse(&self, netns: u32, found: FilterFound) -> bool {
        let now = monotonic_ns();
        let reading = FilterReading {
            netns,
            before_ns: now,
            at_ns: now,
            found,
        };
        self.refusals.try_send(reading).is_ok()
    }
}

impl Run {
    /// Reads the rules of the namespaces that the run was told.
    pub(super) fn ask_first_rules(&mut self) {
        for netns in self.options.namespaces.iter().take(AT_THE_BEGINNING) {
            self.rules.ask(netns.clone());
        }
    }

    /// Waits for those, a moment at most.
    pub(super) async fn take_first_rules(&mut self) {
        let _ = timeout(FIRST, self.take_rules_under_way()).await;
    }

    /// Reads the rules that the engine asks for.
    pub(super) fn ask_rules(&mut self, is_last: bool) {
        for inode in self.core.engine.wanted_rules(is_last) {
            match self.enricher.find(inode) {
                Some(netns) => self.rules.ask(netns),
                None => {
                    let gone = FilterFound::Failed("the namespace was not found".to_owned());
                    self.rules.under_way += usize::from(self.rules.refuse(inode, gone));
                }
            }
        }
    }

    /// Takes in what was read, and at the end of the run the last readings of namespaces in which packets were
    /// dropped meanwhile. What is read later than `until` is not waited for.
    pub(super) async fn take_last_rules(&mut self, until: Instant) {
        let _ = timeout_at(until.into(), async {
            self.take_rules_under_way().await;
            self.ask_rules(true);
            self.take_rules_under_way().await;
        })
        .await;
    }

    async fn take_rules_under_way(&mut self) {
        while self.rules.under_way > 0 {
            let reading = self.rules.next().await;
            self.core.feed(Input::Rules(Box::new(reading)));
        }
    }
}
