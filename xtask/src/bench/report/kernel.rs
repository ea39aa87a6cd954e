//! Section: kernel time of the eBPF programs.

use std::fmt::{self, Write};

use serde::Serialize;

use super::{BenchReport, TCPSTATES};

/// Kernel time of one configuration.
#[derive(Serialize)]
pub struct KernelCost {
    /// Name of the configuration or of the peer tool.
    pub watched: String,
    /// The programs that ran.
    pub programs: Vec<ProgramCost>,
    /// All programs, nanoseconds per connection of the load, both ends.
    pub ns_per_connection: f64,
    /// The same as a share of the connection's own CPU time.
    pub of_a_connection: f64,
}

/// Kernel time of one program.
#[derive(Serialize)]
pub struct ProgramCost {
    /// Name in the kernel.
    pub name: String,
    /// Runs that were measured.
    pub runs: u64,
    /// Mean time of a run, nanoseconds.
    pub ns_per_run: f64,
}

/// One point of a curve that should be flat.
#[derive(Serialize)]
pub struct GrowthPoint {
    /// What grows.
    pub what: String,
    /// How many.
    pub n: usize,
    /// Kernel time in quiet mode, both ends, nanoseconds.
    pub ns_per_connection: f64,
}

pub(super) fn write(out: &mut String, report: &BenchReport) -> fmt::Result {
    writeln!(
        out,
        "\nKernel time of the eBPF programs, both ends of a connection together"
    )?;
    writeln!(
        out,
        "(CPU time of an unwatched connection: {:.0} ns)",
        report.connection_ns
    )?;
    writeln!(
        out,
        "  {:<22} {:>13} {:>15} {:>12}",
        "watched", "ns/connection", "of a connection", "of tcpstates"
    )?;
    let peer = report.kernel.iter().find(|cost| cost.watched == TCPSTATES);
    for cost in &report.kernel {
        let of_peer = match peer {
            Some(peer) => format!("1/{:.1}", peer.ns_per_connection / cost.ns_per_connection),
            None => "-".to_owned(),
        };
        writeln!(
            out,
            "  {:<22} {:>13.0} {:>14.1}% {:>12}",
            cost.watched,
            cost.ns_per_connection,
            cost.of_a_connection * 100.0,
            of_peer
        )?;
        for program in &cost.programs {
            writeln!(
                out,
                "    {:<20} {:>7.0} ns/run x {:.2} runs a connection",
                program.name,
                program.ns_per_run,
                cost.ns_per_connection / program.ns_per_run * share(cost, program)
            )?;
        }
    }
    if peer.is_none() {
        writeln!(
            out,
            "  no comparison with tcpstates: it is not installed (Debian: libbpf-tools) or does not run"
        )?;
    }
    Ok(())
}

pub(super) fn write_growth(out: &mut String, points: &[GrowthPoint]) -> fmt::Result {
    writeln!(
        out,
        "\nQuiet mode: kernel time per connection as the setup grows"
    )?;
    for point in points {
        writeln!(
            out,
            "  {:>6} {:<14} {:>7.0} ns",
            point.n, point.what, point.ns_per_connection
        )?;
    }
    Ok(())
}

/// A program's share of its configuration's kernel time, 0 to 1.
fn share(cost: &KernelCost, program: &ProgramCost) -> f64 {
    let time = |p: &ProgramCost| p.ns_per_run * p.runs as f64;
    time(program) / cost.programs.iter().map(time).sum::<f64>()
}
