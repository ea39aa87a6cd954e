//! `synprobe serve` from the outside: HTTP, metrics against the kernel's own counters, OTLP, and bad input.

mod agent;
mod http;
mod otlp;
mod page;
mod problem_files;
mod problems;
mod restart;
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
        Case::new("problems-of-processes", problems::of_many_processes),
        Case::new("restart", restart::finds_what_is_under_way),
        Case::new("replies", http::replies),
        Case::new("page-follows-the-run", page::follows_the_run),
        Case::new("page-drawn-once", page::drawn_once_for_many),
        Case::new("formats", http::formats),
        Case::new("slow-clients", http::slow_clients),
        Case::new("large-requests", http::large_requests),
        Case::new("nothing-reflected", http::nothing_reflected),
        Case::new("unix-socket", http::unix_socket),
        Case::new("problem-files", problem_files::cut_when_it_opens),
        Case::new("otlp-what-arrives", otlp::what_arrives),
        Case::new("otlp-sent-again", otlp::sent_again),
        Case::new("otlp-refused", otlp::counted_where_refused),
        Case::new("otlp-down", otlp::bounded_where_down),
        Case::new("otlp-slow", otlp::slow_collector),
        Case::new("otlp-own-connections", otlp::own_connections),
        Case::new("otlp-bad-urls", otlp::bad_urls),
        Case::new("bad-usage", usage::bad_usage),
        Case::new("environment", usage::environment),
        Case::new("events", usage::events),
    ];
    let code = harness::main(cases);
    binary::remove();
    code
}
