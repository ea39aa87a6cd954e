//! What was measured, as tables or as JSON.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

/// One run of the bench.
#[derive(Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Connections a second, by the load's threads.
    pub throughput: Vec<Throughput>,
    /// CPU time of one connection, both ends, nobody watching.
    pub connection_ns: f64,
    /// Kernel time, by what was watched; programs of others last.
    pub kernel: Vec<KernelCost>,
    /// The quiet mode's kernel time, by what there is more of.
    pub growth: Vec<Growth>,
    /// At the highest rate.
    pub loss: Loss,
    /// Under a SYN flood.
    pub flood: Flood,
    /// With a million half-opens.
    pub half_opens: HalfOpens,
    /// The agent's own cost.
    pub agent: Agent,
    /// Programs of others, where installed.
    pub peers: Vec<Peer>,
}

impl Report {
    /// The one that targets are held against.
    fn tcpstates(&self) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name == TCPSTATES)
    }
}

const TCPSTATES: &str = "tcpstates";

/// Where the bench ran.
#[derive(Serialize)]
pub struct Machine {
    /// Release.
    pub kernel: String,
    /// CPUs.
    pub cpus: usize,
    /// Tracing programs of others that were loaded when it began, and how many of each.
    pub others: BTreeMap<String, u32>,
}

/// Median and extremes.
#[derive(Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        let n = values.len();
        let middle = (at(n.saturating_sub(1) / 2) + at(n / 2)) / 2.0;
        Self {
            median: middle,
            min: at(0),
            max: at(n.saturating_sub(1)),
        }
    }
}

/// Connections a second with and without the agent.
#[derive(Serialize)]
pub struct Throughput {
    /// Of the load.
    pub threads: usize,
    /// `--quiet`, or everything streamed.
    pub quiet: bool,
    /// Nobody watching.
    pub without: Spread,
    /// `synprobe watch`, JSON to a file.
    pub with: Spread,
    /// With ÷ without, pair by pair.
    pub ratio: Spread,
}

/// A point of a curve that should be flat.
#[derive(Serialize)]
pub struct Growth {
    /// Of what there is more.
    pub what: String,
    /// How many.
    pub n: usize,
    /// Kernel time in the quiet mode, both ends.
    pub ns_per_connection: f64,
}

/// Kernel time of one way to watch.
#[derive(Serialize)]
pub struct KernelCost {
    /// What was watched.
    pub watched: String,
    /// By program; those that ran.
    pub programs: Vec<ProgramCost>,
    /// All programs, per connection of the load, both ends.
    pub ns_per_connection: f64,
    /// The same, as a share of the connection's own CPU time.
    pub of_a_connection: f64,
}

/// Kernel time of one program.
#[derive(Serialize)]
pub struct ProgramCost {
    /// As the kernel has it.
    pub name: String,
    /// Runs that were measured.
    pub runs: u64,
    /// Mean.
    pub ns_per_run: f64,
}

/// At the highest rate that the loopback gives.
#[derive(Serialize)]
pub struct Loss {
    /// For so long.
    pub seconds: f64,
    /// The rate, while watched.
    pub connections_per_second: f64,
    /// That rate as a share of the unwatched one.
    pub of_unwatched: f64,
    /// Records the agent has read.
    pub records: u64,
    /// Records it has not: must be 0.
    pub lost: u64,
    /// Why, in the agent's words.
    pub reasons: Vec<String>,
    /// `handshake` lines.
    pub handshakes: u64,
    /// Connections of the load; each is two handshakes, for both ends are on this host.
    pub connections: u64,
    /// JSON written.
    pub file_bytes: u64,
}

/// Under a SYN flood, quiet.
#[derive(Serialize)]
pub struct Flood {
    /// For so long.
    pub seconds: f64,
    /// From addresses that nobody has.
    pub syns_per_second: f64,
    /// Cores the agent kept busy.
    pub cores: f64,
    /// Ends of honest connections at another port.
    pub honest: u64,
    /// Those that the agent has counted: must be all.
    pub honest_seen: u64,
    /// VmRSS after the first seconds.
    pub bytes_warm: u64,
    /// VmRSS at the end.
    pub bytes: u64,
}

/// Many half-opens, quiet.
#[derive(Serialize)]
pub struct HalfOpens {
    /// That the kernel has.
    pub there: u64,
    /// That the agent has a line for.
    pub tracked: u64,
    /// VmRSS while they are tracked.
    pub bytes: u64,
    /// VmHWM: while a dump of them is read.
    pub peak_bytes: u64,
}

