//! When a problem opens, its recording is cut to a file: on a thread of its own, one at a time.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    recording::{CutError, ProblemFiles},
    sys::clock::wall_clock,
    util::format,
};

/// Two cuts are at least so far apart. Problems that open meanwhile share the next one.
const APART: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct ProblemCuts {
    files: ProblemFiles,
    /// The verdict of the first problem that waits for a cut.
    wanted: Option<&'static str>,
    last: Option<Instant>,
    running: Option<thread::JoinHandle<()>>,
}

impl ProblemCuts {
    pub fn new(files: ProblemFiles) -> Self {
        Self {
            files,
            wanted: None,
            last: None,
            running: None,
        }
    }

    /// A problem with this verdict has opened.
    pub fn want(&mut self, verdict: &'static str) {
        self.wanted.get_or_insert(verdict);
    }

    /// Whether to cut now: first, what was taken in has to be in the segments.
    pub fn is_due(&self) -> bool {
        let is_early = self.last.is_some_and(|last| last.elapsed() < APART);
        let is_running = self.running.as_ref().is_some_and(|run| !run.is_finished());
        self.wanted.is_some() && !is_early && !is_running
    }

    /// Begins to cut.
    pub fn begin(&mut self, at_ns: u64) {
        let Some(verdict) = self.wanted.take() else {
            return;
        };
        self.last = Some(Instant::now());
        let files = self.files.clone();
        let begun = thread::Builder::new()
            .name("cut".into())
            .spawn(move || report(verdict, files.cut(realtime_ns(at_ns), verdict)));
        match begun {
            Ok(thread) => self.running = Some(thread),
            Err(error) => log::warn!("the recording of a problem: {error}"),
        }
    }

    /// The run is over and the segments are closed: cuts what waits.
    pub fn finish(mut self, at_ns: u64) {
        if let Some(running) = self.running.take() {
            // It has said what went wrong.
            let _ = running.join();
        }
        if let Some(verdict) = self.wanted.take() {
            report(verdict, self.files.cut(realtime_ns(at_ns), verdict));
        }
    }
}

fn realtime_ns(at_ns: u64) -> i64 {
    i64::try_from(wall_clock().realtime_ns(at_ns)).unwrap_or(0)
}

fn report(verdict: &str, made: Result<impl AsRef<Path>, CutError>) {
    match made {
        Ok(path) => {
            let path = path.as_ref().to_string_lossy();
            eprintln!(
                "synprobe: problem {verdict}: recorded in {}",
                format::safe(&path)
            );
        }
        Err(error) => eprintln!("synprobe: problem {verdict}: not recorded: {error}"),
    }
}
