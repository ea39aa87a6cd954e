//! Batches → the collector, one after the other, each until it is taken or refused.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    client::{CollectorClient, CollectorReply},
    queue::{Queued, SendQueue},
    report::{LaneReport, LaneState},
};
use crate::sys::journal::message;

/// The pause after the first failure. It doubles with each one that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// It grows up to this.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// One kind of data on its way to a collector.
pub(super) struct Lane {
    pub client: CollectorClient,
    pub queue: Arc<SendQueue>,
    pub report: LaneReport,
    /// True once the run is over.
    pub closing: watch::Receiver<bool>,
}

/// A batch that is on its way. Its items are lost with it, unless they are settled.
struct InFlight<'a> {
    queue: &'a SendQueue,
    items: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.queue.lose(self.items);
    }
}

impl Lane {
    /// Delivers until the queue is closed and empty. `encode`: a request of a batch.
    pub async fn run(&mut self, encode: impl Fn(Vec<Queued>) -> Bytes) {
        let queue = Arc::clone(&self.queue);
        while let Some(batch) = queue.next_batch().await {
            let items = batch.iter().map(|entry| entry.items).sum();
            let batch = encode(batch);
            let in_flight = InFlight {
                queue: &queue,
                items,
            };
            if !self.deliver(&batch, in_flight).await {
                // The run is over, and the collector takes nothing.
                break;
            }
        }
        queue.abandon();
    }

    /// Whether to go on.
    async fn deliver(&mut self, batch: &Bytes, mut in_flight: InFlight<'_>) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let last = *self.closing.borrow();
            let (why, after) = match self.client.post(batch.clone()).await {
                Ok(CollectorReply::Taken { rejected, why }) => {
                    in_flight.items = rejected;
                    drop(in_flight);
                    self.note(match rejected {
                        0 => LaneState::Delivers,
                        _ => LaneState::Loses(format!("{rejected} rejected: {why}")),
                    });
                    return true;
                }
                Ok(CollectorReply::Refused(why)) => {
                    drop(in_flight);
                    self.note(LaneState::Loses(why));
                    return true;
                }
                Ok(CollectorReply::Later { why, after }) => (why, after),
                Err(error) => (error.to_string(), None),
            };
            if last {
                drop(in_flight);
                self.note(LaneState::Fails(why));
                return false;
            }
            let overflowed = self.queue.take_overflowed();
            self.note(match overflowed {
                true => LaneState::Loses(format!("{why}; the queue is full")),
                false => LaneState::Fails(why),
            });
            let wait = after.unwrap_or_else(|| jittered(pause));
            pause = (pause * 2).min(LAST_PAUSE);
            tokio::select! {
                () = tokio::time::sleep(wait) => (),
                // Once more, at once.
                _ = self.closing.wait_for(|closing| *closing) => (),
            }
        }
    }

    fn note(&mut self, state: LaneState) {
        let lost = self.queue.lost();
        if let Some((priority, line)) = self.report.note(state, lost) {
            message(priority, &format!("OTLP: {}: {line}", self.client.url()));
        }
    }
}

/// From one half of it to the whole: many hosts do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1024;
    pause / 2 + pause * (random as u32) / 2048
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_lies_between_a_half_and_the_whole() {
        for _ in 0..1000 {
            let pause = jittered(LAST_PAUSE);
            assert!((LAST_PAUSE / 2..=LAST_PAUSE).contains(&pause), "{pause:?}");
        }
    }
}
