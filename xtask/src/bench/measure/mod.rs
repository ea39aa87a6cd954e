//! The measurements, one file a subject. What is compared alternates, so that a busy moment of the
//! machine affects both sides.

mod agent;
mod growth;
mod kernel;
mod recording;
mod requests;
mod serve;
mod throughput;
mod turns;

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};

use super::{
    BenchContext, bpf, flood,
    load::Load,
    report::{BenchReport, Machine, RecordingReport, RequestReport, ServeReport, Spread},
    say,
};

/// Runs every measurement, in order.
///
/// # Errors
///
/// When the load or a watcher fails.
pub fn everything(bench: &BenchContext) -> Result<BenchReport> {
    let mut threads = vec![bench.cpus];
    if bench.cpus > 1 {
        // With a core to itself the agent does not compete with the load: what is left is the cost of
        // the kernel side.
        threads.push(bench.cpus - 1);
    }
    let machine = machine(bench)?;
    let mut throughput = Vec::new();
    for &threads in &threads {
        for quiet in [true, false] {
            throughput.push(throughput::alternate(bench, threads, quiet)?);
        }
    }
    let mut load = Load::start(bench.cpus)?;
    load.run(Duration::from_millis(200))?;
    let costs = kernel::costs(bench, &mut load)?;
    let growth = growth::growth(bench, &mut load)?;
    say("records lost at the highest rate");
    let (loss, under_load) = agent::highest_rate(bench, &mut load)?;
    let recording = recording::recording(bench, &mut load)?;
    drop(load);
    say("the idle agent");
    let agent = agent::idle(bench, under_load, &costs.streaming)?;
    // Last: the kernel needs a while to free a million half-opens.
    let flooded = flood::flood(bench)?;
    let served = serve::serve(bench)?;
    let requests = requests::requests(bench)?;
    let half_opens = flood::half_opens(bench)?;
    Ok(BenchReport {
        machine,
        throughput,
        connection_ns: costs.connection_ns,
        kernel: costs.kernel,
        growth,
        loss,
        flood: flooded,
        half_opens,
        recording,
        serve: served,
        requests,
        agent,
        peers: costs.peers,
    })
}

/// Measures recordings and their replay, and nothing else.
///
/// # Errors
///
/// As [`everything`].
pub fn recording_alone(bench: &BenchContext) -> Result<RecordingReport> {
    let machine = machine(bench)?;
    let mut load = Load::start(bench.cpus)?;
    load.run(Duration::from_millis(200))?;
    let recording = recording::recording(bench, &mut load)?;
    Ok(RecordingReport { machine, recording })
}

/// Measures `serve` beside `watch --quiet`, and nothing else.
///
/// # Errors
///
/// As [`everything`].
pub fn serve_alone(bench: &BenchContext) -> Result<ServeReport> {
    Ok(ServeReport {
        machine: machine(bench)?,
        serve: serve::serve(bench)?,
    })
}

/// Measures the load of requests, and nothing else.
///
/// # Errors
///
/// As [`everything`].
pub fn requests_alone(bench: &BenchContext) -> Result<RequestReport> {
    Ok(RequestReport {
        machine: machine(bench)?,
        requests: requests::requests(bench)?,
    })
}

fn machine(bench: &BenchContext) -> Result<Machine> {
    Ok(Machine {
        kernel: release(),
        cpus: bench.cpus,
        others: others()?,
    })
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Other programs that run on events, and so may slow down what is measured.
fn others() -> Result<BTreeMap<String, u32>> {
    let ids = bpf::ids().context("listing eBPF programs")?;
    let programs = ids.into_iter().filter_map(|id| bpf::program(id).ok());
    let mut others = BTreeMap::new();
    for program in programs.filter(|program| program.tracing) {
        *others.entry(program.name).or_default() += 1;
    }
    Ok(others)
}

/// The median, NaN where there are no values.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
