//! Facts of a file, on their way from the thread that reads it.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    vec,
};

use crate::join::fact::JoinFact;

/// Facts that are handed over at a time.
const BATCH: usize = 256;
/// Batches that wait.
const WAITING: usize = 8;

/// What a reader says at its end: a line about damage, if there was some.
pub(super) type ReadReport = Option<String>;

/// Both ends of the way.
pub(super) fn fact_stream() -> (FactSink, FactStream) {
    let (to, batches) = sync_channel(WAITING);
    let sink = FactSink {
        to,
        batch: Vec::with_capacity(BATCH),
    };
    let stream = FactStream {
        batches,
        batch: Vec::new().into_iter(),
    };
    (sink, stream)
}

/// Facts as they are read.
pub(super) struct FactStream {
    batches: Receiver<Vec<JoinFact>>,
    batch: vec::IntoIter<JoinFact>,
}

impl Iterator for FactStream {
    type Item = JoinFact;

    fn next(&mut self) -> Option<JoinFact> {
        loop {
            if let Some(fact) = self.batch.next() {
                return Some(fact);
            }
            self.batch = self.batches.recv().ok()?.into_iter();
        }
    }
}

/// Where a reader puts facts.
pub(super) struct FactSink {
    to: SyncSender<Vec<JoinFact>>,
    batch: Vec<JoinFact>,
}

impl FactSink {
    /// Hands a fact over; `false`: nobody wants any more.
    pub(super) fn push(&mut self, fact: JoinFact) -> bool {
        self.batch.push(fact);
        self.batch.len() < BATCH || self.flush()
    }

    pub(super) fn flush(&mut self) -> bool {
        self.to
            .send(std::mem::replace(
                &mut self.batch,
                Vec::with_capacity(BATCH),
            ))
            .is_ok()
    }
}
