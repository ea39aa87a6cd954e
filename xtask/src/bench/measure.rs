//! The measurements. Whatever is compared alternates, so that a busy moment hits both sides.

use std::time::Duration;
use std::{collections::BTreeMap, fs, thread};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Bench, bpf, flood,
    load::{Load, PORT, Sample},
    process::{Ended, Watcher},
    report::{
        Agent, Growth, KernelCost, Loss, Machine, Peer, ProgramCost, Report, Spread, Throughput,
    },
    say,
};
use crate::workspace::target_dir;

/// The kernel's cost is the median of so many turns.
const TURNS: u32 = 7;
/// How long an idle agent is looked at.
const IDLE: Duration = Duration::from_secs(20);
/// Turns of each point of a curve.
const CURVE_TURNS: u32 = 3;
/// A port nobody in the load uses.
const NOBODYS_PORT: &str = "9";

/// Everything, in order.
///
/// # Errors
///
/// When the load or a watcher fails.
pub fn everything(bench: &Bench) -> Result<Report> {
    let mut threads = vec![bench.cpus];
    if bench.cpus > 1 {
        // The agent has a core to itself: what is left is what the kernel side costs.
        threads.push(bench.cpus - 1);
    }
    let machine = Machine {
        kernel: release(),
        cpus: bench.cpus,
        others: others()?,
    };
    let mut throughput = Vec::new();
    for &threads in &threads {
        for quiet in [true, false] {
            throughput.push(alternate(bench, threads, quiet)?);
        }
    }
    let mut load = Load::start(bench.cpus)?;
    load.run(Duration::from_millis(200))?;
    let costs = costs(bench, &mut load)?;
    let growth = growth(bench, &mut load)?;
    say("records lost at the highest rate");
    let (loss, under_load) = highest_rate(bench, &mut load)?;
    drop(load);
    say("the agent, idle");
    let agent = idle(bench, under_load, &costs.streaming)?;
    // Last: the kernel is busy for a while with burying a million half-opens.
    let flooded = flood::flood(bench)?;
    let half_opens = flood::half_opens(bench)?;
    Ok(Report {
        machine,
        throughput,
        connection_ns: costs.connection_ns,
        kernel: costs.kernel,
        growth,
        loss,
        flood: flooded,
        half_opens,
        agent,
        peers: costs.peers,
    })
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Programs of others that run on events, and so may slow what is measured.
fn others() -> Result<BTreeMap<String, u32>> {
    let ids = bpf::ids().context("listing eBPF programs")?;
    let programs = ids.into_iter().filter_map(|id| bpf::program(id).ok());
    let mut others = BTreeMap::new();
    for program in programs.filter(|program| program.tracing) {
        *others.entry(program.name).or_default() += 1;
    }
    Ok(others)
}

/// Connections a second with and without the agent, in pairs.
fn alternate(bench: &Bench, threads: usize, quiet: bool) -> Result<Throughput> {
    let args: &[&str] = if quiet { &["--quiet"] } else { &[] };
    say(&format!(
        "connections a second from {threads} threads, with and without watch {}",
        args.join(" ")
    ));
    let mut load = Load::start(threads)?;
    load.run(Duration::from_millis(500))?;
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let mut pair = [0.0; 2];
        // Neither side is always first.
        for watched in [round % 2 == 0, round % 2 != 0] {
            let watcher = if watched {
                Some(bench.watch(args)?)
            } else {
                None
            };
            pair[usize::from(watched)] = load.run(bench.length)?.rate();
            if let Some(watcher) = watcher {
                watcher.end()?;
            }
        }
        without.push(pair[0]);
        with.push(pair[1]);
        ratios.push(pair[1] / pair[0]);
    }
    Ok(Throughput {
        threads,
        quiet,
        without: Spread::of(without),
        with: Spread::of(with),
        ratio: Spread::of(ratios),
    })
}

/// One configuration's turns, so far.
#[derive(Default)]
struct Turns {
    programs: BTreeMap<String, (u64, u64)>,
    ns_per_connection: Vec<f64>,
    cpu_ns_per_record: Vec<f64>,
    cpu_ns_per_line: Vec<f64>,
    cpu_ns_per_connection: Vec<f64>,
}

/// What was measured of everybody turn by turn, by the same load.
struct Costs {
    /// CPU time of a connection that nobody watches.
    connection_ns: f64,
    kernel: Vec<KernelCost>,
    peers: Vec<Peer>,
    streaming: Streaming,
}

/// What reading, judging and writing takes of the agent where everything is streamed.
struct Streaming {
    ns_per_record: f64,
    ns_per_line: f64,
    ns_per_connection: f64,
}

