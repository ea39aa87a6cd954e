//! One turn: a watcher and the load, together for a while.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use serde_json::Value;

use crate::bench::{bpf, load::Load, process::Watcher};

/// The turns of one configuration so far.
#[derive(Default)]
pub(super) struct Turns {
    /// By program name: nanoseconds and runs.
    pub(super) programs: BTreeMap<String, (u64, u64)>,
    pub(super) ns_per_connection: Vec<f64>,
    pub(super) cpu_ns_per_record: Vec<f64>,
    pub(super) cpu_ns_per_line: Vec<f64>,
    pub(super) cpu_ns_per_connection: Vec<f64>,
}

/// Adds a turn with one peer.
pub(super) fn turn(
    turns: &mut Turns,
    watcher: Watcher,
    length: Duration,
    load: &mut Load,
) -> Result<()> {
    turn_with(turns, watcher, length, load, 1)
}

/// Adds a turn in which the load comes from `peers` addresses; ends the watcher.
pub(super) fn turn_with(
    turns: &mut Turns,
    watcher: Watcher,
    length: Duration,
    load: &mut Load,
    peers: u16,
) -> Result<()> {
    let counters = |watcher: &Watcher| -> BTreeMap<u32, bpf::ProgramStats> {
        let ids = watcher.process.programs().into_iter();
        ids.filter_map(|id| Some((id, bpf::program(id).ok()?)))
            .collect()
    };
    let before = counters(&watcher);
    let sample = load.run_with(length, peers)?;
    let mut ns = 0;
    for (id, after) in counters(&watcher) {
        let (ns_before, runs_before) = before.get(&id).map_or((0, 0), |p| (p.run_ns, p.runs));
        let (in_it, runs) = (after.run_ns - ns_before, after.runs - runs_before);
        // A loaded program that does not run costs nothing.
        if runs > 0 {
            let sum = turns.programs.entry(after.name).or_default();
            sum.0 += in_it;
            sum.1 += runs;
            ns += in_it;
        }
    }
    let ended = watcher.end()?;
    let connections = sample.connections as f64;
    let cpu = ended.cpu.as_nanos() as f64;
    turns.ns_per_connection.push(ns as f64 / connections);
    // Only the agent ends with totals.
    let totals: Option<Value> = serde_json::from_str(&ended.last).ok();
    if let Some(records) = totals.and_then(|end| end.get("events")?.as_f64()) {
        turns.cpu_ns_per_record.push(cpu / records);
    }
    turns.cpu_ns_per_line.push(cpu / ended.lines as f64);
    turns.cpu_ns_per_connection.push(cpu / connections);
    Ok(())
}
