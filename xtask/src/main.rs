//! Developer commands: `cargo xtask ebpf`, `test`, `matrix`, `recordings`, `soak`, `bench`, `dist`, `man`,
//! `pictures`, `package` and `vm`.

mod bench;
mod dist;
mod ebpf;
mod man;
mod matrix;
mod package;
mod pictures;
mod recordings;
mod release_time;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of this workspace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct XtaskCli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Rebuild the committed eBPF objects
    Ebpf(ebpf::EbpfArgs),
    /// Run all tests; arguments are passed to `cargo test`
    Test(test::TestArgs),
    /// Run the lab many times and print the confusion matrix of docs/verdicts.md: causes against verdicts
    Matrix(matrix::MatrixArgs),
    /// Write what the replays of tests/recordings/ print anew (--bless), or record all scenarios anew (--make)
    Recordings(recordings::RecordingsArgs),
    /// Watch scenarios, healthy load and floods for a while; check that memory does not grow and nothing is left
    Soak(matrix::SoakArgs),
    /// Measure the cost of watching on this machine, in one run
    Bench(bench::BenchArgs),
    /// Build the static binary that is copied to other hosts
    Dist(dist::DistArgs),
    /// Write the man pages, the shell completions and the help texts
    Man(man::ManArgs),
    /// Write the pictures of the documents, from recordings
    Pictures,
    /// Build the .deb and the .rpm, their checksums and the SBOM
    Package(package::PackageArgs),
    /// Run the kernel tests on the kernels of tests/kernels.toml, each in an emulated machine
    Vm(vm::VmArgs),
    /// The load of the bench, in its own process and network namespace
    #[command(hide = true)]
    BenchLoad(bench::LoadArgs),
    /// The same for requests at a fixed rate
    #[command(hide = true)]
    BenchRequests(bench::RequestsArgs),
}

fn main() -> ExitCode {
    let result = match XtaskCli::parse().verb {
        Verb::Ebpf(args) => ebpf::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Matrix(args) => matrix::run(&args),
        Verb::Recordings(args) => recordings::run(&args),
        Verb::Soak(args) => matrix::soak(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Dist(args) => dist::run(&args),
        Verb::Man(args) => man::run(&args),
        Verb::Pictures => pictures::run(),
        Verb::Package(args) => package::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::BenchLoad(args) => bench::load(&args),
        Verb::BenchRequests(args) => bench::requests(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
