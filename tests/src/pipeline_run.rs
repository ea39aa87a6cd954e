//! The pipeline on a thread of its own, beside the traffic it watches.

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
    verdict::Mode,
    view::{JsonView, View, WallClock},
};
use synprobe_lab::Lab;
use tokio::sync::oneshot;

use crate::{
    harness::{self, Undecided},
    schema,
};

/// A ring in which nothing of a test is lost.
pub const AMPLE_RING: u32 = 8 << 20;

/// What has been said, and all that was said once the run is over.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Every line.
    pub lines: Vec<Line>,
    /// The same as JSON, one object each.
    pub json: Vec<String>,
    /// The totals.
    pub end: End,
}

/// A run under way.
pub struct Live(Arc<Shared>);

#[derive(Default)]
struct Shared {
    said: Mutex<Vec<Line>>,
    more: Condvar,
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Vec<Line>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// What has been said so far.
    pub fn lines(&self) -> Vec<Line> {
        self.0.said().clone()
    }

    /// Waits for a line; `what` is what the test calls it if it does not come.
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

/// Keeps lines, shows them as JSON, and wakes whoever waits for one.
struct Recorder {
    json: JsonView<Vec<u8>>,
    shared: Arc<Shared>,
}

impl View for Recorder {
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

/// Options that watch what the selection says, and nothing lost.
pub fn options(selection: Selection) -> WatchOptions {
    WatchOptions {
        selection,
        mode: Mode::AtOnce,
        detail: Detail::Handshakes,
        ring_bytes: AMPLE_RING,
        max_handshakes: 100_000,
        max_peers: 32_768,
        wish: RequestedMode::default(),
        duration: None,
        count: None,
        log_level: 0,
        give_up_privileges: true,
        record: None,
        count_sockets: false,
        namespaces: Vec::new(),
    }
}

/// To load the programs without the pipeline behind them: all hooks of the host, nothing lost.
pub fn load_options<'a>(host: &'a Ready, filter: &'a KernelFilter) -> LoadOptions<'a> {
    LoadOptions {
        ring_bytes: AMPLE_RING,
        filter,
        places: host.places,
        hooks: &host.hooks,
        reasons: &host.reasons,
        exact: nothing_exact(),
        log_level: 0,
    }
}

/// The tracepoints of TCP, and nothing else.
fn nothing_exact() -> &'static Decision {
    static NOTHING: std::sync::OnceLock<Decision> = std::sync::OnceLock::new();
    NOTHING.get_or_init(Decision::default)
}

/// Options that watch both namespaces of a lab, and nothing else on the host.
pub fn options_for(lab: &Lab) -> Result<WatchOptions> {
    let selection = Selection {
        netns: Some([lab.client.inode(), lab.server.inode()]),
        ..Selection::default()
    };
    let mut options = options(selection);
    options.namespaces = vec![lab.client.netns(), lab.server.netns()];
    Ok(options)
}

/// Runs `traffic` under the pipeline: it starts when everything is attached, and its end ends the
/// run. Every line is held against the contract.
pub fn watch<T>(
    options: WatchOptions,
    traffic: impl FnOnce(&Live) -> Result<T>,
) -> Result<(T, Watched)> {
    let host = harness::host()?;
    let shared = Arc::new(Shared::default());
    let recorder = Recorder {
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
                    // A dropped sender ends the run as well.
                    let _ = is_done.await;
                });
                let tell = Box::new(move || {
                    // Nobody listens any more when the test has failed already.
                    let _ = ready.send(());
                });
                pipeline::watch(host, options, recorder, stop, tell)
            })
            .context("starting the pipeline")?;
        // When the pipeline fails before it is ready, its error is the one to tell.
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
    Ok((made, Watched { lines, json, end }))
}

impl Watched {
    /// Refuses a run that says itself that something passed it by.
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

    /// When everything was attached, CLOCK_MONOTONIC nanoseconds.
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

    /// How many handshakes of a role ended so.
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