/// Everything streamed, among what the agent is asked for.
const STREAMING: usize = 1;

/// The kernel time of each program, by what the agent was asked to watch, and of those beside it; the CPU
/// time of those who read them.
fn costs(bench: &Bench, load: &mut Load) -> Result<Costs> {
    say("kernel time of each program");
    let port = format!("{PORT}-{}", usize::from(PORT) + bench.cpus);
    let asked: [(&str, Vec<&str>); 4] = [
        ("quiet", vec!["--quiet"]),
        ("no filter", vec![]),
        ("a port that matches", vec!["--port", &port]),
        ("a port that does not", vec!["--port", NOBODYS_PORT]),
    ];
    let mut turns: Vec<Turns> = asked.iter().map(|_| Turns::default()).collect();
    let folder = target_dir().join("bench");
    let mut peers: Vec<_> = bench.peers.iter().collect();
    peers.retain(|peer| {
        let trial = Watcher::peer(&peer.path, peer.args, &folder).and_then(Watcher::end);
        if let Err(error) = &trial {
            eprintln!("xtask: {} is left out: {error:#}", peer.name);
        }
        trial.is_ok()
    });
    let mut peers_turns: Vec<Turns> = peers.iter().map(|_| Turns::default()).collect();
    let counting = bpf::count_run_time().context("counting the programs' run time")?;
    let mut unwatched = Vec::new();
    for _ in 0..TURNS {
        unwatched.push(bench.cpus as f64 * 1e9 / load.run(bench.length)?.rate());
        for ((_, args), turns) in asked.iter().zip(&mut turns) {
            turn(turns, bench.watch(args)?, bench.length, load)?;
        }
        for (peer, turns) in peers.iter().zip(&mut peers_turns) {
            let watcher = Watcher::peer(&peer.path, peer.args, &folder)?;
            turn(turns, watcher, bench.length, load)?;
        }
    }
    drop(counting);

    let connection_ns = median(&mut unwatched).unwrap_or(f64::NAN);
    let streamed = &mut turns[STREAMING];
    let cpu = [
        &mut streamed.cpu_ns_per_record,
        &mut streamed.cpu_ns_per_line,
        &mut streamed.cpu_ns_per_connection,
    ];
    let cpu = cpu.map(|values| median(values).unwrap_or(f64::NAN));
    let cost = |name: &str, mut turns: Turns| {
        let ns = median(&mut turns.ns_per_connection).unwrap_or(f64::NAN);
        let programs = turns
            .programs
            .into_iter()
            .map(|(name, (ns, runs))| ProgramCost {
                name,
                runs,
                ns_per_run: ns as f64 / runs as f64,
            });
        KernelCost {
            watched: name.to_owned(),
            programs: programs.collect(),
            ns_per_connection: ns,
            of_a_connection: ns / connection_ns,
        }
    };
    let mut costs: Vec<_> = asked
        .iter()
        .zip(turns)
        .map(|((name, _), turns)| cost(name, turns))
        .collect();
    let [ns_per_record, ns_per_line, ns_per_connection] = cpu;
    let streaming = Streaming {
        ns_per_record,
        ns_per_line,
        ns_per_connection,
    };
    let mut found = Vec::new();
    for (peer, mut turns) in peers.into_iter().zip(peers_turns) {
        found.push(Peer {
            name: peer.name.to_owned(),
            path: peer.path.display().to_string(),
            cpu_ns_per_line: median(&mut turns.cpu_ns_per_line).unwrap_or(f64::NAN),
            cpu_ns_per_connection: median(&mut turns.cpu_ns_per_connection).unwrap_or(f64::NAN),
        });
        costs.push(cost(peer.name, turns));
    }
    Ok(Costs {
        connection_ns,
        kernel: costs,
        peers: found,
        streaming,
    })
}

