//! Section: connections per second with and without the agent.

use std::fmt::{self, Write};

use serde::Serialize;

use super::Spread;

/// Connections per second with and without the agent.
#[derive(Serialize)]
pub struct Throughput {
    /// Load threads.
    pub threads: usize,
    /// True for `--quiet`; false where every event is streamed.
    pub quiet: bool,
    /// Unwatched.
    pub without: Spread,
    /// Watched by `synprobe watch`, JSON to a file.
    pub with: Spread,
    /// `with` ÷ `without`, computed for each pair.
    pub ratio: Spread,
}

pub(super) fn write(out: &mut String, rows: &[Throughput]) -> fmt::Result {
    writeln!(
        out,
        "\nConnections per second, JSON to a file; medians of alternating pairs"
    )?;
    writeln!(
        out,
        "  threads   mode      without      with   with/without   (lowest … highest)"
    )?;
    for row in rows {
        writeln!(
            out,
            "  {:>7}   {:<7} {:>9.0} {:>9.0} {:>14.3}   ({:.3} … {:.3})",
            row.threads,
            if row.quiet { "quiet" } else { "stream" },
            row.without.median,
            row.with.median,
            row.ratio.median,
            row.ratio.min,
            row.ratio.max
        )?;
    }
    Ok(())
}
