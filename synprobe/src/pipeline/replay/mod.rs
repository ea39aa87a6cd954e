//! A recording in place of the kernel: the same inputs, and so the same lines.

mod addresses;
mod netns;
mod options;
mod player;
mod recording;

use std::{io, ops::ControlFlow};

pub use addresses::recorded_addresses;
pub use options::{ReplayError, ReplayOptions, Replayed};
use player::ReplayObserver;
pub use player::{Player, PlayerMoment, PlayerOutput};
pub use recording::Recording;
use recording::described;

use super::narrow::{narrow, narrowed};
use crate::{
    engine::{Engine, Input, RunConfig},
    filter::Selection,
    model::{Counted, Detail, End, Missed, RunProgress, WallClock},
    recording::{
        Damage, Item, SegmentHeader,
        inputs::{Decoded, InputDecoder},
    },
    track::Fates,
    view::{View, rfc3339},
};

/// Handshakes that end with the recording, and are judged together.
const LAST_BATCH: u32 = 65_536;
/// The same where the tables are bounded.
const SMALL_BATCH: u32 = 2048;

/// Replays a recording into a view.
///
/// # Errors
///
/// [`ReplayError`]; a reader that closed its pipe is no error.
pub fn replay(
    recording: Recording,
    options: &ReplayOptions,
    view: &mut dyn View,
) -> Result<Replayed, ReplayError> {
    replay_observed(recording, options, view, None)
}

fn replay_observed<'r>(
    recording: Recording,
    options: &'r ReplayOptions,
    view: &'r mut dyn View,
    observer: Option<&'r mut dyn ReplayObserver>,
) -> Result<Replayed, ReplayError> {
    let mut asked = options.selection.clone();
    if let Some(name) = &options.netns {
        let inode = netns::namespace(&options.file, name)?;
        asked.netns = Some([inode; 2]);
    }
    let selection = narrowed(recording.config.selection(), &asked)?;
    let mut replay = Replay {
        is_narrowed: selection != *recording.config.selection(),
        options,
        selection,
        view,
        observer,
        engine: None,
        decoder: InputDecoder::default(),
        at_ns: 0,
        is_incomplete: false,
        inputs: 0,
        last: None,
    };
    match replay.run(recording) {
        Err(ReplayError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(replay.replayed(Detail::default(), None))
        }
        replayed => replayed,
    }
}

struct Replay<'r> {
    options: &'r ReplayOptions,
    selection: Selection,
    is_narrowed: bool,
    view: &'r mut dyn View,
    observer: Option<&'r mut dyn ReplayObserver>,
    /// Begins with the first frame of a run.
    engine: Option<Engine>,
    decoder: InputDecoder,
    /// The time of the last frame.
    at_ns: u64,
    /// Inputs are missing: the kernel side's counters do not match the records.
    is_incomplete: bool,
    inputs: u64,
    /// The previous run, where there are several.
    last: Option<(End, Option<Counted>, RunProgress)>,
}

