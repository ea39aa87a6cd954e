//! Runs the pipeline on a thread, in parallel to the traffic that it watches.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use synprobe::{
    filter::{Detail, KernelFilter, Selection},
    model::{Body, End, Handshake, Line, Lost, Outcome, Retransmit, Role, State},
    pipeline::{self, Stop, WatchOptions},
    preflight::Ready,
    probe::{
        LoadOptions,
        half_open_source::{Decision, RequestedMode},
    },
    util::table_bounds::TableBounds,
    verdict::Mode,
    view::{JsonView, View, WallClock},
};
use synprobe_lab::Lab;
use tokio::sync::oneshot;

use crate::{
    harness::{self, Undecided},
    schema,
};

/// A ring large enough that no test loses records.
pub const AMPLE_RING: u32 = 8 << 20;

/// The results of a run.
#[derive(Clone, Debug)]
pub struct WatchedRun {
    /// Every line.
    pub lines: Vec<Line>,
    /// The same lines as JSON objects.
    pub json: Vec<String>,
    /// The totals.
    pub end: End,
}

/// A running pipeline.
pub struct Live(Arc<SharedLines>);

#[derive(Default)]
struct SharedLines {
    said: Mutex<Vec<Line>>,
    more: Condvar,
}

impl SharedLines {
    fn said(&self) -> MutexGuard<'_, Vec<Line>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// The lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.0.said().clone()
    }

    /// Waits for a line. `what` names it in the error.
    pub fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        mut wanted: impl FnMut(&Line) -> bool,
    ) -> Result<Line> {
        let until = Instant::now() + patience;
        let mut said = self.0.said();
        let mut looked_at = 0;
        loop {
            if let Some(found) = said.iter().skip(looked_at).find(|line| wanted(line)) {
                return Ok(found.clone());
            }
            looked_at = said.len();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last: Vec<_> = said.iter().rev().take(8).collect();
                bail!(
                    "{what}: no such line within {patience:?}; the last ones, latest first: {last:#?}"
                );
            }
            said = self
                .0
                .more
                .wait_timeout(said, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Collects lines, formats them as JSON, and wakes waiting threads.
struct JsonCollector {
    json: JsonView<Vec<u8>>,
    shared: Arc<SharedLines>,
}

impl View for JsonCollector {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        self.json.show(lines, clock)?;
        self.shared.said().extend_from_slice(lines);
        self.shared.more.notify_all();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Options for a selection, with a ring that loses nothing.
pub fn options(selection: Selection) -> WatchOptions {
    WatchOptions {
        selection,
        mode: Mode::AtOnce,
        detail: Detail::Handshakes,
        ring_bytes: AMPLE_RING,
        tables: TableBounds::default(),
        requested_mode: RequestedMode::default(),
        duration: None,
        count: None,
        log_level: 0,
        give_up_privileges: true,
        connects: false,
        window: None,
        record: None,
        enters_dropping: false,
        count_sockets: false,
        namespaces: Vec::new(),
    }
}

/// Options to load the programs without the pipeline: all hooks of the host, a ring that loses nothing.
pub fn load_options<'a>(host: &'a Ready, filter: &'a KernelFilter) -> LoadOptions<'a> {
    LoadOptions {
        ring_bytes: AMPLE_RING,
        filter,
        places: host.places,
        hooks: &host.hooks,
        reasons: &host.reasons,
        exact: no_exact_mode(),
        log_level: 0,
    }
}

/// Only the tracepoints of TCP, without the exact mode.
fn no_exact_mode() -> &'static Decision {
    static NOTHING: std::sync::OnceLock<Decision> = std::sync::OnceLock::new();
    NOTHING.get_or_init(Decision::default)
}

/// Options that watch only the two namespaces of a lab.
pub fn options_for(lab: &Lab) -> Result<WatchOptions> {
    let selection = Selection {
        netns: Some([lab.client.inode(), lab.server.inode()]),
        ..Selection::default()
    };
    let mut options = options(selection);
    options.namespaces = vec![lab.client.netns(), lab.server.netns()];
    Ok(options)
}

/// Runs `traffic` under the pipeline. The traffic starts when everything is attached, and its end stops the
/// run. Every line is checked against the contract.
pub fn watch<T>(
    options: WatchOptions,
    traffic: impl FnOnce(&Live) -> Result<T>,
) -> Result<(T, WatchedRun)> {
    let host = harness::host()?;
    let shared = Arc::new(SharedLines::default());
    let recorder = JsonCollector {
        json: JsonView::new(Vec::new()),
        shared: Arc::clone(&shared),
    };
    let (done, is_done) = oneshot::channel::<()>();
    let (ready, is_ready) = mpsc::channel::<()>();
    let (made, watched) = thread::scope(|scope| {
        let run = thread::Builder::new()
            .name("watch".into())
            .spawn_scoped(scope, move || {
                let stop: Stop = Box::pin(async {
                    // A dropped sender also ends the run.
                    let _ = is_done.await;
                });
                let on_ready = Box::new(move || {
                    // The receiver is gone if the test has failed.
                    let _ = ready.send(());
                });
                pipeline::watch(host, options, recorder, stop, on_ready)
            })
            .context("starting the pipeline")?;
        // If the pipeline fails before it is ready, report its error.
        let made = is_ready
            .recv()
            .is_ok()
            .then(|| traffic(&Live(Arc::clone(&shared))));
        drop(done);
        let watched = run.join().map_err(|_| anyhow!("the pipeline panicked"))?;
        anyhow::Ok((made, watched.context("the pipeline")?))
    })?;
    let made = made.ok_or_else(|| anyhow!("the pipeline ended before it was ready"))??;
    let end = watched.end;
    let recorder = watched.view.context("every line was written")?;
    let json = String::from_utf8(recorder.json.into_inner()).context("the lines are UTF-8")?;
    let json: Vec<String> = json.lines().map(str::to_owned).collect();
    schema::check(json.iter().map(String::as_str))?;
    let lines = shared.said().clone();
    Ok((made, WatchedRun { lines, json, end }))
}

impl WatchedRun {
    /// Rejects a run that reports lost records.
    ///
    /// # Errors
    ///
    /// [`Undecided`].
    pub fn complete(self) -> Result<Self> {
        match self.end.lost {
            0 => Ok(self),
            lost => Err(Undecided(format!(
                "{lost} records lost: {:?}",
                self.lost().map(|l| &l.reason).collect::<Vec<_>>()
            ))
            .into()),
        }
    }

    /// Time when everything was attached, CLOCK_MONOTONIC nanoseconds.
    pub fn began_ns(&self) -> u64 {
        self.lines.first().map_or(0, |line| line.mono_ns)
    }

    /// Every `handshake` line.
    pub fn handshakes(&self) -> impl Iterator<Item = (u64, &Handshake)> {
        self.lines.iter().filter_map(|line| match &line.body {
            Body::Handshake(handshake) => Some((line.mono_ns, &**handshake)),
            _ => None,
        })
    }

    /// Number of handshakes of a role with an outcome.
    pub fn count(&self, role: Role, outcome: Outcome) -> u64 {
        let such = self
            .handshakes()
            .filter(|(_, h)| h.connection.role == role && h.outcome == outcome);
        such.count() as u64
    }

    /// Every `state` line.
    pub fn states(&self) -> impl Iterator<Item = (u64, &State)> {
        self.lines.iter().filter_map(|line| match &line.body {
            Body::State(state) => Some((line.mono_ns, state)),
            _ => None,
        })
    }

    /// Every `retransmit` line.
    pub fn retransmits(&self) -> impl Iterator<Item = (u64, &Retransmit)> {
        self.lines.iter().filter_map(|line| match &line.body {
            Body::Retransmit(retransmit) => Some((line.mono_ns, retransmit)),
            _ => None,
        })
    }

    /// Every `lost` line.
    pub fn lost(&self) -> impl Iterator<Item = &Lost> {
        self.lines.iter().filter_map(|line| match &line.body {
            Body::Lost(lost) => Some(lost),
            _ => None,
        })
    }
}
