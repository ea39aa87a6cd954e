//! Problems over a window.

use super::Engine;
use crate::model::{Handshake, Problem};

/// Handshakes in progress that are judged with the window; of more, the oldest.
const MOST_OPEN: usize = 16_384;

impl Engine {
    /// Whether problems are judged over a window.
    pub fn has_window(&self) -> bool {
        self.judge.window.is_some()
    }

    /// Whether the window has anything to judge: without, a judgement costs nothing.
    pub fn has_trouble(&self) -> bool {
        let window = self.judge.window.as_ref();
        self.open() > 0 || window.is_some_and(|window| window.has_trouble())
    }

    pub(super) fn judge_problems(&mut self, at_ns: u64, counted_clients: Option<u64>) {
        if !self.has_window() {
            return;
        }
        let open = self.tracker.as_if_ended(at_ns, MOST_OPEN);
        let lines = self
            .judge
            .judge_window(at_ns, counted_clients, open, self.clock);
        self.emit(lines);
    }

    /// Handshakes in progress, each judged as if it ended now: at most `most`. Changes nothing that lasts.
    pub fn open_so_far(&mut self, at_ns: u64, most: usize) -> Vec<Handshake> {
        let open = self.tracker.as_if_ended(at_ns, most);
        self.judge.judged_so_far(open)
    }

    /// The problems as they stand, handshakes in progress included as if they ended now. Changes nothing that lasts.
    pub fn problems_so_far(&mut self, at_ns: u64) -> Vec<Problem> {
        let open = self.tracker.as_if_ended(at_ns, MOST_OPEN);
        self.judge.problems_so_far(open)
    }
}
