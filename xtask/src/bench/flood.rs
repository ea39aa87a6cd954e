//! The agent under a SYN flood, and with a million half-opens. The program `flood` of `synprobe-tests`
//! makes both in its own lab.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::{
    BenchContext,
    process::ChildProcess,
    report::{FloodCost, HalfOpenCost},
    say,
};
use crate::workspace::{cargo, root, run, target_dir};

/// Half-opens that are made.
const HALF_OPENS: u32 = 1_000_000;
/// The flood lasts this long before memory is measured: tables of a fixed size are full by then.
pub(super) const WARM_UP: Duration = Duration::from_secs(5);
/// After this time every half-open was in a dump, and most SYN-ACKs were retransmitted.
const SETTLE: Duration = Duration::from_secs(10);

/// The program `flood`, running.
pub(super) struct FloodProcess {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: ChildProcess,
}

/// Its answer to `flood`.
#[derive(Deserialize)]
pub(super) struct Flooded {
    /// SYNs from spoofed sources.
    pub(super) syns: u64,
    /// Duration, seconds.
    pub(super) seconds: f64,
    /// Legitimate connections.
    pub(super) honest: u64,
    /// The port that they go to.
    pub(super) honest_port: u16,
}

/// Its answer to `fill`.
#[derive(Deserialize)]
struct Filled {
    half_opens: u64,
}

impl FloodProcess {
    /// Builds it and starts it.
    pub(super) fn start() -> Result<Self> {
        let build = ["build", "--quiet", "--release", "-p", "synprobe-tests"];
        run(Command::new(cargo())
            .current_dir(root())
            .args(build)
            .args(["--bin", "flood", "--target-dir"])
            .arg(target_dir()))?;
        let mut command = Command::new(target_dir().join("release/flood"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = ChildProcess::spawn(&mut command, libc::SIGKILL)?;
        let (input, output) = process.pipes().context("the flood's pipes")?;
        Ok(Self {
            input,
            output: BufReader::new(output),
            _process: process,
        })
    }

    /// Floods for `length`.
    pub(super) fn flood(&mut self, length: Duration) -> Result<Flooded> {
        self.ask("flood", length.as_millis())
    }

    fn ask<T: for<'a> Deserialize<'a>>(&mut self, what: &str, number: u128) -> Result<T> {
        writeln!(self.input, "{what} {number}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the flood failed: {line:?}"))
    }
}

/// Floods for as long as the loss measurement lasts, with legitimate connections at another port.
///
/// # Errors
///
/// When the flood or the agent fails.
pub fn flood(bench: &BenchContext) -> Result<FloodCost> {
    say("the agent under a SYN flood");
    let mut flooder = FloodProcess::start()?;
    let watcher = bench.watch(&["--quiet"])?;
    let warm_up: Flooded = flooder.flood(WARM_UP)?;
    let (cpu, warm) = (watcher.process.cpu()?, watcher.process.memory()?);
    let flooded: Flooded = flooder.flood(bench.loss)?;
    let cpu = watcher.process.cpu()?.saturating_sub(cpu);
    let bytes = watcher.process.memory()?;
    let ended = watcher.end()?;
    let honest = warm_up.honest + flooded.honest;
    let seen = completed(&ended.of_type("completed")?, flooded.honest_port);
    Ok(FloodCost {
        seconds: flooded.seconds,
        syns_per_second: flooded.syns as f64 / flooded.seconds,
        cores: cpu.as_secs_f64() / flooded.seconds,
        // Both ends are on this host.
        honest: 2 * honest,
        honest_seen: seen,
        bytes_warm: warm,
        bytes,
        recorded: None,
    })
}

/// Measures the agent with a million half-opens.
///
/// # Errors
///
/// As [`flood`].
pub fn half_opens(bench: &BenchContext) -> Result<HalfOpenCost> {
    say("the agent with a million half-opens");
    let mut flooder = FloodProcess::start()?;
    // More than its share of the default budget.
    let watcher = bench.watch(&["--quiet", "--max-memory", "1G"])?;
    let filled: Filled = flooder.ask("fill", HALF_OPENS.into())?;
    thread::sleep(SETTLE);
    let bytes = watcher.process.memory()?;
    let peak_bytes = watcher.process.peak_memory()?;
    let end: Value = serde_json::from_str(&watcher.end()?.last)?;
    Ok(HalfOpenCost {
        there: filled.half_opens,
        tracked: end["handshakes"].as_u64().context("no handshakes")?,
        bytes,
        peak_bytes,
    })
}

/// Handshakes at `port` that the agent counted.
fn completed(lines: &[Value], port: u16) -> u64 {
    let of_port = lines.iter().filter(|line| line["port"] == port);
    of_port.filter_map(|l| l["handshakes"].as_u64()).sum()
}
