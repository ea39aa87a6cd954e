//! The share of all cycles, in a load of requests, of the agent and of other tools.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context, Result};

use super::Spread;
use crate::{
    bench::{
        BenchContext, bpf,
        peer_tools::{self, PeerTool},
        process::{ChildProcess, Watcher},
        report::{RequestCost, RequestCosts, WatchedRequests},
        requests::{RequestLoad, RequestPlan, RequestSample},
        say,
    },
    workspace::target_dir,
};

/// Turns of each; other tools have the first only, as they cost many times more than the turns differ.
const TURNS: u32 = 2;
/// Requests a second.
const RATE: u32 = 5000;
/// With keep-alive: 20 % of the requests are on new connections.
const KEPT: u32 = 5;

/// What watches.
enum Subject<'a> {
    Nothing,
    WatchQuiet,
    Serve,
    Tool(&'a PeerTool),
}

impl Subject<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Nothing => "nothing",
            Self::WatchQuiet => "watch --quiet",
            Self::Serve => "serve",
            Self::Tool(tool) => tool.name,
        }
    }
}

/// One turn.
struct WatchedTurn {
    sample: RequestSample,
    process: Duration,
    programs_ns: u64,
}

/// Measures all of it.
pub(in crate::bench) fn requests(bench: &BenchContext) -> Result<RequestCosts> {
    let folder = target_dir().join("bench");
    let (mut tools, mut left_out) = (Vec::new(), BTreeMap::new());
    for found in peer_tools::find_all() {
        match found {
            Err(name) => {
                left_out.insert(name.to_owned(), "not installed".to_owned());
            }
            Ok(tool) => {
                match Watcher::peer(&tool.path, tool.args, &folder).and_then(Watcher::end) {
                    Ok(_) => tools.push(tool),
                    Err(error) => {
                        left_out.insert(tool.name.to_owned(), format!("{error:#}"));
                    }
                }
            }
        }
    }
    let mut subjects = vec![Subject::Nothing, Subject::WatchQuiet, Subject::Serve];
    subjects.extend(tools.iter().map(Subject::Tool));
    let mut load = RequestLoad::start(bench.cpus)?;
    let counting = bpf::count_run_time().context("counting the programs' run time")?;
    let mut costs = Vec::new();
    for per_connection in [KEPT, 1] {
        say(&format!(
            "{RATE} requests a second, {per_connection} a connection"
        ));
        let plan = RequestPlan {
            rate: RATE,
            per_connection,
        };
        let mut turns: Vec<Vec<WatchedTurn>> = subjects.iter().map(|_| Vec::new()).collect();
        for round in 0..TURNS {
            for (subject, turns) in subjects.iter().zip(&mut turns) {
                if round == 0 || !matches!(subject, Subject::Tool(_)) {
                    turns.push(turn(bench, subject, &mut load, plan)?);
                }
            }
        }
        costs.push(RequestCost {
            per_connection,
            watched: subjects
                .iter()
                .zip(&turns)
                .map(|(subject, turns)| summed(subject.name(), turns, bench.cpus))
                .collect(),
        });
    }
    drop(counting);
    Ok(RequestCosts {
        rate: RATE,
        costs,
        left_out,
    })
}

fn turn(
    bench: &BenchContext,
    subject: &Subject<'_>,
    load: &mut RequestLoad,
    plan: RequestPlan,
) -> Result<WatchedTurn> {
    // What a start costs is over by then.
    let settle = || thread::sleep(bench.length);
    let mut run = || load.run(bench.interval, plan);
    match subject {
        Subject::Nothing => Ok(WatchedTurn {
            sample: run()?,
            process: Duration::ZERO,
            programs_ns: 0,
        }),
        Subject::WatchQuiet => {
            let watcher = bench.watch(&["--quiet"])?;
            settle();
            let turn = measured(&watcher.process, run)?;
            watcher.end()?;
            Ok(turn)
        }
        Subject::Serve => {
            let agent = bench.serve()?;
            settle();
            let scraper = agent.scraper(bench.interval);
            let turn = measured(&agent.watcher.process, run)?;
            scraper.stop()?;
            agent.end()?;
            Ok(turn)
        }
        Subject::Tool(tool) => {
            let folder = target_dir().join("bench");
            let watcher = Watcher::peer(&tool.path, tool.args, &folder)?;
            settle();
            let turn = measured(&watcher.process, run)?;
            watcher.end()?;
            Ok(turn)
        }
    }
}

/// The load with the CPU time of a process and of its programs meanwhile.
fn measured(
    process: &ChildProcess,
    run: impl FnOnce() -> Result<RequestSample>,
) -> Result<WatchedTurn> {
    let programs = || -> BTreeMap<u32, u64> {
        let ids = process.programs().into_iter();
        ids.filter_map(|id| Some((id, bpf::program(id).ok()?.run_ns)))
            .collect()
    };
    let (before, cpu) = (programs(), process.cpu()?);
    let sample = run()?;
    let process_cpu = process.cpu()?.saturating_sub(cpu);
    let ran = programs();
    let of = |(id, ns): (&u32, &u64)| ns - before.get(id).unwrap_or(&0);
    Ok(WatchedTurn {
        sample,
        process: process_cpu,
        programs_ns: ran.iter().map(of).sum(),
    })
}

fn summed(name: &str, turns: &[WatchedTurn], cpus: usize) -> WatchedRequests {
    let spread = |of: &dyn Fn(&WatchedTurn) -> f64| Spread::of(turns.iter().map(of).collect());
    // The programs run in the load's own time.
    let own = |t: &WatchedTurn| t.process.as_nanos() as f64 + t.programs_ns as f64;
    let busy = |t: &WatchedTurn| t.sample.cpu_ns as f64 + t.process.as_nanos() as f64;
    let machine = |t: &WatchedTurn| cpus as f64 * t.sample.seconds * 1e9;
    WatchedRequests {
        watched: name.to_owned(),
        requests_per_second: spread(&|t| t.sample.requests as f64 / t.sample.seconds).median,
        connections_per_second: spread(&|t| t.sample.connections as f64 / t.sample.seconds).median,
        load_cores: spread(&|t| t.sample.cpu_ns as f64 / 1e9 / t.sample.seconds).median,
        process_cores: spread(&|t| t.process.as_secs_f64() / t.sample.seconds).median,
        programs_cores: spread(&|t| t.programs_ns as f64 / 1e9 / t.sample.seconds).median,
        share_of_busy: spread(&|t| own(t) / busy(t)),
        share_of_machine: spread(&|t| own(t) / machine(t)),
    }
}