/// The agent's own cost.
#[derive(Serialize)]
pub struct Agent {
    /// CPU time per record read where everything is streamed, in turns with those beside it.
    pub cpu_ns_per_record: f64,
    /// The same, per line written.
    pub cpu_ns_per_line: f64,
    /// The same, per connection.
    pub cpu_ns_per_connection: f64,
    /// CPU time per record at the highest rate for as long as losses were looked for: what is written
    /// then is more than page cache, and writing it back is in it.
    pub cpu_ns_per_record_at_length: f64,
    /// Cores it kept busy under load.
    pub cores_under_load: f64,
    /// And with no load of ours.
    pub cores_idle: f64,
    /// Records it read meanwhile: not 0 when the machine was not idle.
    pub records_while_idle: u64,
    /// VmHWM.
    pub peak_bytes_under_load: u64,
    /// How often it woke up in a second, with no load of ours.
    pub wakeups_idle: f64,
    /// VmRSS, quiet.
    pub bytes_idle: u64,
    /// VmHWM.
    pub peak_bytes_idle: u64,
    /// From its start to being attached.
    pub ready_after_ms: f64,
}

/// What stands beside it.
#[derive(Serialize)]
pub struct Peer {
    /// As people call it.
    pub name: String,
    /// The program.
    pub path: String,
    /// CPU time per line of text written to a file.
    pub cpu_ns_per_line: f64,
    /// CPU time per connection.
    pub cpu_ns_per_connection: f64,
}

/// Tables for eyes.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(
        out,
        "Linux {}, {} CPUs; the load: TCP connections over loopback, opened, accepted, closed",
        machine.kernel, machine.cpus
    )?;
    if !machine.others.is_empty() {
        let others = machine.others.iter().map(|(name, n)| format!("{n} {name}"));
        let others: Vec<_> = others.collect();
        writeln!(
            out,
            "other tracing programs were loaded when this began: {}",
            others.join(", ")
        )?;
    }
    throughput(out, &report.throughput)?;
    kernel(out, report)?;
    growth(out, &report.growth)?;
    loss(out, &report.loss)?;
    flood(out, &report.flood, &report.half_opens)?;
    agent(out, report)
}

fn throughput(out: &mut String, rows: &[Throughput]) -> std::fmt::Result {
    writeln!(
        out,
        "\nConnections a second, JSON to a file; medians of alternating pairs"
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

fn kernel(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "\nKernel time of the programs, both ends of a connection together"
    )?;
    writeln!(
        out,
        "(a connection's own CPU time, nobody watching: {:.0} ns)",
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
            "  tcpstates is not installed (Debian: libbpf-tools) or does not run: nothing to compare with"
        )?;
    }
    Ok(())
}

fn growth(out: &mut String, points: &[Growth]) -> std::fmt::Result {
    writeln!(
        out,
        "\nQuiet, kernel time a connection by what there is more of"
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

/// A program's share of its configuration's kernel time.
fn share(cost: &KernelCost, program: &ProgramCost) -> f64 {
    let time = |p: &ProgramCost| p.ns_per_run * p.runs as f64;
    time(program) / cost.programs.iter().map(time).sum::<f64>()
}

fn loss(out: &mut String, loss: &Loss) -> std::fmt::Result {
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

fn flood(out: &mut String, flood: &Flood, half_opens: &HalfOpens) -> std::fmt::Result {
    writeln!(
        out,
        "\nA SYN flood for {:.0} s, quiet\n  {:.0} SYNs a second; {:.2} % of a core, memory {:.1} MiB after the first seconds, {:.1} at the end",
        flood.seconds,
        flood.syns_per_second,
        flood.cores * 100.0,
        mib(flood.bytes_warm),
        mib(flood.bytes)
    )?;
    writeln!(
        out,
        "  {} of {} ends of honest connections at another port counted",
        flood.honest_seen, flood.honest
    )?;
    writeln!(
        out,
        "\nHalf-opens, quiet\n  {} there, {} tracked: {:.1} MiB, {:.1} at most",
        half_opens.there,
        half_opens.tracked,
        mib(half_opens.bytes),
        mib(half_opens.peak_bytes)
    )
}

fn agent(out: &mut String, report: &Report) -> std::fmt::Result {
    let agent = &report.agent;
    let beside = |ours: f64, theirs: fn(&Peer) -> f64| match report.tcpstates() {
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
        "  CPU a record          {:>8.0} ns for all of those {} s",
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
        "  cores busy            {:>8.3} under load; quiet and idle {:.5}, {:.1} wake-ups a second (with {} records of others)",
        agent.cores_under_load, agent.cores_idle, agent.wakeups_idle, agent.records_while_idle
    )?;
    writeln!(
        out,
        "  memory                {:>8.1} MiB at most under load; quiet and idle {:.1} MiB, {:.1} at most",
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

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of(Vec::new()).median.is_nan());
    }
}