impl Replay<'_> {
    fn run(&mut self, recording: Recording) -> Result<Replayed, ReplayError> {
        let Recording {
            file,
            mut header,
            mut reader,
            mut config,
        } = recording;
        let detail = config.detail();
        while let Some(item) = reader.next_item() {
            match item {
                Item::Frame { at_ns, frame } => {
                    let decoded = self.decoder.frame(frame);
                    self.at_ns = at_ns;
                    if self.engine.is_none() {
                        self.begin(&header, &config, at_ns);
                    }
                    if let Some(Decoded::Input(input)) = &decoded
                        && self.observed(ends_run(input)).is_break()
                    {
                        return Ok(self.replayed(detail, None));
                    }
                    match decoded {
                        Some(Decoded::Input(input)) => self.input(input)?,
                        Some(Decoded::Lost(inputs)) => self.missing(inputs),
                        None => (),
                    }
                    if self.is_over() {
                        break;
                    }
                }
                Item::Gap { frames, .. } => {
                    self.decoder.gap();
                    self.missing(frames.unwrap_or(1));
                }
                Item::Segment {
                    header: next,
                    continues,
                } => {
                    self.decoder.gap();
                    if next.is_lost() || next.run_id == header.run_id {
                        if !continues {
                            self.missing(1);
                        }
                        continue;
                    }
                    self.finish()?;
                    config = described(&file, &next)?;
                    header = next;
                }
            }
        }
        if self.engine.is_none() && self.last.is_none() {
            self.begin(&header, &config, config.track.began_ns);
        }
        let _ = self.observed(true);
        self.finish()?;
        let unknown = self.decoder.unknown();
        Ok(self.replayed(detail, damage(reader.damage(), self.inputs, unknown)))
    }

    fn begin(&mut self, header: &SegmentHeader, config: &RunConfig, at_ns: u64) {
        let mut config = config.clone();
        config.start.replayed_from = self
            .options
            .file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if self.is_narrowed {
            config.start.filters = self.selection.describe();
            config.track.selection = self.selection.clone();
        }
        if let Some(most) = self.options.tables {
            config.track.tables = config.track.tables.at_most(most);
        }
        if let Some(observer) = &self.observer {
            config.window = Some(observer.window());
        }
        if header.segment > 0 {
            // The end of a longer run: handshakes in progress at its beginning are older than the replay.
            config.track.began_ns = at_ns;
        }
        let clock = WallClock::from_offset(header.realtime_offset_ns.into());
        let mut engine = Engine::new(&config, self.options.mode, clock);
        if self.options.tables.is_some() {
            engine.reads_at_once(SMALL_BATCH as usize);
        }
        self.engine = Some(engine);
    }

    fn observed(&mut self, ends: bool) -> ControlFlow<()> {
        match (&mut self.observer, &mut self.engine) {
            (Some(observer), Some(engine)) => observer.before(self.at_ns, ends, engine),
            _ => ControlFlow::Continue(()),
        }
    }

    fn input(&mut self, input: Input) -> Result<(), ReplayError> {
        let input = match self.is_narrowed {
            true => narrow(input, &self.selection),
            false => Some(input),
        };
        let (Some(input), true) = (input, self.engine.is_some()) else {
            return Ok(());
        };
        self.inputs += 1;
        // Queues that were read come without a line.
        let ends_batch = matches!(
            input,
            Input::BatchEnds(_) | Input::End { .. } | Input::PollEnds { .. }
        );
        if matches!(input, Input::PollEnds { .. }) {
            self.end_dumps()?;
        }
        if let Input::EndOpen { at_ns, .. } = input
            && self.options.tables.is_some()
        {
            return self.end_open(at_ns);
        }
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        match input {
            Input::End { at_ns, .. } if self.is_narrowed || self.is_incomplete => {
                let produced = produced(engine);
                engine.feed(Input::End { at_ns, produced });
            }
            input => engine.feed(input),
        }
        self.read_dumps()?;
        match ends_batch {
            true => self.show(),
            false => Ok(()),
        }
    }

    /// Where memory is short there is no room for the lines of all rows of a dump.
    fn read_dumps(&mut self) -> Result<(), ReplayError> {
        while let Some(engine) = &mut self.engine
            && engine.read_rows()
        {
            let offset_ns = i64::try_from(engine.clock().offset_ns()).unwrap_or(0);
            engine.feed(Input::BatchEnds(offset_ns));
            self.show()?;
        }
        Ok(())
    }

    /// A round is over. No answer came for what its dumps do not show.
    fn end_dumps(&mut self) -> Result<(), ReplayError> {
        if let (Some(engine), Some(_)) = (&mut self.engine, self.options.tables) {
            engine.feed(Input::Fates(Fates::default()));
        }
        self.read_dumps()
    }

    /// The same for what is open at the end.
    fn end_open(&mut self, at_ns: u64) -> Result<(), ReplayError> {
        let most = match self.options.tables {
            Some(_) => SMALL_BATCH,
            None => LAST_BATCH,
        };
        self.end_dumps()?;
        while let Some(engine) = &mut self.engine
            && engine.open() > 0
        {
            let offset_ns = i64::try_from(engine.clock().offset_ns()).unwrap_or(0);
            engine.feed(Input::EndOpen { at_ns, most });
            engine.feed(Input::BatchEnds(offset_ns));
            self.show()?;
        }
        Ok(())
    }

    fn show(&mut self) -> Result<(), ReplayError> {
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        for batch in engine.take_lines() {
            if let Some(queues) = &batch.queues {
                self.view.queues(queues);
            }
            for piece in batch.pieces() {
                self.view
                    .show(piece, batch.clock)
                    .and_then(|()| self.view.flush())
                    .map_err(ReplayError::Output)?;
            }
        }
        Ok(())
    }

    /// Feeds a loss for inputs that are not in the recording.
    fn missing(&mut self, frames: u64) {
        self.is_incomplete = true;
        if let Some(engine) = &mut self.engine {
            engine.feed(Input::Lost {
                at_ns: self.at_ns,
                events: frames,
                reason: "inputs that are missing from the recording".to_owned(),
                of: Missed::Any,
            });
        }
    }

    fn is_over(&self) -> bool {
        let Some(engine) = &self.engine else {
            return false;
        };
        let totals = engine.totals();
        let began_ns = engine.began_ns();
        self.options
            .count
            .is_some_and(|most| totals.handshakes >= most)
            || self.options.duration.is_some_and(|most| {
                u128::from(self.at_ns.saturating_sub(began_ns)) >= most.as_nanos()
            })
    }

    /// Ends the run, if the recording did not.
    fn finish(&mut self) -> Result<(), ReplayError> {
        let at_ns = self.at_ns;
        if self.engine.as_ref().is_some_and(|e| e.end().is_none()) {
            self.end_open(at_ns)?;
            if let Some(engine) = &mut self.engine {
                let produced = produced(engine);
                engine.feed(Input::End { at_ns, produced });
            }
            self.show()?;
        }
        if let Some(engine) = self.engine.take() {
            let end = engine.end().cloned().unwrap_or_default();
            self.last = Some((end, engine.socket_states().cloned(), engine.progress()));
        }
        Ok(())
    }

    fn replayed(&mut self, detail: Detail, damage: Option<String>) -> Replayed {
        let (end, socket_states, progress) = self.last.take().unwrap_or_default();
        Replayed {
            end,
            socket_states,
            progress,
            detail,
            damage,
            inputs: self.inputs,
        }
    }
}

fn ends_run(input: &Input) -> bool {
    matches!(input, Input::EndOpen { .. } | Input::End { .. })
}

/// Records that were due, by the inputs: the sum of `events` and `lost`.
fn produced(engine: &Engine) -> u64 {
    let totals = engine.totals();
    (totals.events + totals.lost).saturating_sub(totals.unreported)
}

/// What was read, what could not be, and up to when the recording is whole.
fn damage(damage: &Damage, read: u64, unknown: u64) -> Option<String> {
    let mut parts = Vec::new();
    if !damage.is_none() {
        parts.push(damage.to_string());
    }
    if unknown > 0 {
        parts.push(format!(
            "{unknown} inputs of a kind that this version does not know"
        ));
    }
    if parts.is_empty() {
        return None;
    }
    let until = damage.whole_until_realtime_ns.map(|ns| {
        let clock = WallClock::from_offset(ns.into());
        format!("; whole up to {}", rfc3339(clock, 0))
    });
    let until = match damage.is_none() {
        true => String::new(),
        false => until.unwrap_or_else(|| "; nothing before it is whole".to_owned()),
    };
    Some(format!(
        "the recording is damaged: {read} inputs read; {}{until}",
        parts.join(", ")
    ))
}
