//! Every command that a scenario of the lab has printed runs: those that only look, and those that mend.

use std::{collections::BTreeSet, sync::atomic::AtomicBool};

use anyhow::{Result, bail, ensure};
use synprobe_lab::{Scenario, SocketFamily};
use synprobe_tests::harness::{Undecided, figure};

use super::{stage::Stage, steps::commands};

/// Runs a scenario beside `diagnose`, then all commands of the remedies of its handshakes and problems.
pub fn looks(scenario: &'static dyn Scenario, family: SocketFamily) -> Result<()> {
    let stage = Stage::new(scenario.name(), family)?;
    let (lines, lost) = stage.lines(&[], || {
        scenario.run(&stage.lab, &AtomicBool::new(false)).map(drop)
    })?;
    let mut remedies = BTreeSet::new();
    for line in &lines {
        if let Some(remedy) = line["remedy"].as_str() {
            remedies.insert(remedy);
        }
    }
    if remedies.is_empty() && lost > 0 {
        // A verdict that rests on something not seen is withdrawn then.
        bail!(Undecided(format!("{lost} records were lost")));
    }
    ensure!(!remedies.is_empty(), "no remedy is printed: {lines:?}");
    // Of many peers the first ones stand for all: their commands differ by an address.
    let mut shapes = BTreeSet::new();
    let (mut ran, mut not_run) = (BTreeSet::new(), 0);
    for remedy in remedies {
        for step in commands(remedy) {
            let shape: String = step
                .command
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .collect();
            if shapes.insert(shape) {
                let runs = stage.run_step(&step, remedy)?;
                not_run += runs.not_run.len();
                ran.insert(step.command);
            }
        }
    }
    figure(format!(
        "{}: {} commands ran as printed, {not_run} not: {}",
        stage.name,
        ran.len() - not_run,
        Vec::from_iter(ran).join(" | ")
    ));
    Ok(())
}
