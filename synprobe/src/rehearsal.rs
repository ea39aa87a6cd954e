//! `synprobe lab`: a scenario of the [`lab`](crate::lab), watched by the same pipeline as `watch`, and
//! what was made held against what was seen.

mod comparison;
mod matrix;

use std::{
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::oneshot;

use self::comparison::{Comparison, Told};

use crate::{
    filter::{Detail, Selection},
    lab::{Lab, LabCounters, Made, Scenario, Side},
    model::{Body, End, Line, Missed, RetransmitKind, Role},
    pipeline::{self, OnReady, Stop, WatchError, WatchOptions},
    preflight::Ready,
    probe::exact::Wish,
    verdict::Mode,
    view::{View, WallClock},
};

pub use matrix::{Cell, HEALTHY, INSUFFICIENT, Matrix, NOTHING, Said};

/// What a rehearsal gave.
pub struct Rehearsed {
    /// What was made.
    pub made: Made,
    /// How far the kernel's own counters moved meanwhile.
    pub counters: LabCounters,
    /// Every line that was said.
    pub lines: Vec<Line>,
    /// The totals.
    pub end: End,
    /// Inodes of the client's and the server's namespace.
    pub namespaces: [u32; 2],
    /// The run began in the middle of it ([`Scenario::is_riddle`]): totals of the two are no equals.
    pub riddle: bool,
}

/// How the pipeline is set up for it.
pub struct Setup {
    /// Size of the ring, bytes.
    pub ring_bytes: u32,
    /// Bound of the table.
    pub max_handshakes: usize,
    /// Bound of the table of peers that have shown life.
    pub max_peers: usize,
    /// Level of the kernel side's own log.
    pub log_level: u8,
    /// How much of a handshake comes out of the kernel.
    pub detail: Detail,
    /// When handshakes are judged.
    pub mode: Mode,
    /// What is to tell of a half-open's end.
    pub wish: Wish,
}

/// How long a riddle is looked at.
const LOOK: Duration = Duration::from_secs(12);

/// What a scenario made, the counters it began with, and those it ended with.
type Worked = (Result<Made>, Result<LabCounters>);

/// Runs a scenario under the pipeline. A riddle is looked at once its state stands, as by somebody
/// who is called when the trouble has begun.
///
/// # Errors
///
/// [`WatchError`] inside when the pipeline failed, anything else when the scenario did.
pub fn rehearse(
    host: &Ready,
    scenario: &'static dyn Scenario,
    lab: Lab,
    setup: &Setup,
    view: &mut dyn View,
    interrupted: Stop,
) -> Result<Rehearsed> {
    let namespaces = [lab.client.inode(), lab.server.inode()];
    let before = lab.counters()?;
    let riddle = scenario.is_riddle();
    let options = WatchOptions {
        selection: Selection {
            netns: Some(namespaces),
            ..Selection::default()
        },
        mode: setup.mode,
        wish: setup.wish,
        detail: setup.detail,
        ring_bytes: setup.ring_bytes,
        max_handshakes: setup.max_handshakes,
        max_peers: setup.max_peers,
        duration: riddle.then_some(LOOK),
        count: None,
        log_level: setup.log_level,
        // The scenario needs them, and its threads are begun by the pipeline's.
        give_up_privileges: false,
        namespaces: vec![lab.client.netns(), lab.server.netns()],
    };
    let mut recorder = Recorder {
        view,
        lines: Vec::new(),
    };
    let watched =
        |stop: Stop, ready: OnReady| pipeline::watch(host, options, &mut recorder, stop, ready);
    let (end, (made, after)) = match riddle {
        true => from_the_middle(scenario, lab, interrupted, watched)?,
        false => from_the_beginning(scenario, lab, interrupted, watched)?,
    };
    let made = made.with_context(|| format!("scenario {}", scenario.name()))?;
    Ok(Rehearsed {
        made,
        counters: after?.since(&before),
        lines: recorder.lines,
        end,
        namespaces,
        riddle,
    })
}

/// The pipeline first: it ends with the scenario.
fn from_the_beginning(
    scenario: &'static dyn Scenario,
    lab: Lab,
    interrupted: Stop,
    watch: impl FnOnce(Stop, OnReady) -> Result<End, WatchError>,
) -> Result<(End, Worked)> {
    let halt = Arc::new(AtomicBool::new(false));
    let (done, is_done) = oneshot::channel::<()>();
    let result = Arc::new(Mutex::new(None));
    let (worker_halt, worker_result) = (Arc::clone(&halt), Arc::clone(&result));
    let ready = Box::new(move || {
        thread::spawn(move || {
            let worked = work(scenario, &lab, &worker_halt);
            *worker_result.lock().unwrap_or_else(PoisonError::into_inner) = Some(worked);
            // The pipeline holds both namespaces itself, for its last look at them.
            let _ = done.send(());
        });
    });
    let stop: Stop = Box::pin(async move {
        let mut is_done = is_done;
        tokio::select! {
            _ = &mut is_done => return,
            () = interrupted => halt.store(true, Ordering::Relaxed),
        }
        let _ = is_done.await;
    });
    let end = watch(stop, ready)?;
    let worked = result
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        // Nothing else ends the pipeline before it.
        .ok_or_else(|| WatchError::Output(io::ErrorKind::BrokenPipe.into()))?;
    Ok((end, worked))
}

/// The riddle first: it ends with the pipeline.
fn from_the_middle(
    scenario: &'static dyn Scenario,
    mut lab: Lab,
    interrupted: Stop,
    watch: impl FnOnce(Stop, OnReady) -> Result<End, WatchError>,
) -> Result<(End, Worked)> {
    let halt = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = mpsc::channel();
    lab.ready = Some(Arc::new(move || {
        // Whoever waited may have gone.
        let _ = ready.send(());
    }));
    let worker_halt = Arc::clone(&halt);
    let worker = thread::spawn(move || work(scenario, &lab, &worker_halt));
    // The sender goes with the lab: a riddle that fails before its state stands is no wait.
    let end = is_ready
        .recv()
        .is_ok()
        .then(|| watch(interrupted, Box::new(|| ())));
    halt.store(true, Ordering::Relaxed);
    let worked = worker
        .join()
        .map_err(|_| anyhow!("scenario {} panicked", scenario.name()))?;
    match end {
        Some(end) => Ok((end?, worked)),
        None => {
            worked
                .0
                .with_context(|| format!("scenario {}", scenario.name()))?;
            bail!("scenario {} ended before its state stood", scenario.name())
        }
    }
}

fn work(scenario: &dyn Scenario, lab: &Lab, halt: &AtomicBool) -> Worked {
    let made = scenario.run(lab, halt);
    (made, lab.counters())
}

/// Shows lines and keeps them.
struct Recorder<'v> {
    view: &'v mut dyn View,
    lines: Vec<Line>,
}

