//! How long connections wait for accept().

use serde::{Deserialize, Serialize};

use super::Process;

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
    /// Measured at accept(), of each connection.
    Accept,
    /// Estimated from the queue's length and rate (Little's law).
    Queue,
}

/// How long the connections of a port waited for accept(): of all its listeners in the namespace together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcceptWait {
    /// The mean, microseconds; `None`: too few checks or connections for an estimate, or many more came than left.
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
    /// Connections whose wait was measured at accept(); `None`: accept() is not watched.
    pub accepted: Option<u64>,
    /// Half of them waited no longer, microseconds: at most a quarter more than the true value.
    pub p50_us: Option<u64>,
    /// 99 % of them waited no longer, in the same way.
    pub p99_us: Option<u64>,
    /// Who last accepted a connection that had waited for 0.1 s or more.
    pub accepted_by: Option<Process>,
}

/// What was measured at accept(), of one port since the run began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptCounts {
    /// Inode of the namespace.
    pub netns: u32,
    /// The port.
    pub port: u16,
    /// The waits together, microseconds.
    pub total_us: u64,
    /// Connections by bucket of `synprobe_ebpf::histogram`.
    pub counts: Vec<u64>,
    /// Who last accepted a connection that had waited for 0.1 s or more.
    pub accepted_by: Option<Process>,
}
