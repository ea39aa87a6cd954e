//! Tests that affect the whole machine: its clock is set, a CPU goes offline. They run only in guests of
//! `cargo xtask vm`; elsewhere there are no such tests.

mod always_on;
mod clock;
mod cpus;
mod driver;
mod price;
mod queues;

use std::{env, process::ExitCode};

use synprobe_tests::{
    binary,
    guest::is_guest,
    harness::{self, Case},
};

const ALWAYS_ON: &str = "price-of-always-on";

fn main() -> ExitCode {
    if !is_guest() {
        println!("none here: they set the clock and take CPUs away; cargo xtask vm --tests guest");
        return harness::main(Vec::new());
    }
    let mut cases = vec![Case::new("clock-set-back-and-forth", clock::stepped)];
    for (name, detail) in [("records", cpus::RECORDS), ("quiet", cpus::QUIET)] {
        cases.push(Case::new(format!("cpu-taken-away::{name}"), move || {
            cpus::taken_away(detail)
        }));
        cases.push(Case::new(format!("cpu-added::{name}"), move || {
            cpus::added(detail)
        }));
    }
    for cookies in [0, 1] {
        let name = format!("syn-queue-limit::syncookies-{cookies}");
        cases.push(Case::new(name, move || queues::syn_queue_limit(cookies)));
    }
    cases.push(Case::new(
        "sent-and-freed-by-a-driver",
        driver::frees_what_it_has_sent,
    ));
    cases.push(Case::new("price-of-the-modes", price::of_the_modes));
    // It takes six minutes of a guest's time: where its name is given.
    if env::args().any(|argument| argument.contains(ALWAYS_ON)) {
        cases.push(Case::new(ALWAYS_ON, always_on::price));
    }
    // They have one machine between them.
    let code = harness::main_alone(cases);
    binary::remove();
    code
}
