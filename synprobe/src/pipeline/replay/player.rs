//! A recording that is played: the state of the recorded run at any moment of it.

use std::{
    ops::ControlFlow,
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    thread,
    time::Duration,
};

use super::{Recording, ReplayError, ReplayOptions, damage, replay_observed};
use crate::{
    engine::{Engine, Input},
    recording::{Item, inputs::InputDecoder},
    status::RunStatus,
    view::View,
};

/// How often the problems of the window are judged, nanoseconds of the recorded host: as in a run.
const JUDGE_NS: u64 = 1_000_000_000;

/// Looks at the engine while it is fed.
pub(super) trait ReplayObserver {
    /// Over which problems are judged.
    fn window(&self) -> Duration;

    /// Before an input of that time. `ends`: the run ends with it. `Break` ends the replay.
    fn before(&mut self, at_ns: u64, ends: bool, engine: &mut Engine) -> ControlFlow<()>;
}

/// The state at one moment.
#[derive(Debug)]
pub struct PlayerMoment {
    /// The state.
    pub status: RunStatus,
    /// How far it is from the first input, microseconds.
    pub at_us: u64,
    /// Nothing follows.
    pub is_last: bool,
}

/// Where the parts of a recording are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    first_ns: u64,
    last_ns: u64,
    runs: u32,
}

/// Makes the output that takes the lines of a replay. One that goes back begins anew, with another output.
pub type PlayerOutput = Box<dyn Fn() -> Box<dyn View + Send> + Send>;

/// See the module. A thread feeds the engine, and stops where it was told to.
pub struct Player {
    options: ReplayOptions,
    window: Duration,
    most_open: usize,
    extent: Extent,
    /// What could not be read, in one line.
    pub damage: Option<String>,
    output: PlayerOutput,
    targets: Sender<u64>,
    moments: Receiver<PlayerMoment>,
    reached_ns: u64,
}

impl Player {
    /// Opens a recording, and reads it once: how long it is, and what cannot be read.
    ///
    /// # Errors
    ///
    /// [`ReplayError`].
    pub fn open(
        options: ReplayOptions,
        window: Duration,
        most_open: usize,
        output: PlayerOutput,
    ) -> Result<Self, ReplayError> {
        let (extent, damage) = scan(Recording::open(&options.file)?);
        let (targets, moments) = begin(&options, window, most_open, extent.runs, output())?;
        Ok(Self {
            output,
            options,
            window,
            most_open,
            extent,
            damage,
            targets,
            moments,
            reached_ns: 0,
        })
    }

    /// From the first input to the last, microseconds.
    pub fn length_us(&self) -> u64 {
        let length_ns = self.extent.last_ns.saturating_sub(self.extent.first_ns);
        length_ns.div_ceil(1000)
    }

    /// Asks for the state that long after the first input. [`Self::poll`] has it when it is there. A moment that
    /// is past begins the replay anew.
    ///
    /// # Errors
    ///
    /// The recording cannot be read any more.
    pub fn ask(&mut self, at_us: u64) -> Result<(), ReplayError> {
        let target_ns = self.extent.first_ns + at_us * 1000;
        if target_ns < self.reached_ns {
            let runs = self.extent.runs;
            let output = (self.output)();
            (self.targets, self.moments) =
                begin(&self.options, self.window, self.most_open, runs, output)?;
        }
        self.reached_ns = target_ns;
        // A thread that has ended answers nothing, as poll() shows.
        let _ = self.targets.send(target_ns);
        Ok(())
    }

    /// The state that was asked for, if it is there by now; `Break`: there will be none.
    pub fn poll(&self) -> ControlFlow<(), Option<PlayerMoment>> {
        match self.moments.try_recv() {
            Ok(moment) => ControlFlow::Continue(Some(self.placed(moment))),
            Err(TryRecvError::Empty) => ControlFlow::Continue(None),
            Err(TryRecvError::Disconnected) => ControlFlow::Break(()),
        }
    }

    /// Waits for the state that was asked for; `None`: there will be none.
    pub fn wait(&self) -> Option<PlayerMoment> {
        self.moments.recv().ok().map(|m| self.placed(m))
    }

    fn placed(&self, mut moment: PlayerMoment) -> PlayerMoment {
        let at_ns = moment.status.at_ns;
        // As the length is: the last moment is at its end.
        moment.at_us = at_ns.saturating_sub(self.extent.first_ns).div_ceil(1000);
        moment
    }
}

