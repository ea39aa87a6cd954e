//! The engine, with its subscribers and its recorder.

use std::sync::Arc;

use super::{
    recorder::{OpenedProblem, PartRecorder, Recorder},
    subscriber::Subscriber,
};
use crate::{
    engine::{Batch, Engine, Input},
    model::{Body, ProblemState, WallClock},
    sys::clock::wall_clock,
};

/// A smaller step of the wall clock against the monotonic one is noise of the reading.
const SAME_CLOCK_NS: i128 = 2_000;

/// The engine, and the consumers of its inputs and lines.
pub(super) struct Core {
    pub engine: Engine,
    pub subscribers: Vec<Subscriber>,
    pub recorder: Option<Recorder>,
    /// Where a recording may begin while the run goes on.
    pub parts: Option<PartRecorder>,
    pub clock: WallClock,
}

impl Core {
    /// The one way into the engine.
    pub fn feed(&mut self, input: Input) {
        if let Some(parts) = &mut self.parts {
            parts.keep(&input);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.input(&input);
        }
        self.engine.feed(input);
    }

    /// Judges what was fed so far, and publishes its lines.
    pub fn end_batch(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.moment_ends();
        }
        if self.engine.has_news() {
            self.read_clock();
        }
        // Queues that were read come without a line.
        self.publish(Subscriber::publish);
    }

    /// Feeds the offset of the wall clock, which ends the batch.
    pub fn read_clock(&mut self) {
        let now = wall_clock();
        if (now.offset_ns() - self.clock.offset_ns()).abs() > SAME_CLOCK_NS {
            self.clock = now;
        }
        let offset_ns = i64::try_from(self.clock.offset_ns()).unwrap_or(0);
        self.feed(Input::BatchEnds(offset_ns));
    }

    pub fn publish(&mut self, how: fn(&mut Subscriber, &Arc<Batch>)) {
        let batches = self.engine.take_lines();
        self.publish_lines(batches, how);
    }

    /// Publishes the lines of a judgement. The recording of a problem that has opened is cut. Returns whether one
    /// has opened or closed.
    pub fn publish_judgement(&mut self) -> bool {
        let batches = self.engine.take_lines();
        let mut others = false;
        // The worst one comes first.
        for line in batches.iter().flat_map(|batch| &batch.lines) {
            let Body::Problem(p) = &line.body else {
                continue;
            };
            others |= p.life.state != ProblemState::Updated;
            if p.life.state == ProblemState::Opened
                && let Some(recorder) = &mut self.recorder
            {
                recorder.problem_opened(OpenedProblem::of(p));
            }
        }
        self.publish_lines(batches, Subscriber::publish);
        others
    }

    fn publish_lines(&mut self, batches: Vec<Batch>, how: fn(&mut Subscriber, &Arc<Batch>)) {
        for batch in batches {
            let batch = Arc::new(batch);
            self.subscribers
                .iter_mut()
                .for_each(|subscriber| how(subscriber, &batch));
        }
    }
}
