//! How long the handshakes took that completed, counted.

use serde::Serialize;

use super::Role;

/// Handshakes of the quiet mode that completed, of one role and port: those that were only counted,
/// in the kernel, and those that have a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completed {
    /// This host's role.
    pub role: Role,
    /// The listening port: the local one of a server, the peer's of a client; `None`: those for which
    /// the kernel side had no room left.
    pub port: Option<u16>,
    /// How many: exact.
    pub handshakes: u64,
    /// Those of them whose dwell is not known.
    pub untimed: u64,
    /// Median dwell, microseconds: the upper end of its bucket.
    pub dwell_p50_us: Option<u64>,
    /// 99th percentile, microseconds: the upper end of its bucket.
    pub dwell_p99_us: Option<u64>,
    /// Those that are not empty, in order.
    pub buckets: Vec<Bucket>,
}

/// A bucket; it ends where the next one of four to a doubling begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Shortest dwell in it, microseconds.
    pub from_us: u64,
    /// How many.
    pub handshakes: u64,
}