impl View for Recorder<'_> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        self.lines.extend_from_slice(lines);
        self.view.show(lines, clock)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.view.flush()
    }
}

impl Rehearsed {
    /// Handshakes of a role that ended so.
    pub fn handshakes(&self, role: Role, outcome: crate::model::Outcome) -> u64 {
        let matches = |line: &&Line| match &line.body {
            Body::Handshake(h) => h.connection.role == role && h.outcome == outcome,
            _ => false,
        };
        self.lines.iter().filter(matches).count() as u64
    }

    /// Segments that one side sent again, of one kind; those that could not be sent are left out.
    pub fn retransmits(&self, side: Side, kind: RetransmitKind) -> u64 {
        let netns = self.namespaces[usize::from(side == Side::Server)];
        let segments = |line: &Line| match &line.body {
            Body::Retransmit(r) if r.connection.netns == netns && r.kind == kind && !r.failed => {
                u64::from(r.segs)
            }
            _ => 0,
        };
        self.lines.iter().map(segments).sum()
    }

    /// What was told as lost of one side and kind.
    fn told_as_lost(&self, side: Side, of: impl Fn(u32) -> Missed) -> u64 {
        let of = of(self.namespaces[usize::from(side == Side::Server)]);
        let told = |line: &Line| match &line.body {
            Body::Lost(lost) if lost.of == of => lost.events,
            _ => 0,
        };
        self.lines.iter().map(told).sum()
    }

    fn comparisons(&self) -> Vec<Comparison> {
        let mut all = Vec::new();
        if !self.riddle {
            self.compare_totals(&mut all);
        }
        self.compare_counters(&mut all);
        let produced = self.end.produced;
        all.push(Comparison {
            what: "kernel records, received and lost".to_owned(),
            made: produced..=produced,
            seen: self.end.events + self.end.lost,
            told_as_lost: Told::Nothing,
            by: "synprobe",
        });
        all
    }

