//! Recordings of parts of a run, begun and ended while it goes on.

use super::{
    CountsAtStart, EndingRecorder, Prepared, RecordError, Recorder, restated::RestatedInputs,
    run_id,
};
use crate::{
    engine::{Input, RunConfig},
    model::WallClock,
    recording::{HeldFolder, SegmentHeader},
    status::{PartState, RecordedPart, StatusQueries},
    sys::clock::monotonic_ns,
};

/// What such recordings begin with, and what became of them.
pub(in crate::pipeline) struct PartRecorder {
    /// Opened with all privileges; the files are made with the remaining ones.
    folder: HeldFolder,
    /// Of the run.
    header: SegmentHeader,
    restated: RestatedInputs,
    /// The thread of the last one that has ended may still write.
    ending: Option<EndingRecorder>,
    /// Of this run, in order; the last one may go on.
    parts: Vec<RecordedPart>,
    /// Why the last one could not be begun.
    refused: Option<String>,
}

impl PartRecorder {
    /// For a run; `None`: no request may begin a recording.
    pub fn of(
        asked: Option<&mut StatusQueries>,
        config: &RunConfig,
    ) -> Result<Option<Self>, RecordError> {
        let Some(folder) = asked.and_then(|asked| asked.record_into.take()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            folder,
            header: SegmentHeader::new(run_id(), 0, serde_json::to_vec(config)?),
            restated: RestatedInputs::default(),
            ending: None,
            parts: Vec::new(),
            refused: None,
        }))
    }

    /// Keeps what a recording that begins later needs.
    pub fn keep(&mut self, input: &Input) {
        self.restated.keep(input);
    }

    /// Whether the last one is still being written, though nothing more comes.
    pub fn is_ending(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| !ending.is_over())
    }

    /// Begins a recording; `None`: it cannot be begun.
    pub fn begin(&mut self, clock: WallClock, before: CountsAtStart) -> Option<Recorder> {
        self.take_ended();
        self.refused = None;
        match self.begun(clock, before) {
            Ok(recorder) => Some(recorder),
            Err(error) => {
                self.refused = Some(error.to_string());
                None
            }
        }
    }

    fn begun(&mut self, clock: WallClock, before: CountsAtStart) -> Result<Recorder, RecordError> {
        let offset_ns = i64::try_from(clock.offset_ns()).unwrap_or(0);
        let now_ms = (i128::from(monotonic_ns()) + clock.offset_ns()) / 1_000_000;
        let (file, path) = self.folder.create(i64::try_from(now_ms).unwrap_or(0))?;
        // Not the first segment of a run: what is in progress is older than the recording. And no other continues it.
        let header = SegmentHeader {
            segment: 2 * self.parts.len() as u32 + 1,
            realtime_offset_ns: offset_ns,
            ..self.header.clone()
        };
        let mut recorder = Prepared::file(file, &header)?.begin()?;
        recorder.before = Some(before);
        for input in self.restated.inputs() {
            recorder.input(input);
        }
        recorder.input(&Input::BatchEnds(offset_ns));
        self.parts.push(RecordedPart {
            summary: recorder.summary(),
            file: path,
        });
        Ok(recorder)
    }

    /// Ends the recording: its thread writes what is left, and nobody waits for it.
    pub fn end(&mut self, recorder: Recorder) {
        self.ending = Some(recorder.end());
    }

    /// What has become of the last one. `recorder`: where it goes on.
    pub fn state(&mut self, recorder: Option<&Recorder>) -> Option<PartState> {
        self.take_ended();
        if let Some(why) = &self.refused {
            return Some(PartState::Refused(why.clone()));
        }
        let mut part = self.parts.last()?.clone();
        let going = recorder.map(Recorder::summary);
        let ending = self.ending.as_ref().map(EndingRecorder::summary);
        Some(match going.or(ending) {
            Some(summary) => {
                part.summary = summary;
                PartState::Going(part)
            }
            None => PartState::Ended(part),
        })
    }

    fn take_ended(&mut self) {
        if let Some(ending) = self.ending.take_if(|ending| ending.is_over()) {
            self.took(ending);
        }
    }

    fn took(&mut self, ending: EndingRecorder) {
        let summary = ending.wait();
        if let Some(part) = self.parts.last_mut() {
            part.summary = summary;
        }
    }

    /// All of them; waits until the last one is written.
    pub fn finish(mut self) -> Vec<RecordedPart> {
        if let Some(ending) = self.ending.take() {
            self.took(ending);
        }
        self.parts
    }
}
