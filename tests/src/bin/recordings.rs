//! Makes the recordings of `tests/recordings/`, or their expectations. `cargo xtask recordings` runs it.

use std::{fs, process::ExitCode, sync::Mutex, thread};

use anyhow::{Result, ensure};
use clap::Parser;
use synprobe_lab::SocketFamily;
use synprobe_tests::{harness, recordings, translated};

/// Recordings made at the same time: most of a scenario is waiting.
const JOBS: usize = 8;

/// Make the recordings of tests/recordings/, or their expectations
#[derive(Parser)]
struct RecordingsCli {
    /// Write the expectations of all recordings anew
    #[arg(long)]
    bless: bool,
    /// Record every scenario anew, then bless. Needs root
    #[arg(long)]
    make: bool,
    /// With --make: only scenarios with this in their name
    #[arg(long, value_name = "NAME", requires = "make")]
    only: Option<String>,
}

fn main() -> ExitCode {
    match run(&RecordingsCli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recordings: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &RecordingsCli) -> Result<()> {
    ensure!(cli.bless || cli.make, "give --bless or --make");
    if cli.make {
        make(cli.only.as_deref().unwrap_or_default())?;
    }
    let changed = recordings::bless()? + translated::bless()?;
    println!("{changed} expectations changed");
    Ok(())
}

fn make(only: &str) -> Result<()> {
    fs::create_dir_all(recordings::folder())?;
    let mut jobs = Vec::new();
    for scenario in harness::scenarios().into_iter().rev() {
        for family in [SocketFamily::V4, SocketFamily::V6] {
            if scenario.name().contains(only) && scenario.supports(family) {
                jobs.push((scenario, family));
            }
        }
    }
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().ok().and_then(|mut jobs| jobs.pop());
    let failures: usize = thread::scope(|scope| {
        let work = || {
            let mut failures = 0;
            while let Some((scenario, family)) = next() {
                let name = format!("{}, {}", scenario.name(), harness::family_name(family));
                if let Err(error) = recordings::make(scenario, family) {
                    eprintln!("{name}: {error:#}");
                    failures += 1;
                }
            }
            failures
        };
        let workers: Vec<_> = (0..JOBS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|w| w.join().unwrap_or(1)).sum()
    });
    ensure!(failures == 0, "{failures} recordings failed");
    Ok(())
}
