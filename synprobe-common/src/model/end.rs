//! The totals of a run.

use serde::Serialize;

use super::ByRole;

/// The end of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct End {
    /// Kernel records received.
    pub events: u64,
    /// Kernel records lost.
    pub lost: u64,
    /// `handshake` lines.
    pub handshakes: u64,
    /// SYNs that this host refused before a half-open existed, as far as they were seen.
    pub syns_refused: u64,
    /// How far `ListenDrops` rose in the namespaces that were watched: SYNs and final ACKs that listeners refused,
    /// with or without an event; `None`: not read.
    pub listen_drops: Option<u64>,
    /// How far `SyncookiesSent` rose there: SYNs that were answered without a half-open; `None`: not read.
    pub syn_cookies: Option<u64>,
    /// How long it ran, microseconds.
    pub duration_us: u64,
    /// Handshakes evicted from the bounded table.
    pub evicted: u64,
    /// Handshakes that completed and were only counted, in the kernel (the quiet mode).
    pub counted: u64,
    /// Records that were due: those that the kernel side produced, and events at which the kernel skipped a
    /// program.
    pub produced: u64,
    /// Handshakes and retransmissions of peers that were evicted from the peer tables.
    pub peers_unlisted: u64,
    /// Different peer addresses, the unlisted included; an estimate where some are.
    pub peers_distinct: ByRole<u64>,
    /// Relative standard error of that; 0: exact.
    pub peers_distinct_error: ByRole<f64>,
    /// What was seen and no problem explains, one sentence each. Empty: nothing.
    pub unexplained: Vec<String>,
}
