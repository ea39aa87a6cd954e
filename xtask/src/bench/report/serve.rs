//! Section: `serve` with scrapes, OTLP and a rolling recording, beside `watch --quiet`.

use std::fmt::{self, Write};

use serde::Serialize;

use super::{FloodCost, Spread, flood, mib};

/// Cores busy without load, at most.
const IDLE_CORES: f64 = 0.0015;
/// Memory without load, MiB at most.
const IDLE_MIB: f64 = 25.0;
/// Cores busy under load, as a multiple of those of `watch --quiet`, at most.
const LOADED: f64 = 1.1;
/// A restart, milliseconds at most.
const RESTART_MS: f64 = 1000.0;
/// A scrape, milliseconds at most.
const SCRAPE_MS: f64 = 20.0;

/// What `serve` costs. Of pairs the first is `watch --quiet`, the second `serve`.
#[derive(Serialize)]
pub struct ServeCost {
    /// Seconds between two scrapes, and between two exports.
    pub interval_seconds: u64,
    /// Kernel time a connection, both ends, nanoseconds.
    pub kernel_ns: [f64; 2],
    /// Without load.
    pub idle: [AgentUse; 2],
    /// From the signal that ends it until the next one serves, milliseconds.
    pub restart_ms: Spread,
    /// At the highest rate, in turns.
    pub loaded: [Vec<AgentUse>; 2],
    /// Series of the scrapes of many ports.
    pub series: usize,
    /// Bytes of such a scrape.
    pub scrape_bytes: usize,
    /// Their times, milliseconds.
    pub scrapes_ms: Spread,
    /// Under a SYN flood.
    pub flood: FloodCost,
}

/// What an agent used.
#[derive(Serialize)]
pub struct AgentUse {
    /// Cores busy.
    pub cores: f64,
    /// Wake-ups a second.
    pub wakeups: f64,
    /// VmRSS at the end, bytes.
    pub bytes: u64,
}

pub(super) fn write(out: &mut String, serve: &ServeCost) -> fmt::Result {
    let cores = |of: &[AgentUse]| Spread::of(of.iter().map(|used| used.cores).collect());
    let bytes = |of: &[AgentUse]| of.iter().map(|used| used.bytes).max().unwrap_or(0);
    writeln!(
        out,
        "\nserve, with a scrape and an OTLP export every {} s and a rolling recording, beside watch --quiet",
        serve.interval_seconds
    )?;
    let [quiet, served] = serve.kernel_ns;
    writeln!(
        out,
        "  kernel time a connection: {quiet:.0} ns, with serve {served:.0} ns ({:.3}; aim: equal)",
        served / quiet
    )?;
    let [quiet, served] = &serve.idle;
    writeln!(
        out,
        "  idle: {:.3} % of a core, {:.1} wake-ups a second, {:.1} MiB; serve {:.3} %, {:.1}, {:.1} MiB \
         (aim: {:.2} %, {IDLE_MIB:.0} MiB)",
        quiet.cores * 100.0,
        quiet.wakeups,
        mib(quiet.bytes),
        served.cores * 100.0,
        served.wakeups,
        mib(served.bytes),
        IDLE_CORES * 100.0,
    )?;
    let restart = &serve.restart_ms;
    writeln!(
        out,
        "  a restart: {:.0} ms ({:.0} to {:.0}; aim: {RESTART_MS:.0})",
        restart.median, restart.min, restart.max
    )?;
    let [quiet, served] = &serve.loaded;
    let (of_quiet, of_served) = (cores(quiet), cores(served));
    writeln!(
        out,
        "  highest rate: {:.3} % of a core ({:.3} to {:.3}), {:.1} MiB; serve {:.3} % ({:.3} to {:.3}), {:.1} MiB: \
         {:.3} times (aim: {LOADED})",
        of_quiet.median * 100.0,
        of_quiet.min * 100.0,
        of_quiet.max * 100.0,
        mib(bytes(quiet)),
        of_served.median * 100.0,
        of_served.min * 100.0,
        of_served.max * 100.0,
        mib(bytes(served)),
        of_served.median / of_quiet.median
    )?;
    writeln!(
        out,
        "  a scrape of {} series, {} bytes: {:.2} ms ({:.2} to {:.2}; aim: {SCRAPE_MS:.0})",
        serve.series,
        serve.scrape_bytes,
        serve.scrapes_ms.median,
        serve.scrapes_ms.min,
        serve.scrapes_ms.max
    )?;
    flood::write(out, "serve", &serve.flood)
}
