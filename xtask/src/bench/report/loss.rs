//! Section: records lost at the highest rate.

use std::fmt::{self, Write};

use serde::Serialize;

use super::mib;

/// The agent at the highest rate that loopback gives.
#[derive(Serialize)]
pub struct LossResult {
    /// Duration, seconds.
    pub seconds: f64,
    /// Connections per second while watched.
    pub connections_per_second: f64,
    /// That rate as a share of the unwatched one.
    pub of_unwatched: f64,
    /// Records that the agent read.
    pub records: u64,
    /// Records that the agent lost; must be 0.
    pub lost: u64,
    /// The agent's `lost` lines.
    pub reasons: Vec<String>,
    /// `handshake` lines.
    pub handshakes: u64,
    /// Connections of the load. Each is two handshakes: both ends are on this host.
    pub connections: u64,
    /// JSON written, bytes.
    pub file_bytes: u64,
}

pub(super) fn write(out: &mut String, loss: &LossResult) -> fmt::Result {
    writeln!(
        out,
        "\nThe highest rate for {:.0} s, no filter, default ring, JSON to a file",
        loss.seconds
    )?;
    writeln!(
        out,
        "  {:.0} connections a second ({:.3} of unwatched), {} records, {} lost{}",
        loss.connections_per_second,
        loss.of_unwatched,
        loss.records,
        loss.lost,
        if loss.lost > 0 { " (must be 0)" } else { "" }
    )?;
    for reason in &loss.reasons {
        writeln!(out, "    {reason}")?;
    }
    writeln!(
        out,
        "  {} handshake lines for {} connections ({:.3} each; two ends make 2), {:.0} MiB written",
        loss.handshakes,
        loss.connections,
        loss.handshakes as f64 / loss.connections as f64,
        mib(loss.file_bytes)
    )
}
