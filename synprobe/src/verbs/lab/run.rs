//! A scenario of the [`synprobe_lab`], watched by the same pipeline as `watch`.

use std::{
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
use synprobe_lab::{GroundTruth, Lab, LabCounters, LabRun, Scenario};
use tokio::sync::oneshot;

use crate::{
    filter::Selection,
    model::Line,
    pipeline::{self, OnReady, Setup, Stop, WatchError, WatchOptions},
    preflight::Ready,
    view::{View, WallClock},
};

/// How long an incident is watched.
const LOOK: Duration = Duration::from_secs(12);

/// What a scenario made, and the counters at its end.
type Worked = (Result<GroundTruth>, Result<LabCounters>);

/// Runs a scenario under the pipeline. The watch of an incident starts once its state is reached, as when
/// an engineer is called to a problem that has begun.
///
/// # Errors
///
/// A [`WatchError`] inside if the pipeline failed, another error if the scenario did.
pub fn run<V: View + Send + 'static>(
    host: &Ready,
    scenario: &'static dyn Scenario,
    lab: Lab,
    setup: &Setup,
    view: V,
    interrupted: Stop,
) -> Result<(LabRun, V)> {
    let namespaces = [lab.client.inode(), lab.server.inode()];
    let before = lab.counters()?;
    let incident = scenario.is_incident();
    let options = WatchOptions {
        selection: Selection {
            netns: Some(namespaces),
            ..Selection::default()
        },
        mode: setup.mode,
        requested_mode: setup.requested_mode,
        detail: setup.detail,
        ring_bytes: setup.ring_bytes,
        tables: setup.tables,
        duration: incident.then_some(LOOK),
        count: None,
        log_level: setup.log_level,
        // The scenario needs them: its threads are started by the pipeline's thread.
        give_up_privileges: false,
        connects: false,
        window: None,
        record: None,
        enters_dropping: false,
        count_sockets: false,
        namespaces: vec![lab.client.netns(), lab.server.netns()],
    };
    let keep = KeepLines {
        view,
        lines: Vec::new(),
    };
    let watched = |stop: Stop, ready: OnReady| pipeline::watch(host, options, keep, stop, ready);
    let (watched, (truth, after)) = match incident {
        true => from_the_middle(scenario, lab, interrupted, watched)?,
        false => from_the_beginning(scenario, lab, interrupted, watched)?,
    };
    let truth = truth.with_context(|| format!("scenario {}", scenario.name()))?;
    let keep = watched
        .view
        .ok_or_else(|| WatchError::Output(io::ErrorKind::TimedOut.into()))?;
    let run = LabRun {
        truth,
        counters: after?.since(&before),
        lines: keep.lines,
        end: watched.end,
        namespaces,
        incident,
    };
    Ok((run, keep.view))
}

/// Starts the pipeline, then the scenario. The pipeline ends with the scenario.
fn from_the_beginning<W>(
    scenario: &'static dyn Scenario,
    lab: Lab,
    interrupted: Stop,
    watch: impl FnOnce(Stop, OnReady) -> Result<W, WatchError>,
) -> Result<(W, Worked)> {
    let halt = Arc::new(AtomicBool::new(false));
    let (done, is_done) = oneshot::channel::<()>();
    let result = Arc::new(Mutex::new(None));
    let (worker_halt, worker_result) = (Arc::clone(&halt), Arc::clone(&result));
    let ready = Box::new(move || {
        thread::spawn(move || {
            let worked = work(scenario, &lab, &worker_halt);
            *worker_result.lock().unwrap_or_else(PoisonError::into_inner) = Some(worked);
            // The pipeline has its own handles of both namespaces, for its last dump.
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
        // Only a reader that has closed the pipe ends the pipeline earlier.
        .ok_or_else(|| WatchError::Output(io::ErrorKind::BrokenPipe.into()))?;
    Ok((end, worked))
}

/// Starts the incident, then the pipeline. The incident ends with the pipeline.
fn from_the_middle<W>(
    scenario: &'static dyn Scenario,
    mut lab: Lab,
    interrupted: Stop,
    watch: impl FnOnce(Stop, OnReady) -> Result<W, WatchError>,
) -> Result<(W, Worked)> {
    let halt = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = mpsc::channel();
    lab.ready = Some(Arc::new(move || {
        // The receiver may have gone.
        let _ = ready.send(());
    }));
    let worker_halt = Arc::clone(&halt);
    let worker = thread::spawn(move || work(scenario, &lab, &worker_halt));
    // The lab owns the sender: an incident that fails early ends the wait.
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
            bail!(
                "scenario {} ended before it reached its state",
                scenario.name()
            )
        }
    }
}

fn work(scenario: &dyn Scenario, lab: &Lab, halt: &AtomicBool) -> Worked {
    let truth = scenario.run(lab, halt);
    (truth, lab.counters())
}

/// Passes lines on to a view, and keeps them.
struct KeepLines<V> {
    view: V,
    lines: Vec<Line>,
}

impl<V: View> View for KeepLines<V> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        self.lines.extend_from_slice(lines);
        self.view.show(lines, clock)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.view.flush()
    }
}

/// Whether the reader has closed the pipe, which is no failure.
pub fn reader_gone(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<WatchError>(),
        Some(WatchError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe
    )
}

/// Whether the host, not the scenario, caused the error.
pub fn host_error(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<WatchError>(),
        Some(WatchError::Host(_))
    )
}
