//! How long connections wait for accept().

use serde::{Deserialize, Serialize};

/// One reading of the accept queues of a namespace: when, and how many handshakes of passive opens the kernel had
/// counted around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptReading {
    /// Inode of the namespace.
    pub netns: u32,
    /// Before the queues were read, CLOCK_MONOTONIC nanoseconds.
    pub before_ns: u64,
    /// After that.
    pub after_ns: u64,
    /// `PassiveOpens` before: each connection that comes into an accept queue is counted there first
    /// (`tcp_create_openreq_child()`).
    pub opens_before: Option<u64>,
    /// `PassiveOpens` after; `None` also where no connection waited.
    pub opens_after: Option<u64>,
}

/// How the mean wait is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptWaitSource {
    /// Estimated from the queue's length and rate (Little's law).
    Queue,
}

/// How long the connections of a port waited for accept(): of all its listeners in the namespace together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AcceptWait {
    /// The mean, microseconds; `None`: too few checks or connections for an estimate.
    pub mean_us: Option<u64>,
    /// How that is known.
    pub source: AcceptWaitSource,
    /// Checks of the queue from which it was estimated.
    pub checks: u64,
    /// From the first of them to the last, microseconds.
    pub span_us: u64,
    /// Connections that left the queue meanwhile.
    pub left: u64,
    /// The longest wait that is proven: at least so long, microseconds. `None`: at no check had a connection of
    /// the check before been waiting still.
    pub longest_at_least_us: Option<u64>,
}
