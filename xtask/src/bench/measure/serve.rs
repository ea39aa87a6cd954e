//! `serve` with all its outputs, beside `watch --quiet`.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    median,
    turns::{Turns, turn},
};
use crate::bench::{
    BenchContext, bpf,
    flood::{FloodProcess, WARM_UP},
    load::Load,
    process::ChildProcess,
    report::{AgentUse, FloodCost, ServeCost, Spread},
    say,
};

/// Turns of which the kernel time is the median.
const TURNS: u32 = 5;
/// Pairs of turns under load.
const PAIRS: u32 = 3;
/// Scrapes of many series.
const SCRAPES: u32 = 20;
/// The agent reads its state at most once a second: later scrapes than that have a new one each.
const STATE: Duration = Duration::from_millis(1100);
/// Restarts.
const RESTARTS: u32 = 3;
/// Ports that connections are made to, for as many series as there may be.
const PORTS: u16 = 200;

/// Measures all of it.
pub(in crate::bench) fn serve(bench: &BenchContext) -> Result<ServeCost> {
    let mut load = Load::start(bench.cpus)?;
    load.run(Duration::from_millis(200))?;
    let kernel_ns = kernel(bench, &mut load)?;
    say("watch --quiet and serve without load");
    let idle = [watch_idle(bench)?, serve_idle(bench)?];
    let restart_ms = restarts(bench)?;
    say("watch --quiet and serve at the highest rate");
    let loaded = under_load(bench, &mut load)?;
    drop(load);
    let (series, scrape_bytes, scrapes_ms) = scrapes(bench)?;
    Ok(ServeCost {
        interval_seconds: bench.interval.as_secs(),
        kernel_ns,
        idle,
        restart_ms,
        loaded,
        series,
        scrape_bytes,
        scrapes_ms,
        flood: flood(bench)?,
    })
}

/// Kernel time a connection, `watch --quiet` and `serve` in turns, nanoseconds.
fn kernel(bench: &BenchContext, load: &mut Load) -> Result<[f64; 2]> {
    say("kernel time of watch --quiet and serve");
    let counting = bpf::count_run_time().context("counting the programs' run time")?;
    let mut turns = [Turns::default(), Turns::default()];
    for _ in 0..TURNS {
        let watcher = bench.watch(&["--quiet"])?;
        turn(&mut turns[0], watcher, bench.length, load)?;
        let agent = bench.serve()?;
        // Its other parts end with it.
        let (watcher, rest) = agent.into_parts();
        turn(&mut turns[1], watcher, bench.length, load)?;
        drop(rest);
    }
    drop(counting);
    Ok(turns.map(|mut turns| median(&mut turns.ns_per_connection)))
}

/// Cores that a process keeps busy while `during` lasts, and its memory after that.
fn used(process: &ChildProcess, during: impl FnOnce() -> Result<()>) -> Result<AgentUse> {
    let (began, cpu) = (Instant::now(), process.cpu()?);
    let wakeups = process.wakeups()?;
    during()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(AgentUse {
        cores: process.cpu()?.saturating_sub(cpu).as_secs_f64() / seconds,
        wakeups: process.wakeups()?.saturating_sub(wakeups) as f64 / seconds,
        bytes: process.memory()?,
    })
}

fn watch_idle(bench: &BenchContext) -> Result<AgentUse> {
    let watcher = bench.watch(&["--quiet"])?;
    thread::sleep(bench.length);
    let used = used(&watcher.process, || {
        thread::sleep(2 * bench.interval);
        Ok(())
    })?;
    watcher.end()?;
    Ok(used)
}

fn serve_idle(bench: &BenchContext) -> Result<AgentUse> {
    let agent = bench.serve()?;
    thread::sleep(bench.length);
    let before = agent.exports();
    let scraper = agent.scraper(bench.interval);
    let used = used(&agent.watcher.process, || {
        thread::sleep(2 * bench.interval);
        Ok(())
    })?;
    ensure!(scraper.stop()?.len() == 2, "not two scrapes");
    ensure!(agent.exports() > before, "nothing was exported");
    agent.end()?;
    Ok(used)
}

/// From the signal that ends the agent until the next one serves, milliseconds.
fn restarts(bench: &BenchContext) -> Result<Spread> {
    let mut agent = bench.serve()?;
    let mut times = Vec::new();
    for _ in 0..RESTARTS {
        // As after a while: it has a recording, and the first dumps are over.
        thread::sleep(bench.length);
        let began = Instant::now();
        agent.end()?;
        agent = bench.serve()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    agent.end()?;
    Ok(Spread::of(times))
}

/// Cores busy at the highest rate, `watch --quiet` and `serve` in turns, each a scrape and an export long.
fn under_load(bench: &BenchContext, load: &mut Load) -> Result<[Vec<AgentUse>; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..PAIRS {
        let watcher = bench.watch(&["--quiet"])?;
        thread::sleep(bench.length);
        let run = || load.run(bench.interval).map(drop);
        all[0].push(used(&watcher.process, run)?);
        watcher.end()?;
        let agent = bench.serve()?;
        thread::sleep(bench.length);
        let scraper = agent.scraper(bench.interval);
        let run = || load.run(bench.interval).map(drop);
        all[1].push(used(&agent.watcher.process, run)?);
        scraper.stop()?;
        agent.end()?;
    }
    Ok(all)
}

/// Scrapes with as many series as connections to many ports make. Returns their number, the bytes, and the times.
fn scrapes(bench: &BenchContext) -> Result<(usize, usize, Spread)> {
    say("scrapes of many series");
    let mut load = Load::with_ports(bench.cpus, PORTS)?;
    let agent = bench.serve()?;
    load.run(bench.length)?;
    let mut times = Vec::new();
    let mut last = agent.scrape()?;
    for _ in 0..SCRAPES {
        thread::sleep(STATE);
        last = agent.scrape()?;
        times.push(last.took.as_secs_f64() * 1e3);
    }
    agent.end()?;
    Ok((last.series(), last.body.len(), Spread::of(times)))
}

/// As for `watch --quiet`, with all outputs.
fn flood(bench: &BenchContext) -> Result<FloodCost> {
    say("serve under a SYN flood");
    let mut flooder = FloodProcess::start()?;
    let agent = bench.serve()?;
    let scraper = agent.scraper(bench.interval);
    let warm_up = flooder.flood(WARM_UP)?;
    let bytes_warm = agent.watcher.process.memory()?;
    let cpu = agent.watcher.process.cpu()?;
    let flooded = flooder.flood(bench.loss)?;
    let cpu = agent.watcher.process.cpu()?.saturating_sub(cpu);
    let bytes = agent.watcher.process.memory()?;
    scraper.stop()?;
    thread::sleep(STATE);
    let port = format!("port=\"{}\"", flooded.honest_port);
    let labels = [port.as_str(), "outcome=\"established\""];
    let seen = agent.scrape()?.sum("synprobe_handshakes_total", &labels);
    let recorded = agent.recorded()?;
    agent.end()?;
    Ok(FloodCost {
        seconds: flooded.seconds,
        syns_per_second: flooded.syns as f64 / flooded.seconds,
        cores: cpu.as_secs_f64() / flooded.seconds,
        // Both ends are on this host.
        honest: 2 * (warm_up.honest + flooded.honest),
        honest_seen: seen as u64,
        bytes_warm,
        bytes,
        recorded: Some(recorded),
    })
}
