//! `cargo xtask bench`: the cost of watching, measured on this machine in one run.
//!
//! Machines differ, and so does their load. Every figure therefore stands beside one from the same run:
//! the same load unwatched, and `tcpstates` where it is installed.
//!
//! [`load`] makes connections in its own namespace, [`requests`] requests at a fixed rate. [`process`] owns the processes that the bench
//! starts; [`recorder`] those that record or replay, [`serve_agent`] the service with a [`collector`]. [`flood`] runs the SYN flood. [`bpf`] reads the run
//! time of eBPF programs. [`peer_tools`] finds other tools. [`measure`] runs the measurements; [`report`]
//! prints them, one file a section.

mod bpf;
mod collector;
mod flood;
mod load;
mod measure;
mod peer_tools;
mod process;
mod recorder;
mod report;
mod requests;
mod serve_agent;

use std::{path::PathBuf, process::Command, thread, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
pub use load::{LoadArgs, load};
use peer_tools::PeerTool;
use process::Watcher;
pub use requests::{RequestsArgs, requests};
use serde::Serialize;
use serve_agent::ServeAgent;

use crate::workspace::{cargo, is_root, root, run as run_command, target_dir};

/// `cargo xtask bench`
#[derive(Args)]
pub struct BenchArgs {
    /// Print JSON instead of tables: one object, or one a section
    #[arg(long)]
    json: bool,
    /// Seconds each measurement lasts
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Pairs of runs with and without `synprobe watch`
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(7..=1000))]
    rounds: u32,
    /// Seconds at the highest rate, looking for lost records
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    loss_seconds: u64,
    /// Seconds between two scrapes and two exports of `serve`; its turns, and those of the requests, last as long
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=600))]
    interval_seconds: u64,
    /// Measure one section alone; may be repeated
    #[arg(long, value_name = "SECTION")]
    only: Vec<BenchSection>,
}

/// A section that can be measured alone.
#[derive(Clone, Copy, ValueEnum)]
enum BenchSection {
    /// Recordings and their replay
    Recording,
    /// `serve` beside `watch --quiet`
    Serve,
    /// The share of all cycles in a load of requests, beside other tools
    Requests,
}

/// What every measurement needs.
pub struct BenchContext {
    /// The agent's release build.
    synprobe: PathBuf,
    /// Installed tools that do a part of its work.
    peers: Vec<PeerTool>,
    /// Duration of each measurement.
    length: Duration,
    /// Pairs of runs.
    rounds: u32,
    /// Duration at the highest rate.
    loss: Duration,
    /// Pause between two scrapes of `serve`, and between two exports.
    interval: Duration,
    /// CPUs of this machine.
    cpus: usize,
}

impl BenchContext {
    /// Starts `synprobe watch` with these arguments; returns once it is attached.
    fn watch(&self, args: &[&str]) -> Result<Watcher> {
        Watcher::synprobe(&self.synprobe, args, &target_dir().join("bench"))
    }

    /// Starts `synprobe serve` with all its outputs; returns once it serves.
    fn serve(&self) -> Result<ServeAgent> {
        ServeAgent::start(&self.synprobe, &target_dir().join("bench"), self.interval)
    }
}

fn say(what: &str) {
    eprintln!("xtask: measuring {what}");
}

/// Measures everything and prints the report.
///
/// # Errors
///
/// When not root, when the agent does not build or start, or when the load fails.
pub fn run(args: &BenchArgs) -> Result<()> {
    if !is_root() {
        bail!("the bench loads eBPF programs and makes a network namespace: run it as root");
    }
    eprintln!("xtask: building the agent");
    run_command(
        Command::new(cargo())
            .current_dir(root())
            .args(["build", "--quiet", "--release", "--package", "synprobe"])
            .arg("--target-dir")
            .arg(target_dir()),
    )?;
    let bench = BenchContext {
        synprobe: target_dir().join("release/synprobe"),
        peers: peer_tools::find(),
        length: Duration::from_secs(args.seconds),
        rounds: args.rounds,
        loss: Duration::from_secs(args.loss_seconds),
        interval: Duration::from_secs(args.interval_seconds),
        cpus: thread::available_parallelism().map_or(1, usize::from),
    };
    if args.only.is_empty() {
        return print(args.json, &measure::everything(&bench)?, report::text);
    }
    for section in &args.only {
        match section {
            BenchSection::Recording => {
                let report = measure::recording_alone(&bench)?;
                print(args.json, &report, report::recording_text)?;
            }
            BenchSection::Serve => {
                let report = measure::serve_alone(&bench)?;
                print(args.json, &report, report::serve_text)?;
            }
            BenchSection::Requests => {
                let report = measure::requests_alone(&bench)?;
                print(args.json, &report, report::requests_text)?;
            }
        }
    }
    Ok(())
}

fn print<R: Serialize>(json: bool, report: &R, text: fn(&R) -> String) -> Result<()> {
    match json {
        true => println!("{}", serde_json::to_string(report)?),
        false => print!("{}", text(report)),
    }
    Ok(())
}
