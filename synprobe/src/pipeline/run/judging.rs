//! When the problems of the window are judged.

use std::time::Instant;

use super::Run;
use crate::{
    engine::Input,
    model::Role,
    pipeline::WatchError,
    sys::clock::{CpuTimer, monotonic_ns},
};

/// Judging may take this share of one core: its pause is this many times the CPU time it took.
const PAUSE: u32 = 50;

impl Run {
    /// Judges the problems of the window, where there is one and it is time to.
    pub(super) fn judge_problems(&mut self) -> Result<(), WatchError> {
        if !self.core.engine.has_window() || Instant::now() < self.judge {
            return Ok(());
        }
        // CPU time: on a busy host it must not seem expensive.
        let timer = CpuTimer::begin();
        let counted_clients = match self.core.engine.is_quiet() && self.core.engine.has_trouble() {
            true => Some(self.counted_clients()?),
            false => None,
        };
        self.core.read_clock();
        self.core.feed(Input::JudgeProblems {
            at_ns: monotonic_ns(),
            counted_clients,
        });
        if self.core.publish_judgement() {
            self.asked.forget();
        }
        self.judge = Instant::now() + timer.took() * PAUSE;
        Ok(())
    }

    pub(super) fn counted_clients(&self) -> Result<u64, WatchError> {
        let all = self.completed()?;
        Ok(all
            .iter()
            .map(|input| match input {
                // The last number is the sum of their times.
                Input::Completed(Role::Client, _, counts) => {
                    counts.split_last().map_or(0, |(_, n)| n.iter().sum())
                }
                _ => 0,
            })
            .sum())
    }
}
