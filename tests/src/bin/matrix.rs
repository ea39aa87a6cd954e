//! `cargo xtask matrix`: runs every scenario of the lab many times, in both families, with jitter and healthy
//! background traffic, and compares causes with the verdicts of `diagnose`.

use std::{
    fmt::Write as _,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use synprobe::{
    filter::Detail,
    pipeline::Setup,
    preflight::{self, Ready},
    util::table_bounds::TableBounds,
    verbs::lab,
    verdict::Mode,
    view::Discarded,
};
use synprobe_lab::{self, Classification, ConfusionMatrix, Jitter, Lab, Scenario, SocketFamily};

/// Runs the confusion matrix.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask matrix", bin_name = "cargo xtask matrix")]
struct MatrixOptions {
    /// Runs of each scenario in each family
    #[arg(long, default_value_t = 20)]
    runs: u32,
    /// Runs in parallel
    #[arg(long, default_value_t = 10)]
    jobs: usize,
    /// Only scenarios whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Seed of the first run; each further run adds one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Quiet mode: healthy handshakes are only counted
    #[arg(long)]
    quiet: bool,
    /// Print each handshake with a wrong verdict or without one
    #[arg(long)]
    verbose: bool,
}

/// One run.
struct MatrixJob {
    scenario: &'static dyn Scenario,
    family: SocketFamily,
    seed: u64,
}

/// Results of all runs.
#[derive(Default)]
struct Results {
    matrix: ConfusionMatrix,
    failures: Vec<String>,
    odd: Vec<String>,
}

fn main() -> ExitCode {
    match run(&MatrixOptions::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("matrix: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &MatrixOptions) -> Result<bool> {
    let host = preflight::require()?;
    let jobs = jobs(args);
    if jobs.is_empty() {
        bail!("no scenario's name contains \"{}\"", args.only);
    }
    let detail = match args.quiet {
        true => Detail::Quiet {
            slow: Duration::from_secs(1),
        },
        false => Detail::Handshakes,
    };
    let began = Instant::now();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Results::default()));
    thread::scope(|scope| {
        for _ in 0..args.jobs.clamp(1, jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    take(&results, job, one(&host, job, detail));
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(report(args, &results, began.elapsed().as_secs()))
}

fn jobs(args: &MatrixOptions) -> Vec<MatrixJob> {
    let wanted = |s: &&&dyn Scenario| s.name().contains(&args.only);
    let mut jobs = Vec::new();
    for n in 0..args.runs {
        for scenario in synprobe_lab::all().iter().filter(wanted) {
            for family in [SocketFamily::V4, SocketFamily::V6] {
                if scenario.supports(family) {
                    jobs.push(MatrixJob {
                        scenario: *scenario,
                        family,
                        seed: args.seed + u64::from(n),
                    });
                }
            }
        }
    }
    jobs
}

fn one(host: &Ready, job: &MatrixJob, detail: Detail) -> Result<Vec<Classification>> {
    let setup = Setup {
        ring_bytes: 8 << 20,
        tables: TableBounds::default(),
        log_level: 0,
        detail,
        mode: Mode::AtTheEnd,
        requested_mode: synprobe::probe::half_open_source::RequestedMode::default(),
    };
    let mut lab = Lab::new(job.family)?;
    lab.jitter = Jitter {
        seed: job.seed,
        background: true,
    };
    let never = Box::pin(std::future::pending());
    let (run, _) =
        lab::watched(host, job.scenario, lab, &setup, Discarded, never).with_context(|| {
            format!(
                "{} {:?}, seed {}",
                job.scenario.name(),
                job.family,
                job.seed
            )
        })?;
    Ok(run.classifications())
}

fn take(results: &Mutex<Results>, job: &MatrixJob, said: Result<Vec<Classification>>) {
    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
    match said {
        Ok(all) => {
            results.matrix.runs += 1;
            for said in all {
                results.matrix.add(&said);
                if !said.is_right() || !said.false_sentences.is_empty() {
                    results.odd.push(odd(job, &said));
                }
            }
        }
        Err(error) => results.failures.push(format!("{error:#}")),
    }
}

fn odd(job: &MatrixJob, said: &Classification) -> String {
    let mut text = format!(
        "{} {:?}, seed {}: {} said of {}",
        job.scenario.name(),
        job.family,
        job.seed,
        said.answer.name(),
        said.cause.name()
    );
    if let Some(h) = &said.line {
        let c = &h.connection;
        let _ = write!(
            text,
            "\n  {} {}:{:?} {}:{:?} {} after {:?} µs, {} retransmissions ({} because of the peer)\n  {:?}",
            c.role.name(),
            c.local_addr,
            c.local_port,
            c.peer_addr,
            c.peer_port,
            h.outcome.name(),
            h.dwell_us,
            h.retransmits,
            h.retransmits_by_peer,
            h.facts
        );
        for e in &h.evidence {
            let sign = if e.supports { "for" } else { "against" };
            let untrue = match said.false_sentences.contains(&e.fact) {
                true => "FALSE, ",
                false => "",
            };
            let _ = write!(text, "\n    {untrue}{sign}: {}", e.fact);
        }
    }
    text
}

/// Prints it; whether it is as it must be.
fn report(args: &MatrixOptions, results: &Results, seconds: u64) -> bool {
    let matrix = &results.matrix;
    if args.verbose {
        for odd in &results.odd {
            println!("{odd}");
        }
    }
    for failure in &results.failures {
        eprintln!("matrix: {failure}");
    }
    println!("{matrix}");
    let wrong = matrix.wrong();
    println!(
        "{} runs, {} handshakes, {} s: {} wrong with certainty, {} wrong otherwise, {} without enough \
         evidence; {} with a false sentence; {} runs failed",
        matrix.runs,
        matrix.handshakes(),
        seconds,
        wrong.certain,
        wrong.others,
        matrix.insufficient(),
        matrix.false_sentences(),
        results.failures.len()
    );
    wrong.certain == 0
        && matrix.false_sentences() == 0
        && results.failures.is_empty()
        && matrix.runs > 0
}
