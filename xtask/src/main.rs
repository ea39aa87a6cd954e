//! Every developer's verb: `cargo xtask ebpf`, `cargo xtask test`, `cargo xtask matrix`,
//! `cargo xtask bench`, `cargo xtask dist`, `cargo xtask vm`.

mod bench;
mod dist;
mod ebpf;
mod matrix;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What contributors do beside plain `cargo build`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Rebuild the committed eBPF objects in synprobe/bpf
    Ebpf(ebpf::EbpfArgs),
    /// Run all tests; arguments go to `cargo test`
    Test(test::TestArgs),
    /// Hold what is said against what was done, many times: the confusion matrix of docs/verdicts.md
    Matrix(matrix::MatrixArgs),
    /// Watch every scenario, healthy load and floods in turn for a set time: memory flat, nothing left over
    Soak(matrix::SoakArgs),
    /// Measure what watching costs, on this machine and in one run
    Bench(bench::BenchArgs),
    /// Build the binary that is copied to other hosts: static, without dynamic libraries
    Dist(dist::DistArgs),
    /// Run the kernel tests on the kernels of tests/kernels.toml, each in an emulated machine
    Vm(vm::VmArgs),
    /// The bench's load, in a process and a network namespace of its own
    #[command(hide = true)]
    BenchLoad(bench::LoadArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Ebpf(args) => ebpf::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Matrix(args) => matrix::run(&args),
        Verb::Soak(args) => matrix::soak(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Dist(args) => dist::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::BenchLoad(args) => bench::load(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