fn scan(recording: Recording) -> (Extent, Option<String>) {
    let Recording {
        header, mut reader, ..
    } = recording;
    let mut extent = Extent {
        runs: 1,
        ..Extent::default()
    };
    let (mut run, mut frames) = (header.run_id, 0);
    let mut decoder = InputDecoder::default();
    while let Some(item) = reader.next_item() {
        match item {
            Item::Frame { at_ns, frame } => {
                let _ = decoder.frame(frame);
                if frames == 0 {
                    extent.first_ns = at_ns;
                }
                frames += 1;
                extent.last_ns = extent.last_ns.max(at_ns);
            }
            Item::Gap { .. } => decoder.gap(),
            Item::Segment { header: next, .. } => {
                decoder.gap();
                if !next.is_lost() && next.run_id != run {
                    extent.runs += 1;
                    run = next.run_id;
                }
            }
        }
    }
    let damage = damage(reader.damage(), frames, decoder.unknown());
    (extent, damage)
}

fn begin(
    options: &ReplayOptions,
    window: Duration,
    most_open: usize,
    runs: u32,
    mut output: Box<dyn View + Send>,
) -> Result<(Sender<u64>, Receiver<PlayerMoment>), ReplayError> {
    let recording = Recording::open(&options.file)?;
    let options = options.clone();
    let (targets, asked) = mpsc::channel();
    let (answers, moments) = mpsc::channel();
    let mut feeding = Feeding {
        window,
        most_open,
        runs_left: runs,
        asked,
        answers,
        target_ns: None,
        judged_ns: 0,
        has_ended: false,
    };
    let run = move || {
        // What it cannot replay, its end shows: poll() has nothing more.
        let _ = replay_observed(recording, &options, &mut output, Some(&mut feeding));
    };
    let spawned = thread::Builder::new().name("replay".into()).spawn(run);
    spawned.map_err(ReplayError::Thread)?;
    Ok((targets, moments))
}

/// The thread's side.
struct Feeding {
    window: Duration,
    most_open: usize,
    /// Runs that have not ended.
    runs_left: u32,
    asked: Receiver<u64>,
    answers: Sender<PlayerMoment>,
    /// The moment that is asked for.
    target_ns: Option<u64>,
    /// When the problems were judged last.
    judged_ns: u64,
    /// The run has ended; its last inputs come.
    has_ended: bool,
}

impl Feeding {
    fn judge(&mut self, at_ns: u64, engine: &mut Engine) {
        self.judged_ns = at_ns;
        engine.feed(Input::JudgeProblems {
            at_ns,
            counted_clients: None,
        });
    }
}

impl ReplayObserver for Feeding {
    fn window(&self) -> Duration {
        self.window
    }

    fn before(&mut self, at_ns: u64, ends: bool, engine: &mut Engine) -> ControlFlow<()> {
        if self.judged_ns == 0 {
            self.judged_ns = at_ns;
        }
        if !ends {
            self.has_ended = false;
        } else if self.has_ended {
            return ControlFlow::Continue(());
        }
        let is_last = ends && self.runs_left <= 1;
        loop {
            let target_ns = match self.target_ns.take() {
                Some(target_ns) => target_ns,
                None => match self.asked.recv() {
                    Ok(target_ns) => target_ns,
                    Err(_) => return ControlFlow::Break(()),
                },
            };
            let until_ns = target_ns.min(at_ns);
            // Between two runs hours may pass.
            let longest_ns = 2 * u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX / 2);
            self.judged_ns = self.judged_ns.max(until_ns.saturating_sub(longest_ns));
            while self.judged_ns + JUDGE_NS <= until_ns {
                self.judge(self.judged_ns + JUDGE_NS, engine);
            }
            if is_last && target_ns >= at_ns && self.judged_ns < at_ns {
                self.judge(at_ns, engine);
            }
            if target_ns >= at_ns && !is_last {
                self.target_ns = Some(target_ns);
                break;
            }
            let moment = PlayerMoment {
                at_us: 0,
                is_last: is_last && target_ns >= at_ns,
                status: RunStatus {
                    snapshot: engine.snapshot(self.most_open),
                    at_ns: until_ns,
                    clock: engine.clock(),
                    lines_lost: 0,
                    not_recorded: None,
                    judged: None,
                    part: None,
                },
            };
            if self.answers.send(moment).is_err() {
                return ControlFlow::Break(());
            }
        }
        if ends {
            self.has_ended = true;
            self.runs_left = self.runs_left.saturating_sub(1);
            self.judged_ns = 0;
        }
        ControlFlow::Continue(())
    }
}
