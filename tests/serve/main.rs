//! `synprobe serve` from the outside: HTTP, metrics against the kernel's own counters, and bad input.

mod agent;
mod http;
mod problems;
mod sums;
mod usage;

use std::process::ExitCode;

use synprobe_tests::{
    binary,
    harness::{self, Case},
};

fn main() -> ExitCode {
    let cases = vec![
        Case::new("sums-quiet", || sums::equal_the_kernels(&[])),
        Case::new("sums-every", || sums::equal_the_kernels(&["--every"])),
        Case::new("problems-open-and-close", problems::open_and_close),
        Case::new("problems-as-diagnose", problems::as_diagnose_names_them),
        Case::new("replies", http::replies),
        Case::new("formats", http::formats),
        Case::new("slow-clients", http::slow_clients),
        Case::new("large-requests", http::large_requests),
        Case::new("nothing-reflected", http::nothing_reflected),
        Case::new("unix-socket", http::unix_socket),
        Case::new("bad-usage", usage::bad_usage),
        Case::new("environment", usage::environment),
        Case::new("events", usage::events),
    ];
    let code = harness::main(cases);
    binary::remove();
    code
}
