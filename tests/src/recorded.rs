//! Runs that are recorded beside their output, and replays of them.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use synprobe::{
    filter::Selection,
    model::{Counted, Line, RunProgress},
    pipeline::{
        self, RecordTo, Recording, ReplayOptions, Replayed, Stop, WatchError, WatchOptions,
    },
    verdict::Mode,
    view::{JsonView, Page, PageCounts, Style, TextOptions, TextView, View, WallClock},
};
use synprobe_lab::{GroundTruth, Lab, Scenario};
use tokio::sync::oneshot;

use crate::harness::{self, Undecided};

/// A file or folder that is removed when this goes.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// A path of its own; nothing is there yet.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(env::temp_dir().join(format!("synprobe-test-{}-{number}.synrec", process::id())))
    }

    /// The path as an argument.
    pub fn text(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever it was, or nothing.
        let _ = fs::remove_dir_all(&self.0);
        let _ = fs::remove_file(&self.0);
    }
}

/// What a reader sees of one run, output by output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `watch --format json`.
    pub json: String,
    /// `watch`.
    pub text: String,
    /// `diagnose`.
    pub page: String,
}

/// Every output of the same lines.
pub struct EveryView {
    json: JsonView<Vec<u8>>,
    text: TextView<Vec<u8>>,
    page: Page,
}

impl EveryView {
    /// Nothing shown yet.
    pub fn new() -> Self {
        Self {
            json: JsonView::new(Vec::new()),
            text: TextView::new(Vec::new(), TextOptions::default()),
            page: Page::default(),
        }
    }

    fn shown(self, states: &Counted, progress: &RunProgress) -> Result<Shown> {
        let counts = PageCounts {
            at_start: progress.socket_states.as_ref(),
            at_end: states,
            in_progress: progress.in_progress,
        };
        Ok(Shown {
            page: self.page.text(&counts, Style::default()),
            json: String::from_utf8(self.json.into_inner()).context("JSON")?,
            text: String::from_utf8(self.text.into_inner()).context("text")?,
        })
    }
}

impl Default for EveryView {
    fn default() -> Self {
        Self::new()
    }
}

impl View for EveryView {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        self.json.show(lines, clock)?;
        self.text.show(lines, clock)?;
        self.page.show(lines, clock)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `traffic` under several pipelines at the same time, each recorded into a file of its own. It starts when
/// everything is attached, and its end ends the runs.
///
/// # Errors
///
/// Of the first pipeline that fails, else of the traffic. [`Undecided`] where an output was too slow.
pub fn watch<T>(
    runs: Vec<(WatchOptions, &Path)>,
    traffic: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<Shown>)> {
    let host = harness::host()?;
    thread::scope(|scope| {
        let mut watching = Vec::new();
        let mut is_up = true;
        for (mut options, file) in runs {
            options.record = Some(RecordTo::File(file.to_owned()));
            options.count_sockets = true;
            // The scenario's threads are begun by a thread that may need them.
            options.give_up_privileges = false;
            let (done, is_done) = oneshot::channel::<()>();
            let (ready, is_ready) = mpsc::channel::<()>();
            let run = thread::Builder::new()
                .name("watch".into())
                .spawn_scoped(scope, move || {
                    let stop: Stop = Box::pin(async {
                        // A dropped sender ends the run as well.
                        let _ = is_done.await;
                    });
                    let notify = Box::new(move || {
                        // Nobody listens any more when the test has failed already.
                        let _ = ready.send(());
                    });
                    pipeline::watch(host, options, EveryView::new(), stop, notify)
                })
                .context("starting the pipeline")?;
            is_up &= is_ready.recv().is_ok();
            watching.push((run, done));
        }
        let made = is_up.then(traffic);
        let (runs, done): (Vec<_>, Vec<_>) = watching.into_iter().unzip();
        drop(done);
        let mut shown = Vec::new();
        for run in runs {
            let watched = run.join().map_err(|_| anyhow!("the pipeline panicked"))?;
            let watched = match watched {
                Err(WatchError::Output(error)) => {
                    return Err(Undecided(format!("an output on a busy host: {error}")).into());
                }
                watched => watched.context("the pipeline")?,
            };
            let recorded = watched.recorded.context("a recording")?;
            ensure!(
                recorded.lost == 0 && recorded.error.is_none(),
                "recorded: {recorded:?}"
            );
            let states = watched.socket_states.context("socket states")?;
            let view = watched.view.context("every line was written")?;
            let one = view.shown(&states, &watched.progress)?;
            if one.json.contains("lines for this output: it was slower") {
                return Err(Undecided("an output was too slow".to_owned()).into());
            }
            shown.push(one);
        }
        let made = made.ok_or_else(|| anyhow!("a pipeline ended before it was ready"))??;
        Ok((made, shown))
    })
}

/// Runs a scenario to its end. An incident calls `reached` once its state is there, and ends when that returns.
///
/// # Errors
///
/// The scenario's, or that of `reached`.
pub fn run_scenario(
    scenario: &'static dyn Scenario,
    mut lab: Lab,
    reached: impl FnOnce() -> Result<()>,
) -> Result<GroundTruth> {
    if !scenario.is_incident() {
        return scenario.run(&lab, &AtomicBool::new(false));
    }
    let halt = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = mpsc::channel();
    lab.ready = Some(Arc::new(move || {
        // The receiver may have gone.
        let _ = ready.send(());
    }));
    let worker_halt = Arc::clone(&halt);
    let worker = thread::spawn(move || scenario.run(&lab, &worker_halt));
    // The lab owns the sender: an incident that fails early ends the wait.
    let reached = match is_ready.recv() {
        Ok(()) => reached(),
        Err(_) => Ok(()),
    };
    halt.store(true, Ordering::Relaxed);
    let made = worker
        .join()
        .map_err(|_| anyhow!("the scenario panicked"))?;
    reached.and(made)
}

/// Replays a file into every output.
///
/// # Errors
///
/// [`pipeline::ReplayError`].
pub fn replay(
    file: &Path,
    mode: Mode,
    selection: Selection,
    netns: Option<String>,
) -> Result<(Shown, Replayed)> {
    let recording = Recording::open(file)?;
    let options = ReplayOptions {
        file: file.to_owned(),
        selection,
        netns,
        mode,
        duration: None,
        count: None,
        tables: None,
    };
    let mut view = EveryView::new();
    let mut replayed = pipeline::replay(recording, &options, &mut view)?;
    let states = replayed.socket_states.take().unwrap_or_default();
    let mut shown = view.shown(&states, &replayed.progress)?;
    shown.json = without_name(&shown.json, file);
    Ok((shown, replayed))
}

/// The lines without the field that names the recording.
fn without_name(json: &str, file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    json.replacen(&format!(",\"replayed_from\":\"{name}\""), "", 1)
}

/// Refuses texts that differ, and says in which line first.
///
/// # Errors
///
/// The first difference.
pub fn ensure_same(what: &str, run: &str, replay: &str) -> Result<()> {
    if run == replay {
        return Ok(());
    }
    let (mut a, mut b) = (run.lines(), replay.lines());
    for number in 1.. {
        match (a.next(), b.next()) {
            (None, None) => break,
            (x, y) if x == y => (),
            (x, y) => {
                return Err(anyhow!(
                    "{what}: line {number} differs\n  run:    {}\n  replay: {}",
                    x.unwrap_or("(none)"),
                    y.unwrap_or("(none)")
                ));
            }
        }
    }
    Err(anyhow!("{what}: the ends of lines differ"))
}
