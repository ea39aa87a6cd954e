//! The agent at the highest rate, and idle.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use super::kernel::StreamingCost;
use crate::bench::{
    BenchContext,
    load::{Load, Sample},
    process::FinishedWatcher,
    report::{AgentCost, LossResult},
};

/// How long the idle agent is measured.
const IDLE: Duration = Duration::from_secs(20);

/// The agent at the highest rate that loopback gives.
pub(super) struct UnderLoad {
    ended: FinishedWatcher,
    sample: Sample,
    records: u64,
    peak: u64,
    ready_after: Duration,
}

/// Measures the highest rate, looking for lost records.
pub(super) fn highest_rate(
    bench: &BenchContext,
    load: &mut Load,
) -> Result<(LossResult, UnderLoad)> {
    let before = load.run(bench.length)?.rate();
    let watcher = bench.watch(&[])?;
    let sample = load.run(bench.loss)?;
    let ready_after = watcher.ready_after;
    // The agent drains the ring in this time, or when it ends.
    thread::sleep(Duration::from_millis(200));
    let peak = watcher.process.peak_memory()?;
    let ended = watcher.end()?;
    // Other work on the machine can only make the load slower.
    let unwatched = before.max(load.run(bench.length)?.rate());
    let end: Value = serde_json::from_str(&ended.last)
        .with_context(|| format!("the agent's last line: {}", ended.last))?;
    let number = |name: &str| {
        let value = end.get(name).and_then(Value::as_u64);
        value.with_context(|| format!("no {name} in the agent's last line: {end}"))
    };
    let records = number("events")?;
    let loss = LossResult {
        seconds: sample.seconds,
        connections_per_second: sample.rate(),
        of_unwatched: sample.rate() / unwatched,
        records,
        lost: number("lost")?,
        reasons: ended.losses.clone(),
        handshakes: number("handshakes")?,
        connections: sample.connections,
        file_bytes: ended.bytes,
    };
    let under_load = UnderLoad {
        ended,
        sample,
        records,
        peak,
        ready_after,
    };
    Ok((loss, under_load))
}

/// Measures the agent without load.
pub(super) fn idle(
    bench: &BenchContext,
    load: UnderLoad,
    streaming: &StreamingCost,
) -> Result<AgentCost> {
    let watcher = bench.watch(&["--quiet"])?;
    // The work of starting is done by then.
    thread::sleep(bench.length);
    let (before, wakeups) = (watcher.process.cpu()?, watcher.process.wakeups()?);
    thread::sleep(IDLE);
    let cpu = watcher.process.cpu()?.saturating_sub(before);
    let wakeups = watcher.process.wakeups()?.saturating_sub(wakeups);
    let now = watcher.process.memory()?;
    let peak = watcher.process.peak_memory()?;
    let ended = watcher.end()?;
    let end: Value = serde_json::from_str(&ended.last).unwrap_or_default();
    let cpu_ns = load.ended.cpu.as_nanos() as f64;
    Ok(AgentCost {
        cpu_ns_per_record: streaming.ns_per_record,
        cpu_ns_per_line: streaming.ns_per_line,
        cpu_ns_per_connection: streaming.ns_per_connection,
        cpu_ns_per_record_at_length: cpu_ns / load.records as f64,
        cores_under_load: load.ended.cpu.as_secs_f64() / load.sample.seconds,
        cores_idle: cpu.as_secs_f64() / IDLE.as_secs_f64(),
        wakeups_idle: wakeups as f64 / IDLE.as_secs_f64(),
        bytes_idle: now,
        records_while_idle: end.get("events").and_then(Value::as_u64).unwrap_or(0),
        peak_bytes_under_load: load.peak,
        peak_bytes_idle: peak,
        ready_after_ms: load.ready_after.as_secs_f64() * 1e3,
    })
}
