//! Recordings that a run begins or ends while it goes on.

use std::time::Instant;

use super::Run;
use crate::{
    engine::Input,
    pipeline::{
        WatchError,
        recorder::{CountsAtStart, Recorder},
    },
    status::{RecordSummary, RecordedPart},
    sys::clock::wall_clock,
};

impl Run {
    /// A new segment of a rolling recording begins.
    pub(super) fn close_segment(&mut self) {
        if let Some(recorder) = &mut self.core.recorder {
            recorder.close_segment();
        }
    }

    /// Begins a recording of what comes, or ends the one that is being written.
    pub(super) fn switch_recording(&mut self) -> Result<(), WatchError> {
        if self.core.parts.is_none() {
            return Ok(());
        }
        // What came before the key belongs to what was before.
        self.drain();
        if self.core.recorder.is_some() {
            return self.end_part();
        }
        let completed = match self.core.engine.is_quiet() {
            true => self.completed()?,
            false => Vec::new(),
        };
        let clients = self.counted_clients()?;
        let before = CountsAtStart::new(completed, clients, self.probes.accept_waits()?);
        if let Some(parts) = &mut self.core.parts
            && !parts.is_ending()
        {
            self.core.recorder = parts.begin(wall_clock(), before);
            // A round shows what is in progress.
            self.polling.wake();
            self.tick = Instant::now();
        }
        Ok(())
    }

    /// Ends the recording of a part of the run, where one is being written.
    pub(super) fn end_part(&mut self) -> Result<(), WatchError> {
        if self.core.parts.is_none() || self.core.recorder.is_none() {
            return Ok(());
        }
        self.count_losses()?;
        let offset_ns = i64::try_from(self.core.clock.offset_ns()).unwrap_or(0);
        let completed = match self.core.engine.is_quiet() {
            true => self.completed()?,
            false => Vec::new(),
        };
        if let (Some(mut recorder), Some(parts)) = (self.core.recorder.take(), &mut self.core.parts)
        {
            // The engine gets them when the run ends.
            recorder.moment_ends();
            for input in &completed {
                recorder.input(input);
            }
            if self.core.engine.is_quiet() {
                recorder.input(&Input::CompletedAll);
            }
            // It holds what came up to here, also where nothing did.
            recorder.input(&Input::BatchEnds(offset_ns));
            parts.end(recorder);
        }
        Ok(())
    }

    /// Ends the recording, if there is one. And the recordings of parts.
    pub fn finish_recording(&mut self) -> (Option<RecordSummary>, Vec<RecordedPart>) {
        let recorder = self.core.recorder.take();
        match self.core.parts.take() {
            None => (recorder.map(Recorder::finish), Vec::new()),
            Some(mut parts) => {
                if let Some(recorder) = recorder {
                    // The run has failed.
                    parts.end(recorder);
                }
                (None, parts.finish())
            }
        }
    }
}
