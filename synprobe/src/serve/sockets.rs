//! The TCP sockets of the host by state, read at a scrape. Reading may take long where there are many: it takes
//! a hundredth of one core at most, and a scrape does not wait for it for long.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, task::JoinHandle, time::timeout};

use crate::{
    diag::state_counts,
    sys::{clock::thread_cpu, netns::NetNs},
};

/// SocketCounts by the kernel's name of their state; `None`: they could not be read.
pub(super) type ByState = BTreeMap<&'static str, u64>;

/// They are read again after this time at the earliest.
const FRESH: Duration = Duration::from_secs(5);
/// The pause is this many times the CPU time that reading took.
const PAUSE: u32 = 100;
/// A scrape waits so long for a newer reading.
const PATIENCE: Duration = Duration::from_millis(200);
/// A scrape waits so long for the first one.
const FIRST: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct SocketCounts {
    only: Option<NetNs>,
    state: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    last: Option<Arc<ByState>>,
    due: Option<Instant>,
    under_way: Option<JoinHandle<(ByState, Duration)>>,
}

impl SocketCounts {
    /// Of one namespace, or of every one that can be found.
    pub fn new(only: Option<NetNs>) -> Self {
        Self {
            only,
            state: Mutex::default(),
        }
    }

    /// The last reading; `None`: there is none yet.
    pub async fn read(&self) -> Option<Arc<ByState>> {
        let mut state = self.state.lock().await;
        if state.under_way.is_none() && state.due.is_none_or(|due| due <= Instant::now()) {
            let only = self.only.clone();
            state.under_way = Some(tokio::task::spawn_blocking(move || {
                // CPU time: on a busy host a reading must not seem expensive.
                let began = thread_cpu();
                let counts = state_counts::by_state(only);
                (counts, thread_cpu().saturating_sub(began))
            }));
        }
        let patience = match state.last {
            Some(_) => PATIENCE,
            None => FIRST,
        };
        if let Some(reading) = &mut state.under_way
            && let Ok(done) = timeout(patience, reading).await
        {
            state.under_way = None;
            // It panicked, or the runtime ends.
            let (counts, took) = done.ok()?;
            state.due = Some(Instant::now() + FRESH.max(took * PAUSE));
            state.last = Some(Arc::new(counts));
        }
        state.last.clone()
    }
}
