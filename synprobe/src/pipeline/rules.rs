//! Reads the rules of packet filters, on a thread of its own: the only one that keeps CAP_NET_ADMIN.
//!
//! The engine asks for a namespace when a packet was dropped in it, and once more at the end. A run that was told its
//! namespaces reads theirs at its beginning: the counters of rules can then be compared from the first drop on.

use std::{io, thread};

use tokio::sync::mpsc;

use crate::{
    diag::rules,
    model::{FilterFound, FilterReading},
    sys::{clock::monotonic_ns, netns::NetNs, privileges},
};

/// Namespaces that wait for the thread, at most. More are asked for again.
const WAITING: usize = 16;
/// The thread, and its answers.
pub(super) struct RuleReading {
    /// `None`: without CAP_NET_ADMIN there is no thread.
    requests: Option<mpsc::Sender<NetNs>>,
    readings: mpsc::Receiver<FilterReading>,
    refusals: mpsc::Sender<FilterReading>,
    pub(super) under_way: usize,
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

    /// Reads the rules of a namespace, some time.
    pub fn ask(&mut self, netns: NetNs) {
        let inode = netns.inode();
        let asked = match &self.requests {
            Some(requests) => requests.try_send(netns).is_ok(),
            None => self.refuse(inode, FilterFound::NotPermitted),
        };
        self.under_way += usize::from(asked);
    }

    /// Answers without reading them; whether there is room for the answer.
    pub fn refuse(&self, netns: u32, found: FilterFound) -> bool {
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
