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
const WARM_UP: Duration = Duration::from_secs(5);
/// After this time every half-open was in a dump, and most SYN-ACKs were retransmitted.
const SETTLE: Duration = Duration::from_secs(10);

/// The program `flood`, running.
struct FloodProcess {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: ChildProcess,
}

/// Its answer to `flood`.
#[derive(Deserialize)]
struct Flooded {
    syns: u64,
    seconds: f64,
    honest: u64,
    honest_port: u16,
}

/// Its answer to `fill`.
#[derive(Deserialize)]
struct Filled {
    half_opens: u64,
}

impl FloodProcess {
    fn start() -> Result<Self> {
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
    let warm_up: Flooded = flooder.ask("flood", WARM_UP.as_millis())?;
    let (cpu, warm) = (watcher.process.cpu()?, watcher.process.memory()?);
    let flooded: Flooded = flooder.ask("flood", bench.loss.as_millis())?;
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
    let watcher = bench.watch(&["--quiet"])?;
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
