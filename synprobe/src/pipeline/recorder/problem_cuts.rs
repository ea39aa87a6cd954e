//! When a problem opens, its recording is cut to a file: on a thread of its own, one at a time.

use std::{
    collections::HashMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    model::{Problem, ProblemRole},
    recording::{CutError, ProblemFiles},
    sys::{
        clock::wall_clock,
        journal::{Priority, message},
    },
};

/// Two cuts are at least so far apart. Problems that open meanwhile share the next one.
const APART: Duration = Duration::from_secs(10);

/// For so long no other problem of the same verdict and place is cut: many callers of one port have a problem
/// each.
const OF_ONE_PLACE: Duration = Duration::from_secs(300);
/// Places that are remembered.
const PLACES: usize = 4096;

/// A problem that has opened: its verdict, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::pipeline) struct OpenedProblem {
    verdict: &'static str,
    role: ProblemRole,
    netns: u32,
    ports: (Option<u16>, Option<u16>),
}

impl OpenedProblem {
    pub fn of(p: &Problem) -> Self {
        Self {
            verdict: p.verdict_name(),
            role: p.role,
            netns: p.netns,
            ports: (p.local_port, p.peer_port),
        }
    }
}

/// See the module.
pub(super) struct ProblemCuts {
    files: ProblemFiles,
    /// When a problem was wanted last, by what it is.
    seen: HashMap<OpenedProblem, Instant>,
    /// The verdict of the first problem that waits for a cut.
    wanted: Option<&'static str>,
    last: Option<Instant>,
    running: Option<thread::JoinHandle<()>>,
}

impl ProblemCuts {
    pub fn new(files: ProblemFiles) -> Self {
        Self {
            files,
            seen: HashMap::new(),
            wanted: None,
            last: None,
            running: None,
        }
    }

    /// A problem has opened.
    pub fn want(&mut self, problem: OpenedProblem) {
        self.seen.retain(|_, when| when.elapsed() < OF_ONE_PLACE);
        if self.seen.contains_key(&problem) {
            return;
        }
        if self.seen.len() < PLACES {
            self.seen.insert(problem, Instant::now());
        }
        self.wanted.get_or_insert(problem.verdict);
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
    let (priority, what) = match made {
        Ok(path) => (
            Priority::Info,
            format!("recorded in {}", path.as_ref().display()),
        ),
        Err(error) => (Priority::Warning, format!("not recorded: {error}")),
    };
    message(priority, &format!("problem {verdict}: {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::fixtures::problem;

    #[test]
    fn one_for_each_verdict_and_place_and_not_too_often() {
        let folder = Path::new("/nonexistent");
        let mut cuts = ProblemCuts::new(ProblemFiles::new(folder, 1, 1));
        let at = |port| {
            OpenedProblem::of(&Problem {
                local_port: Some(port),
                ..problem()
            })
        };
        assert!(!cuts.is_due());
        cuts.want(at(80));
        assert!(cuts.is_due());
        cuts.wanted = None;
        cuts.want(at(80));
        assert!(!cuts.is_due());
        cuts.want(at(81));
        assert!(cuts.is_due());
        cuts.last = Some(Instant::now());
        assert!(!cuts.is_due());
        // It still waits.
        cuts.last = Instant::now().checked_sub(APART);
        assert!(cuts.is_due());
    }
}
