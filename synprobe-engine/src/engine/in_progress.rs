//! How many handshakes were in progress when the run began, at most, and when it ended.

use super::Engine;
use crate::model::{ByRole, OpenOverRun, RunProgress};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct InProgressCounts {
    /// After the first round of the socket tables, which shows what is older than the run.
    at_start: Option<ByRole<u64>>,
    most: ByRole<u64>,
    last: ByRole<u64>,
    /// The handshakes in progress are being ended, because the run is over.
    is_over: bool,
}

impl Engine {
    /// Counts them now.
    pub(super) fn count_in_progress(&mut self) {
        let counts = &mut self.in_progress;
        if counts.is_over {
            return;
        }
        let mut now = ByRole::default();
        for port in self.tracker.ports() {
            *now.get_mut(port.role) += port.open;
        }
        counts.most.client = counts.most.client.max(now.client);
        counts.most.server = counts.most.server.max(now.server);
        counts.last = now;
    }

    /// A round of the socket tables is over.
    pub(super) fn in_progress_after_round(&mut self) {
        self.count_in_progress();
        let counts = &mut self.in_progress;
        counts.at_start.get_or_insert(counts.last);
    }

    /// The run ends: what is still in progress is ended next.
    pub(super) fn in_progress_at_end(&mut self) {
        self.count_in_progress();
        self.in_progress.is_over = true;
    }

    /// What was counted so far. Handshakes in progress are those of the selection, as far as they are known: counted
    /// once a second and at every round; none before the first round is over.
    pub fn progress(&self) -> RunProgress {
        let counts = &self.in_progress;
        RunProgress {
            socket_states: self.socket_states_at_start().cloned(),
            in_progress: counts.at_start.map(|at_start| OpenOverRun {
                at_start,
                most: counts.most,
                at_end: counts.last,
            }),
        }
    }
}
