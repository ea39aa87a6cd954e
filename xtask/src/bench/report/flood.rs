//! Sections: the agent under a SYN flood, and with a million half-opens.

use std::fmt::{self, Write};

use serde::Serialize;

use super::mib;

/// The agent under a SYN flood.
#[derive(Serialize)]
pub struct FloodCost {
    /// Duration, seconds.
    pub seconds: f64,
    /// SYNs per second from spoofed sources.
    pub syns_per_second: f64,
    /// Cores that the agent kept busy.
    pub cores: f64,
    /// Ends of legitimate connections at another port.
    pub honest: u64,
    /// Those that the agent counted; must be all.
    pub honest_seen: u64,
    /// VmRSS after the first seconds, bytes.
    pub bytes_warm: u64,
    /// VmRSS at the end, bytes.
    pub bytes: u64,
    /// Bytes that were recorded meanwhile; `None`: it does not record.
    pub recorded: Option<u64>,
}

/// The agent in quiet mode with many half-opens.
#[derive(Serialize)]
pub struct HalfOpenCost {
    /// Half-opens in the kernel.
    pub there: u64,
    /// Half-opens that the agent has a line for.
    pub tracked: u64,
    /// VmRSS while they are tracked, bytes.
    pub bytes: u64,
    /// VmHWM: the peak while the agent reads a dump of them, bytes.
    pub peak_bytes: u64,
}

pub(super) fn write(out: &mut String, what: &str, flood: &FloodCost) -> fmt::Result {
    writeln!(
        out,
        "\nA SYN flood for {:.0} s, {what}\n  {:.0} SYNs a second; {:.2} % of a core, memory {:.1} MiB after the first seconds, {:.1} at the end",
        flood.seconds,
        flood.syns_per_second,
        flood.cores * 100.0,
        mib(flood.bytes_warm),
        mib(flood.bytes)
    )?;
    if let Some(bytes) = flood.recorded {
        writeln!(out, "  {:.1} MiB recorded", mib(bytes))?;
    }
    writeln!(
        out,
        "  {} of {} ends of legitimate connections at another port counted",
        flood.honest_seen, flood.honest
    )
}

pub(super) fn write_half_opens(out: &mut String, half_opens: &HalfOpenCost) -> fmt::Result {
    writeln!(
        out,
        "\nHalf-opens, quiet mode\n  {} in the kernel, {} tracked: {:.1} MiB, peak {:.1} MiB",
        half_opens.there,
        half_opens.tracked,
        mib(half_opens.bytes),
        mib(half_opens.peak_bytes)
    )
}
