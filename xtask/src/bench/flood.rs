//! The agent under a SYN flood, and with a million half-opens: `synprobe-tests`' program `flood` makes
//! them in a lab of its own, on demand.

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
    Bench,
    process::{Running, Watcher},
    report::{Flood, HalfOpens},
    say,
};
use crate::workspace::{cargo, root, run, target_dir};

/// Half-opens to be tracked.
const HALF_OPENS: u32 = 1_000_000;
/// Flooded for so long before the memory counts: tables of a fixed size have filled by then.
const WARM_UP: Duration = Duration::from_secs(5);
/// All have been seen in a dump, and most were sent again.
const SEEN: Duration = Duration::from_secs(10);

/// The program that floods.
struct Flooder {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Running,
}

/// What it answers to `flood`.
#[derive(Deserialize)]
struct Flooded {
    syns: u64,
    seconds: f64,
    honest: u64,
    honest_port: u16,
}

/// And to `fill`.
#[derive(Deserialize)]
struct Filled {
    half_opens: u64,
}

impl Flooder {
    fn start() -> Result<Self> {
        let build = ["build", "--quiet", "--release", "-p", "synprobe-tests"];
        run(Command::new(cargo())
            .current_dir(root())
            .args(build)
            .args(["--bin", "flood", "--target-dir"])
            .arg(target_dir()))?;
        let mut command = Command::new(target_dir().join("release/flood"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running::spawn(&mut command, libc::SIGKILL)?;
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
        serde_json::from_str(&line).with_context(|| format!("the flood has failed: {line:?}"))
    }
}

/// For so long as the highest rate is held elsewhere; honest connections at another port beside it.
///
/// # Errors
///
/// When the flood or the agent fails.
pub fn flood(bench: &Bench) -> Result<Flood> {
    say("the agent under a SYN flood");
    let mut flooder = Flooder::start()?;
    let watcher = bench.watch(&["--quiet"])?;
    let warm_up: Flooded = flooder.ask("flood", WARM_UP.as_millis())?;
    let (cpu, warm) = (watcher.process.cpu()?, watcher.process.memory()?);
    let flooded: Flooded = flooder.ask("flood", bench.loss.as_millis())?;
    let cpu = watcher.process.cpu()?.saturating_sub(cpu);
    let bytes = watcher.process.memory()?;
    let ended = watcher.end()?;
    let honest = warm_up.honest + flooded.honest;
    let seen = completed(&ended.of_type("completed")?, flooded.honest_port);
    Ok(Flood {
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

/// A million half-opens, tracked.
///
/// # Errors
///
/// As [`flood`].
pub fn half_opens(bench: &Bench) -> Result<HalfOpens> {
    say("the agent with a million half-opens");
    let mut flooder = Flooder::start()?;
    let watcher = bench.watch(&["--quiet"])?;
    let filled: Filled = flooder.ask("fill", HALF_OPENS.into())?;
    thread::sleep(SEEN);
    let bytes = watcher.process.memory()?;
    let peak_bytes = watcher.process.peak_memory()?;
    let end: Value = serde_json::from_str(&end(watcher)?)?;
    Ok(HalfOpens {
        there: filled.half_opens,
        tracked: end["handshakes"].as_u64().context("no handshakes")?,
        bytes,
        peak_bytes,
    })
}

fn end(watcher: Watcher) -> Result<String> {
    Ok(watcher.end()?.last)
}

/// Handshakes at that port that the agent has counted.
fn completed(lines: &[Value], port: u16) -> u64 {
    let of_port = lines.iter().filter(|line| line["port"] == port);
    of_port.filter_map(|l| l["handshakes"].as_u64()).sum()
}
