//! The TCP sockets of the host by state, read at a scrape. Reading may take long where there are many: it takes
//! a hundredth of one core at most, and a scrape does not wait for it for long.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use crate::{
    diag::state_counts,
    sys::{clock::CpuTimer, netns::NetNs},
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
    shared: Arc<SharedReading>,
}

#[derive(Default)]
struct SharedReading {
    /// Nobody waits while it is locked: with many scrapers each wait would be behind those of the others.
    state: Mutex<Reading>,
    changed: Notify,
}

#[derive(Default)]
struct Reading {
    last: Option<Arc<ByState>>,
    due: Option<Instant>,
    under_way: bool,
}

impl SharedReading {
    fn state(&self) -> MutexGuard<'_, Reading> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SocketCounts {
    /// Of one namespace, or of every one that can be found.
    pub fn new(only: Option<NetNs>) -> Self {
        Self {
            only,
            shared: Arc::default(),
        }
    }

    /// The last reading; `None`: there is none yet.
    pub async fn read(&self) -> Option<Arc<ByState>> {
        let only = self.only.clone();
        self.read_by(move || state_counts::by_state(only)).await
    }

    async fn read_by(
        &self,
        count: impl FnOnce() -> ByState + Send + 'static,
    ) -> Option<Arc<ByState>> {
        let changed = self.shared.changed.notified();
        let patience = {
            let mut state = self.shared.state();
            if !state.under_way && state.due.is_none_or(|due| due <= Instant::now()) {
                state.under_way = true;
                self.begin(count);
            }
            match (state.under_way, &state.last) {
                (false, last) => return last.clone(),
                (true, Some(_)) => PATIENCE,
                (true, None) => FIRST,
            }
        };
        let _ = timeout(patience, changed).await;
        self.shared.state().last.clone()
    }

    fn begin(&self, count: impl FnOnce() -> ByState + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        let reading = tokio::task::spawn_blocking(move || {
            // CPU time: on a busy host a reading must not seem expensive.
            let timer = CpuTimer::begin();
            (count(), timer.took())
        });
        tokio::spawn(async move {
            let done = reading.await;
            let mut state = shared.state();
            state.under_way = false;
            // Else it panicked, or the runtime ends.
            if let Ok((counts, took)) = done {
                state.due = Some(Instant::now() + FRESH.max(took * PAUSE));
                state.last = Some(Arc::new(counts));
            }
            drop(state);
            shared.changed.notify_waiters();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// However many ask, each waits for a slow reading as long as the first does.
    #[tokio::test]
    async fn scrapers_wait_beside_each_other() {
        let counts = Arc::new(SocketCounts::new(None));
        let (end, ended) = mpsc::channel::<()>();
        let slow = move || {
            let _ = ended.recv();
            ByState::from([("LISTEN", 7)])
        };
        let began = Instant::now();
        let one = |count| {
            let counts = Arc::clone(&counts);
            tokio::spawn(async move { counts.read_by(count).await })
        };
        let first = one(Box::new(slow) as Box<dyn FnOnce() -> ByState + Send>);
        let others: Vec<_> = (0..64)
            .map(|_| one(Box::new(|| panic!("it is read once"))))
            .collect();
        assert!(first.await.unwrap().is_none());
        for other in others {
            assert!(other.await.unwrap().is_none());
        }
        assert!(began.elapsed() < FIRST + PATIENCE, "{:?}", began.elapsed());
        drop(end);
        while counts.shared.state().under_way {
            tokio::task::yield_now().await;
        }
        let read = counts.read_by(|| panic!("it is not due")).await;
        assert_eq!(read.unwrap()["LISTEN"], 7);
    }
}
