//! What the screen shows, at one moment.

use std::sync::Arc;

use super::{EventTail, TopEvent};
use crate::status::RunStatus;

/// See the module.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The state of the run.
    pub status: Arc<RunStatus>,
    /// Only in a replay.
    pub position: Option<ReplayPosition>,
    /// Healthy handshakes are only counted: what was not retransmitted and is younger than this is not listed,
    /// microseconds. `None`: every handshake is examined.
    pub slow_us: Option<u64>,
    /// The last events, the newest first.
    pub events: Vec<Arc<TopEvent>>,
    /// Where those are from; it has the retransmissions of handshakes in progress.
    pub tail: EventTail,
    /// What else cannot be seen: damage of a recording, its selection.
    pub notes: Vec<String>,
}

/// Where a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayPosition {
    /// From the first input, microseconds.
    pub at_us: u64,
    /// Of the whole recording, microseconds.
    pub length_us: u64,
    /// Nothing follows.
    pub is_last: bool,
}
