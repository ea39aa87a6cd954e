//! What waits for the collector, bounded in number and bytes. Where it is full the oldest is lost, and counted.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub bytes: Bytes,
    /// Log records or data points in it.
    pub items: u64,
}

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub entries: usize,
    pub bytes: usize,
    /// Entries that are sent together, at most.
    pub batch: usize,
    /// Bytes that are sent together, at most; one entry may be larger.
    pub batch_bytes: usize,
    /// So long entries gather to a batch.
    pub gather: Duration,
}

/// See the module.
pub(super) struct SendQueue {
    limits: QueueLimits,
    state: Mutex<Waiting>,
    changed: Notify,
    /// Items that were not delivered and never will be.
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Queued>,
    bytes: usize,
    /// No more will come.
    closed: bool,
    /// The bound was reached since it was asked for.
    overflowed: bool,
}

impl SendQueue {
    /// Empty.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            changed: Notify::new(),
            lost: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more entry.
    pub fn push(&self, entry: Queued) {
        let mut state = self.lock();
        state.bytes += entry.bytes.len();
        state.entries.push_back(entry);
        while state.entries.len() > self.limits.entries || state.bytes > self.limits.bytes {
            let Some(oldest) = state.entries.pop_front() else {
                break;
            };
            state.bytes -= oldest.bytes.len();
            state.overflowed = true;
            self.lose(oldest.items);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Counts items that are lost.
    pub fn lose(&self, items: u64) {
        self.lost.fetch_add(items, Ordering::Relaxed);
    }

    /// Items that are lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether entries were lost since the last call because the queue was full.
    pub fn take_overflowed(&self) -> bool {
        std::mem::take(&mut self.lock().overflowed)
    }

    /// The next batch; `None`: no more will come.
    pub async fn next_batch(&self) -> Option<Vec<Queued>> {
        loop {
            let (any, whole, closed) = {
                let state = self.lock();
                let whole = state.entries.len() >= self.limits.batch
                    || state.bytes >= self.limits.batch_bytes;
                (!state.entries.is_empty(), whole, state.closed)
            };
            match (any, closed) {
                (true, true) => return Some(self.take_batch()),
                (true, false) => {
                    if !whole {
                        // More may come meanwhile, or the end.
                        self.gather().await;
                    }
                    return Some(self.take_batch());
                }
                (false, true) => return None,
                (false, false) => self.changed.notified().await,
            }
        }
    }

    async fn gather(&self) {
        let whole = async {
            loop {
                self.changed.notified().await;
                let state = self.lock();
                if state.closed
                    || state.entries.len() >= self.limits.batch
                    || state.bytes >= self.limits.batch_bytes
                {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(self.limits.gather, whole).await;
    }

    fn take_batch(&self) -> Vec<Queued> {
        let mut state = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < self.limits.batch
            && let Some(next) = state.entries.front()
            && (batch.is_empty() || bytes + next.bytes.len() <= self.limits.batch_bytes)
            && let Some(entry) = state.entries.pop_front()
        {
            bytes += entry.bytes.len();
            batch.push(entry);
        }
        state.bytes -= bytes;
        batch
    }

    /// No more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Gives up what waits.
    pub fn abandon(&self) {
        let mut state = self.lock();
        let left: u64 = state.entries.iter().map(|entry| entry.items).sum();
        state.entries.clear();
        state.bytes = 0;
        self.lose(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        entries: 10,
        bytes: 100,
        batch: 4,
        batch_bytes: 30,
        gather: Duration::from_secs(3600),
    };

    fn entry(bytes: usize) -> Queued {
        Queued {
            bytes: vec![0; bytes].into(),
            items: 2,
        }
    }

    #[test]
    fn beyond_either_bound_the_oldest_are_lost_and_counted() {
        let queue = SendQueue::new(LIMITS);
        (0..15).for_each(|_| queue.push(entry(1)));
        assert_eq!((queue.lost(), queue.lock().entries.len()), (10, 10));
        assert!(queue.take_overflowed() && !queue.take_overflowed());
        queue.push(entry(99));
        let state = queue.lock();
        assert_eq!((state.entries.len(), state.bytes), (2, 100));
        drop(state);
        assert_eq!(queue.lost(), 10 + 2 * 9);
        queue.push(entry(101));
        assert_eq!((queue.lost(), queue.lock().bytes), (10 + 2 * 12, 0));
    }

    #[tokio::test]
    async fn batches_are_bounded_and_a_whole_one_does_not_wait() {
        let queue = SendQueue::new(LIMITS);
        (0..6).for_each(|_| queue.push(entry(1)));
        assert_eq!(queue.next_batch().await.unwrap().len(), 4);
        queue.push(entry(40));
        // Two small ones, then the large one alone: by bytes they are a whole batch.
        assert_eq!(queue.next_batch().await.unwrap().len(), 2);
        assert_eq!(queue.next_batch().await.unwrap().len(), 1);
        queue.push(entry(1));
        queue.close();
        assert_eq!(queue.next_batch().await.unwrap().len(), 1);
        assert!(queue.next_batch().await.is_none());
        queue.push(entry(1));
        queue.abandon();
        assert_eq!(queue.lost(), 2);
    }
}
