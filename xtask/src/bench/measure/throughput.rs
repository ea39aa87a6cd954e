//! Connections per second with and without the agent.

use std::time::Duration;

use anyhow::Result;

use crate::bench::{
    BenchContext,
    load::Load,
    report::{Spread, Throughput},
    say,
};

/// Measures pairs of runs, with and without the agent.
pub(super) fn alternate(bench: &BenchContext, threads: usize, quiet: bool) -> Result<Throughput> {
    let args: &[&str] = if quiet { &["--quiet"] } else { &[] };
    say(&format!(
        "connections per second from {threads} threads, with and without watch {}",
        args.join(" ")
    ));
    let mut load = Load::start(threads)?;
    load.run(Duration::from_millis(500))?;
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let mut pair = [0.0; 2];
        // Either side is first in turn.
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
