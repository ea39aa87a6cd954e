//! Kernel time of each program, and CPU time of the processes that read their events.

use anyhow::{Context, Result};

use super::{
    median,
    turns::{Turns, turn},
};
use crate::{
    bench::{
        BenchContext, bpf,
        load::{Load, PORT},
        process::Watcher,
        report::{KernelCost, PeerToolCost, ProgramCost},
        say,
    },
    workspace::target_dir,
};

/// Turns of each configuration; the result is their median.
const TURNS: u32 = 7;
/// A port that the load does not use.
const UNUSED_PORT: &str = "9";

/// The costs of all configurations, measured in turns on one load.
pub(super) struct Costs {
    /// CPU time of an unwatched connection, nanoseconds.
    pub(super) connection_ns: f64,
    pub(super) kernel: Vec<KernelCost>,
    pub(super) peers: Vec<PeerToolCost>,
    pub(super) streaming: StreamingCost,
}

/// The agent's CPU time while every event is streamed, nanoseconds.
pub(super) struct StreamingCost {
    pub(super) ns_per_record: f64,
    pub(super) ns_per_line: f64,
    pub(super) ns_per_connection: f64,
}

/// Index of the configuration in which every event is streamed.
const STREAMING: usize = 1;

/// Measures the kernel time of the agent's programs in each configuration and of the peer tools'
/// programs, and the CPU time of the processes.
pub(super) fn costs(bench: &BenchContext, load: &mut Load) -> Result<Costs> {
    say("kernel time of each program");
    let port = format!("{PORT}-{}", usize::from(PORT) + bench.cpus);
    let asked: [(&str, Vec<&str>); 4] = [
        ("quiet", vec!["--quiet"]),
        ("no filter", vec![]),
        ("a port that matches", vec!["--port", &port]),
        ("a port that does not", vec!["--port", UNUSED_PORT]),
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

    let connection_ns = median(&mut unwatched);
    let streamed = &mut turns[STREAMING];
    let cpu = [
        &mut streamed.cpu_ns_per_record,
        &mut streamed.cpu_ns_per_line,
        &mut streamed.cpu_ns_per_connection,
    ];
    let cpu = cpu.map(|values| median(values));
    let cost = |name: &str, mut turns: Turns| {
        let ns = median(&mut turns.ns_per_connection);
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
    let streaming = StreamingCost {
        ns_per_record,
        ns_per_line,
        ns_per_connection,
    };
    let mut found = Vec::new();
    for (peer, mut turns) in peers.into_iter().zip(peers_turns) {
        found.push(PeerToolCost {
            name: peer.name.to_owned(),
            path: peer.path.display().to_string(),
            cpu_ns_per_line: median(&mut turns.cpu_ns_per_line),
            cpu_ns_per_connection: median(&mut turns.cpu_ns_per_connection),
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
