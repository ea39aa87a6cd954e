//! Kernel time in quiet mode as the number of peers, of listed ports and of load threads grows.

use anyhow::{Context, Result};

use super::{
    median,
    turns::{Turns, turn, turn_with},
};
use crate::bench::{
    BenchContext, bpf,
    load::{Load, PORT},
    report::GrowthPoint,
    say,
};

/// Turns of each point.
const CURVE_TURNS: u32 = 3;

/// Measures each point of each curve.
pub(super) fn growth(bench: &BenchContext, load: &mut Load) -> Result<Vec<GrowthPoint>> {
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
        growth.push(GrowthPoint {
            what: what.to_owned(),
            n,
            ns_per_connection: median(&mut turns.ns_per_connection),
        });
    }
    for threads in 1..=bench.cpus {
        let mut load = Load::start(threads)?;
        let mut turns = Turns::default();
        for _ in 0..CURVE_TURNS {
            let watcher = bench.watch(&["--quiet"])?;
            turn(&mut turns, watcher, bench.length, &mut load)?;
        }
        growth.push(GrowthPoint {
            what: "load threads".to_owned(),
            n: threads,
            ns_per_connection: median(&mut turns.ns_per_connection),
        });
    }
    drop(counting);
    Ok(growth)
}
