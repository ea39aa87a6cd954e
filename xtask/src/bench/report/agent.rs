//! Section: the agent's own cost, beside that of peer tools.

use std::fmt::{self, Write};

use serde::Serialize;

use super::{BenchReport, mib};

/// The agent's own cost.
#[derive(Serialize)]
pub struct AgentCost {
    /// CPU time per record read while every event is streamed, nanoseconds. Measured in turns with the
    /// peer tools.
    pub cpu_ns_per_record: f64,
    /// The same per line written.
    pub cpu_ns_per_line: f64,
    /// The same per connection.
    pub cpu_ns_per_connection: f64,
    /// CPU time per record over the whole loss measurement, nanoseconds. The output exceeds the page
    /// cache then, and write-back is included.
    pub cpu_ns_per_record_at_length: f64,
    /// Cores busy under load.
    pub cores_under_load: f64,
    /// Cores busy without load.
    pub cores_idle: f64,
    /// Records read without load. Not 0 where the machine was not idle.
    pub records_while_idle: u64,
    /// VmHWM under load, bytes.
    pub peak_bytes_under_load: u64,
    /// Wake-ups per second without load.
    pub wakeups_idle: f64,
    /// VmRSS in quiet mode without load, bytes.
    pub bytes_idle: u64,
    /// VmHWM in quiet mode without load, bytes.
    pub peak_bytes_idle: u64,
    /// Time from start to attached, milliseconds.
    pub ready_after_ms: f64,
}

/// The cost of a peer tool.
#[derive(Serialize)]
pub struct PeerToolCost {
    /// Common name.
    pub name: String,
    /// Path of the program.
    pub path: String,
    /// CPU time per line of text written to a file, nanoseconds.
    pub cpu_ns_per_line: f64,
    /// CPU time per connection, nanoseconds.
    pub cpu_ns_per_connection: f64,
}

pub(super) fn write(out: &mut String, report: &BenchReport) -> fmt::Result {
    let agent = &report.agent;
    let beside = |ours: f64, theirs: fn(&PeerToolCost) -> f64| match report.tcpstates() {
        Some(peer) => format!(
            " ({:.2} of tcpstates' {:.0})",
            ours / theirs(peer),
            theirs(peer)
        ),
        None => format!(
            " ({:.2} of a connection's own)",
            ours / report.connection_ns
        ),
    };
    writeln!(out, "\nThe agent")?;
    writeln!(
        out,
        "  CPU a record read     {:>8.0} ns{}",
        agent.cpu_ns_per_record,
        beside(agent.cpu_ns_per_record, |p| p.cpu_ns_per_line)
    )?;
    writeln!(
        out,
        "  CPU a line written    {:>8.0} ns{}",
        agent.cpu_ns_per_line,
        beside(agent.cpu_ns_per_line, |p| p.cpu_ns_per_line)
    )?;
    writeln!(
        out,
        "  CPU a record          {:>8.0} ns over the {} s of the loss measurement",
        agent.cpu_ns_per_record_at_length,
        report.loss.seconds.round()
    )?;
    writeln!(
        out,
        "  CPU a connection      {:>8.0} ns{}",
        agent.cpu_ns_per_connection,
        beside(agent.cpu_ns_per_connection, |p| p.cpu_ns_per_connection)
    )?;
    writeln!(
        out,
        "  cores busy            {:>8.3} under load; quiet and idle {:.5}, {:.1} wake-ups a second (with {} records of other traffic)",
        agent.cores_under_load, agent.cores_idle, agent.wakeups_idle, agent.records_while_idle
    )?;
    writeln!(
        out,
        "  memory                {:>8.1} MiB peak under load; quiet and idle {:.1} MiB, peak {:.1} MiB",
        mib(agent.peak_bytes_under_load),
        mib(agent.bytes_idle),
        mib(agent.peak_bytes_idle),
    )?;
    writeln!(
        out,
        "  attached after        {:>8.0} ms",
        agent.ready_after_ms
    )
}
