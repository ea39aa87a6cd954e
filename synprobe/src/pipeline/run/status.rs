//! What the run answers to those who ask for its status.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Run;
use crate::{
    pipeline::{WatchError, subscriber::Subscriber},
    status::{RunStatus, StatusRequest},
    sys::clock::{CpuTimer, monotonic_ns},
};

/// A status may take this share of one core: it is used again for this many times the CPU time it took.
const PAUSE: u32 = 50;
/// And it is used again for no longer than this.
const LONGEST: Duration = Duration::from_secs(15);
/// The same where somebody watches: with 100,000 handshakes in progress a status takes up to 0.1 s.
const LONGEST_WATCHED: Duration = Duration::from_secs(5);

/// Handshakes in progress that are listed where only the oldest are asked for: more than a screen has rows.
const OLDEST: usize = 500;

impl Run {
    /// Answers a request. Whoever asked may be gone.
    pub(super) fn answer(&mut self, request: StatusRequest) -> Result<(), WatchError> {
        if let Some((status, until)) = &self.asked.last
            && Instant::now() < *until
            && !request.switches_recording
            && !(request.lists_all && status.snapshot.open_is_part)
            && (request.judged == 0 || status.judged.is_some())
        {
            request.answer(Arc::clone(status));
            return Ok(());
        }
        if request.switches_recording {
            self.switch_recording()?;
        }
        // To be taken in anyway: no part of what a status costs.
        self.drain();
        // CPU time: on a busy host it must not seem expensive.
        let timer = CpuTimer::begin();
        let mut status = self.status(request.lists_all)?;
        if request.judged > 0 {
            let judged = self.core.engine.open_so_far(status.at_ns, request.judged);
            status.judged = Some(judged);
        }
        let status = Arc::new(status);
        let longest = match self.asked.most_open {
            Some(_) => LONGEST_WATCHED,
            None => LONGEST,
        };
        let took = timer.took();
        let until = Instant::now() + (took * PAUSE).min(longest);
        self.asked.last = Some((Arc::clone(&status), until));
        request.answer(status);
        Ok(())
    }

    fn status(&mut self, lists_all: bool) -> Result<RunStatus, WatchError> {
        if self.core.engine.is_quiet() {
            // Not by `Core::feed`: they make no lines, and a recording has the last ones.
            for input in self.completed()? {
                self.core.engine.feed(input);
            }
        }
        let mut status = self.status_with(lists_all);
        if let Some(parts) = &mut self.core.parts {
            status.part = parts.state(self.core.recorder.as_ref());
        }
        if !self.core.engine.has_window() {
            // Nothing judges what is in progress before the run ends.
            status.snapshot.problems = self.core.engine.problems_so_far(status.at_ns);
        }
        Ok(status)
    }

    /// By what was taken in so far.
    pub fn status_now(&self) -> RunStatus {
        self.status_with(true)
    }

    fn status_with(&self, lists_all: bool) -> RunStatus {
        RunStatus {
            snapshot: match self.asked.most_open {
                Some(most_open) if lists_all => self.core.engine.snapshot(most_open),
                Some(most_open) => {
                    let oldest = most_open.min(OLDEST);
                    self.core.engine.snapshot_of_oldest(oldest)
                }
                None => self.core.engine.summary(),
            },
            at_ns: monotonic_ns(),
            clock: self.core.engine.clock(),
            // Any other output counts what it loses itself.
            lines_lost: self
                .core
                .subscribers
                .first()
                .map_or(0, Subscriber::lost_total),
            not_recorded: self.core.recorder.as_ref().map(|recorder| recorder.lost()),
            judged: None,
            part: None,
        }
    }
}