/// The quiet mode's kernel time by the number of peers and of listed ports.
fn growth(bench: &Bench, load: &mut Load) -> Result<Vec<Growth>> {
    say("how the kernel time grows");
    let counting = bpf::count_run_time().context("counting the programs' run time")?;
    let last = usize::from(PORT) + bench.cpus - 1;
    let listed = |n: usize| format!("{}-{last}", last + 1 - n.max(bench.cpus));
    let points = [1, 10, 100, 1000].map(|n| ("peers", usize::from(n), n, None));
    let ports = [1, 16, 1024].map(|n| ("listed ports", n, 1, Some(listed(n))));
    let mut growth = Vec::new();
    for (what, n, peers, ports) in points.into_iter().chain(ports) {
        let mut args = vec!["--quiet"];
        if let Some(ports) = &ports {
            args.extend(["--port", ports]);
        }
        let mut turns = Turns::default();
        for _ in 0..CURVE_TURNS {
            turn_with(&mut turns, bench.watch(&args)?, bench.length, load, peers)?;
        }
        growth.push(Growth {
            what: what.to_owned(),
            n,
            ns_per_connection: median(&mut turns.ns_per_connection).unwrap_or(f64::NAN),
        });
    }
    for threads in 1..=bench.cpus {
        let mut load = Load::start(threads)?;
        let mut turns = Turns::default();
        for _ in 0..CURVE_TURNS {
            let watcher = bench.watch(&["--quiet"])?;
            turn(&mut turns, watcher, bench.length, &mut load)?;
        }
        growth.push(Growth {
            what: "load threads".to_owned(),
            n: threads,
            ns_per_connection: median(&mut turns.ns_per_connection).unwrap_or(f64::NAN),
        });
    }
    drop(counting);
    Ok(growth)
}

fn turn(turns: &mut Turns, watcher: Watcher, length: Duration, load: &mut Load) -> Result<()> {
    turn_with(turns, watcher, length, load, 1)
}

fn turn_with(
    turns: &mut Turns,
    watcher: Watcher,
    length: Duration,
    load: &mut Load,
    peers: u16,
) -> Result<()> {
    let counters = |watcher: &Watcher| -> BTreeMap<u32, bpf::Program> {
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
        // A program that is loaded and never runs costs nothing and would only lengthen the table.
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
    // Of the agent alone.
    let said: Option<Value> = serde_json::from_str(&ended.last).ok();
    if let Some(records) = said.and_then(|end| end.get("events")?.as_f64()) {
        turns.cpu_ns_per_record.push(cpu / records);
    }
    turns.cpu_ns_per_line.push(cpu / ended.lines as f64);
    turns.cpu_ns_per_connection.push(cpu / connections);
    Ok(())
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The agent under the highest rate that the loopback gives.
struct UnderLoad {
    ended: Ended,
    sample: Sample,
    records: u64,
    peak: u64,
    ready_after: Duration,
}

fn highest_rate(bench: &Bench, load: &mut Load) -> Result<(Loss, UnderLoad)> {
    let before = load.run(bench.length)?.rate();
    let watcher = bench.watch(&[])?;
    let sample = load.run(bench.loss)?;
    let ready_after = watcher.ready_after;
    // What the ring still holds is drained in this time, or at the end.
    thread::sleep(Duration::from_millis(200));
    let peak = watcher.process.peak_memory()?;
    let ended = watcher.end()?;
    // Whatever else the machine does can only make it slower.
    let unwatched = before.max(load.run(bench.length)?.rate());
    let end: Value = serde_json::from_str(&ended.last)
        .with_context(|| format!("the agent's last line: {}", ended.last))?;
    let number = |name: &str| {
        let value = end.get(name).and_then(Value::as_u64);
        value.with_context(|| format!("no {name} in the agent's last line: {end}"))
    };
    let records = number("events")?;
    let loss = Loss {
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

fn idle(bench: &Bench, load: UnderLoad, streaming: &Streaming) -> Result<Agent> {
    let watcher = bench.watch(&["--quiet"])?;
    // What starting leaves to do is done by then.
    thread::sleep(bench.length);
    let (before, woken) = (watcher.process.cpu()?, watcher.process.wakeups()?);
    thread::sleep(IDLE);
    let cpu = watcher.process.cpu()?.saturating_sub(before);
    let woken = watcher.process.wakeups()?.saturating_sub(woken);
    let now = watcher.process.memory()?;
    let peak = watcher.process.peak_memory()?;
    let ended = watcher.end()?;
    let end: Value = serde_json::from_str(&ended.last).unwrap_or_default();
    let cpu_ns = load.ended.cpu.as_nanos() as f64;
    Ok(Agent {
        cpu_ns_per_record: streaming.ns_per_record,
        cpu_ns_per_line: streaming.ns_per_line,
        cpu_ns_per_connection: streaming.ns_per_connection,
        cpu_ns_per_record_at_length: cpu_ns / load.records as f64,
        cores_under_load: load.ended.cpu.as_secs_f64() / load.sample.seconds,
        cores_idle: cpu.as_secs_f64() / IDLE.as_secs_f64(),
        wakeups_idle: woken as f64 / IDLE.as_secs_f64(),
        bytes_idle: now,
        records_while_idle: end.get("events").and_then(Value::as_u64).unwrap_or(0),
        peak_bytes_under_load: load.peak,
        peak_bytes_idle: peak,
        ready_after_ms: load.ready_after.as_secs_f64() * 1e3,
    })
}
