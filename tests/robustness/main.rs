//! Adverse conditions: few privileges, killed, stopped, output not read, full disk, a second agent, processes
//! with malicious names.

mod confined;
mod forged;
mod killed;
mod names;
mod namespaces;
mod output;
mod paused;
mod privileges;
mod reuse;
mod two;

use std::{env, process::ExitCode};

use synprobe_lab::SocketFamily;
use synprobe_tests::{
    binary,
    harness::{self, Case},
};

/// One condition.
fn main() -> ExitCode {
    if env::var_os(names::AS_SERVER).is_some() {
        return names::be_the_server();
    }
    let tests: [(&str, harness::TestFn); 27] = [
        ("given-up-in-every-thread", privileges::in_every_thread),
        ("urgent-where-all-is-told", privileges::urgent),
        ("calls-refused-when-attached", confined::refused),
        ("attached-again-with-less", privileges::attached_again),
        ("kernel-symbols-with-less", privileges::symbols),
        ("least-privileges", privileges::least),
        ("not-even-loaded", privileges::not_even_loaded),
        ("hidden-processes", privileges::hidden_processes),
        ("hostile-names-lines", names::lines),
        ("hostile-names-pages", names::pages),
        ("namespace-removed", namespaces::removed),
        ("namespaces-that-die", namespaces::dying),
        ("many-namespaces", namespaces::many),
        ("killed-at-random", killed::at_random),
        ("two-agents", two::undisturbed),
        ("three-agents", two::three_over_the_same_packets),
        ("stopped-for-ten-seconds", paused::ten_seconds),
        ("reader-stops-reading", output::nobody_reads),
        ("reader-never-reads-again", output::ends_unread),
        ("reader-never-reads-a-page", output::page_unread),
        ("full-device", output::full_device),
        ("full-disk", output::full_disk),
        ("file-size-limit", output::file_size_limit),
        ("address-space-limit", output::address_space_limit),
        ("stack-limit", output::stack_limit),
        ("reused-sockets", reuse::sockets),
        ("reused-requests", reuse::requests),
    ];
    let forged: [(&str, forged::OfFamily); 10] = [
        ("ack-outside-the-window", forged::ack_outside_the_window),
        ("flood-of-repeated-syns", forged::flood_of_repeated_syns),
        ("copies-of-a-syn", forged::copies_of_a_syn),
        ("rst-outside-the-window", forged::rst_outside_the_window),
        ("drops-of-a-tenant", forged::drops_of_a_tenant),
        ("drop-of-earlier", forged::drop_of_earlier),
        ("port-used-again", forged::port_used_again),
        ("restored-connections", forged::restored_connections),
        ("icmp-outside-the-window", forged::icmp_outside_the_window),
        (
            "syn-to-a-connecting-socket",
            forged::syn_to_a_connecting_socket,
        ),
    ];
    let mut cases: Vec<Case> = tests.map(|(name, test)| Case::new(name, test)).into();
    for (name, test) in forged {
        cases.extend(
            [SocketFamily::V4, SocketFamily::V6].map(|family| Case::for_family(name, family, test)),
        );
    }
    cases.extend(privileges::each_is_needed());
    // Some of them are a storm.
    let code = harness::main_with(cases, 4);
    binary::remove();
    code
}
