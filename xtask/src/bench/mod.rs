//! `cargo xtask bench`: what watching costs, measured on this machine in one run.
//!
//! Machines differ, and so do their quiet and busy hours, so every figure stands beside something
//! measured in the same run: the same load unwatched, and `tcpstates` where it is installed.
//! [`load`] makes the connections in a namespace of its own, [`process`] owns what is started,
//! [`flood`] has SYNs made that no application makes, [`bpf`] asks the kernel what its programs took,
//! [`peer`] finds what stands beside us, [`measure`] puts them together, [`report`] prints.

mod bpf;
mod flood;
mod load;
mod measure;
mod peer;
mod process;
mod report;

use std::{path::PathBuf, process::Command, thread, time::Duration};

use anyhow::{Result, bail};
use clap::Args;

pub use load::{LoadArgs, load};
use peer::Peer;
use process::Watcher;

use crate::workspace::{cargo, is_root, root, run as run_command, target_dir};

/// `cargo xtask bench`
#[derive(Args)]
pub struct BenchArgs {
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// How long each measurement lasts
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Pairs of runs with and without `synprobe watch`
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(7..=1000))]
    rounds: u32,
    /// How long the load is highest, looking for records that are lost
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    loss_seconds: u64,
}

/// What every measurement needs.
pub struct Bench {
    /// The agent's release build.
    synprobe: PathBuf,
    /// Others that do a part of it, where installed.
    peers: Vec<Peer>,
    /// How long each measurement lasts.
    length: Duration,
    /// Pairs.
    rounds: u32,
    /// How long the load is highest.
    loss: Duration,
    /// The CPUs of this machine.
    cpus: usize,
}

impl Bench {
    /// `synprobe watch` with these arguments, attached and under way.
    fn watch(&self, args: &[&str]) -> Result<Watcher> {
        Watcher::synprobe(&self.synprobe, args, &target_dir().join("bench"))
    }
}

fn say(what: &str) {
    eprintln!("xtask: measuring {what}");
}

/// Measures everything and prints it.
///
/// # Errors
///
/// When not root, the agent does not build or start, or the load fails.
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
    let bench = Bench {
        synprobe: target_dir().join("release/synprobe"),
        peers: peer::find(),
        length: Duration::from_secs(args.seconds),
        rounds: args.rounds,
        loss: Duration::from_secs(args.loss_seconds),
        cpus: thread::available_parallelism().map_or(1, usize::from),
    };
    let report = measure::everything(&bench)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report::text(&report));
    }
    Ok(())
}
