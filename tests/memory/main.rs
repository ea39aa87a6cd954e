//! Full tables keep to their budget (`--max-memory`), whoever chooses what is in them.
//!
//! Each case runs in a process of its own: the memory of a process never shrinks to where it began.

mod fill;
mod join;
mod two_ends;

use std::{env, process::Command};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use synprobe::{
    util::table_bounds::{PROGRAM_MEMORY, TableBounds},
    verdict::Mode,
};
use synprobe_tests::binary::status_kib;

/// Set in the process of a case: its budget, MiB.
const BUDGET: &str = "SYNPROBE_TEST_BUDGET";
/// The ring that the budget has room for, bytes.
const RING: u64 = 1 << 20;

fn main() {
    let mut arguments = Arguments::from_args();
    // What they take is measured by process, but two at once could take the memory of a small machine.
    arguments.test_threads = Some(1);
    let case = |mib: u64, windowed: bool| {
        let name = format!("{mib}M-{}", if windowed { "serve" } else { "diagnose" });
        let own = name.clone();
        Trial::test(name, move || match env::var_os(BUDGET) {
            Some(_) => Ok(keeps_to(mib, windowed)?),
            None => Ok(in_a_process(&own)?),
        })
    };
    let cases = [(64, true), (64, false), (160, true)];
    let mut cases: Vec<Trial> = cases.map(|(mib, windowed)| case(mib, windowed)).into();
    cases.push(Trial::test("join-recordings", || Ok(join::recordings()?)));
    cases.push(Trial::test("join-floods", || Ok(join::floods()?)));
    cases.push(Trial::test("join-lines", || Ok(join::lines()?)));
    cases.push(Trial::test(
        "join-longer-recordings",
        || Ok(join::longer()?),
    ));
    libtest_mimic::run(&arguments, cases).exit();
}

/// Runs one case in a process of its own.
fn in_a_process(name: &str) -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    let ran = command
        .args(["--exact", name, "--nocapture"])
        .env(BUDGET, "1")
        .output()?;
    let said = String::from_utf8_lossy(&ran.stdout);
    ensure!(ran.status.success(), "{said}");
    for line in said.lines() {
        // What the test prints follows its name.
        if let Some((_, figure)) = line.split_once("figure: ") {
            println!("figure: {figure}");
        }
    }
    Ok(())
}

/// Fills every table far beyond its bound.
fn keeps_to(mib: u64, windowed: bool) -> Result<()> {
    let budget = mib << 20;
    let bounds = TableBounds::within(budget, RING);
    let mode = if windowed {
        Mode::AtOnce
    } else {
        Mode::AtTheEnd
    };
    let resident = |of: &str| Ok::<u64, anyhow::Error>(status_kib(std::process::id(), of)? << 10);
    let before = resident("VmRSS")?;
    let mut run = fill::FilledEngine::new(bounds, mode, windowed);
    let mut had = before;
    let mut said = format!("figure: {mib} MiB");
    for (what, entries, fill) in fill::steps(&bounds) {
        fill(&mut run, entries);
        let has = resident("VmRSS")?;
        let more = has.saturating_sub(had);
        said += &format!(
            "; {what}: {:.1} MiB, {} bytes for each of {entries}",
            more as f64 / (1 << 20) as f64,
            more / entries as u64
        );
        had = has;
    }
    let most = resident("VmHWM")?.checked_sub(before).context("VmHWM")?;
    println!("{said}; at most {} MiB more than at first", most >> 20);
    run.ends()?;
    ensure!(run.evicted > 0, "nothing was evicted, so nothing was full");
    ensure!(
        run.evicted == run.told,
        "{} evicted, {} told",
        run.evicted,
        run.told
    );
    let room = budget - RING - PROGRAM_MEMORY;
    ensure!(most <= room, "{most} bytes, and {room} are there");
    Ok(())
}