    /// What synprobe saw.
    fn compare_totals(&self, comparisons: &mut Vec<Comparison>) {
        for role in [Role::Client, Role::Server] {
            for outcome in crate::model::Outcome::ALL {
                let made = self.made.count(role, outcome);
                let seen = self.handshakes(role, outcome);
                if made != (0..=0) || seen > 0 {
                    let what = format!("{} handshakes {}", role.name(), outcome.name());
                    comparisons.push(Comparison {
                        what,
                        made,
                        seen,
                        told_as_lost: Told::Nothing,
                        by: "synprobe",
                    });
                }
            }
        }
        for expected in &self.made.retransmits {
            if let Some(kind) = RetransmitKind::ALL
                .into_iter()
                .find(|k| k.name() == expected.kind)
            {
                let seen = self.retransmits(expected.side, kind);
                let what = format!("{} {} retransmissions", side(expected.side), expected.kind);
                comparisons.push(Comparison {
                    what,
                    made: expected.count.clone(),
                    seen,
                    told_as_lost: match kind {
                        RetransmitKind::Syn | RetransmitKind::Synack => {
                            Told::These(self.told_as_lost(expected.side, Missed::Handshakes))
                        }
                        _ => Told::Among(self.told_as_lost(expected.side, Missed::Data)),
                    },
                    by: "synprobe",
                });
            }
        }
        for which in [Side::Client, Side::Server] {
            let again = |kind| self.retransmits(which, kind);
            let handshakes = again(RetransmitKind::Syn) + again(RetransmitKind::Synack);
            let all: u64 = RetransmitKind::ALL.into_iter().map(again).sum();
            let missed = self.told_as_lost(which, Missed::Handshakes);
            let missed_all = missed + self.told_as_lost(which, Missed::Data);
            for (what, name, seen, missed) in [
                ("SYNs and SYN-ACKs", "TCPSynRetrans", handshakes, missed),
                ("segments", "RetransSegs", all, missed_all),
            ] {
                // Those that could not be sent are in both counters; only SYNs are refused so in the lab.
                let counters = self.side(which);
                let counted = counters
                    .get(name)
                    .saturating_sub(counters.get("TCPRetransFail"));
                if seen + counted > 0 {
                    comparisons.push(Comparison {
                        what: format!("{} {what} again, by {name}", side(which)),
                        made: counted..=counted,
                        seen,
                        told_as_lost: Told::These(missed),
                        by: "synprobe",
                    });
                }
            }
        }
    }

    /// What the kernel counted.
    fn compare_counters(&self, all: &mut Vec<Comparison>) {
        for expected in &self.made.counters {
            let of_side = self.side(expected.side);
            if of_side.has(expected.name) {
                let what = format!("{} {}", side(expected.side), expected.name);
                let seen = of_side.get(expected.name);
                all.push(Comparison {
                    what,
                    made: expected.moved.clone(),
                    seen,
                    told_as_lost: Told::Nothing,
                    by: "the kernel",
                });
            }
        }
    }

    fn side(&self, side: Side) -> &crate::lab::Counters {
        match side {
            Side::Client => &self.counters.client,
            Side::Server => &self.counters.server,
        }
    }

    /// What was made, what was seen, how the two compare; and whether they agree.
    pub fn report(&self) -> (String, bool) {
        let mut text = String::from("\n");
        for fault in &self.made.faults {
            let count = &fault.count;
            let _ = writeln!(
                text,
                "lost on purpose: {} of {} {}",
                count.dropped, count.seen, fault.what
            );
        }
        if self.riddle {
            text.push_str(
                "note: the run began in the middle: handshakes and retransmissions are not compared\n",
            );
        }
        for note in &self.made.notes {
            let _ = writeln!(text, "note: {note}");
        }
        if self.made.interrupted {
            text.push_str("interrupted: what was made is not complete, nothing is compared\n");
            return (text, true);
        }
        let comparisons = self.comparisons();
        let width = comparisons.iter().map(|c| c.what.len()).max().unwrap_or(0);
        let mut differences = 0;
        for c in &comparisons {
            let made = match (c.made.start(), c.made.end()) {
                (a, b) if a == b => a.to_string(),
                (a, b) => format!("{a} to {b}"),
            };
            differences += usize::from(!c.agrees());
            let _ = writeln!(
                text,
                "{:<width$}  made {made:>8}  seen {:>6} by {:<10}  {}",
                c.what,
                c.seen,
                c.by,
                c.mark()
            );
        }
        let _ = match differences {
            0 => writeln!(text, "as made: {} comparisons agree", comparisons.len()),
            n => writeln!(
                text,
                "NOT as made: {n} of {} comparisons differ",
                comparisons.len()
            ),
        };
        (text, differences == 0)
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

/// Whether the reader of the output has gone, which is no failure.
pub fn reader_gone(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<WatchError>(),
        Some(WatchError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe
    )
}

/// Whether an error is the host's and not the scenario's.
pub fn host_error(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<WatchError>(),
        Some(WatchError::Host(_))
    )
}
