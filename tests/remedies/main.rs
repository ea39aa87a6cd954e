//! Remedies: a fault is made, the agent names it, its printed commands are run by `sh -c`, and a connection that
//! failed works. Where the remedy leaves a choice to the user, a documented equivalent is run beside it: the table
//! of docs/verdicts.md.

mod conntrack;
mod drops;
mod looks;
mod path;
mod ports;
mod queues;
mod rules;
mod stage;
mod steps;

use std::process::ExitCode;

use synprobe_lab::SocketFamily;
use synprobe_tests::{
    binary,
    harness::{self, Case},
};

/// Scenarios that have no look of their own: all is well in them, they load the machine for a command that others
/// print too, the stopped process ends with its scenario, or a test above makes the same fault and mends it.
const LEFT_OUT: &[&str] = &[
    "accept-burst",
    "healthy",
    "lossy",
    "flash-crowd",
    "reuseport-worker",
    "accept-queue-full",
    "transparent-proxy",
    "data-unacknowledged",
    "ports-exhausted",
    "tuple-in-use",
    "self-connect",
    "stale-established",
    "option-dropped",
    "own-firewall",
    "tcp-md5",
    "snat-exhausted",
    "rp-filter",
    "no-route-back",
    "syn-queue-full",
    "listener-reload",
];

type Test = fn(SocketFamily) -> anyhow::Result<()>;

fn main() -> ExitCode {
    queues::serve_if_asked();
    // While one thread writes the copy of the binary, no other may fork: its child could not be executed.
    if harness::host().is_ok()
        && let Err(error) = binary::path()
    {
        eprintln!("{error:#}");
    }
    let both: [(&str, Test); _] = [
        (
            "accept-queue-full::stopped-process",
            queues::stopped_process,
        ),
        ("accept-queue-full::somaxconn", queues::somaxconn),
        ("accept-queue-full::backlog", queues::backlog),
        ("syn-queue-full", queues::syn_queue),
        ("listener-closed", queues::reload),
        ("dropped-here::rule", drops::own_rule),
        ("dropped-here::concatenated-keys", rules::concatenated),
        ("dropped-here::tc", drops::classifier),
        ("dropped-here::qdisc", drops::qdisc),
        ("dropped-here::conntrack-full", conntrack::full),
        ("dropped-here::snat", drops::snat_exhausted),
        ("dropped-here::md5", drops::tcp_md5),
        ("dropped-here::missing-address", drops::missing_address),
        ("dropped-here::not-forwarding", drops::not_forwarding),
        ("no-route-back", drops::no_route_back),
        ("asymmetric-return", drops::asymmetric_return),
        ("tuple-in-use", ports::tuple_in_use),
        ("existing-connection", ports::existing_connection),
        ("answer-rejected", ports::answer_rejected),
        ("ports-exhausted", ports::ports_exhausted),
        ("self-connect", ports::self_connect),
        ("option-dropped::ecn", ports::ecn),
        ("option-dropped::fast-open", ports::fast_open),
        ("data-unacknowledged", path::black_hole),
        ("dropped-here::checksum", path::checksum),
        ("a-name-of-ip-netns", path::named),
    ];
    let mut cases = Vec::new();
    for family in [SocketFamily::V4, SocketFamily::V6] {
        for (name, run) in both {
            cases.push(Case::for_family(name, family, run));
        }
    }
    for scenario in harness::scenarios() {
        // An incident is made of the same faults as another scenario.
        if scenario.is_incident() || LEFT_OUT.contains(&scenario.name()) {
            continue;
        }
        for family in [SocketFamily::V4, SocketFamily::V6] {
            if scenario.supports(family) {
                let name = format!("looks::{}", scenario.name());
                cases.push(Case::for_family(&name, family, |family| {
                    looks::looks(scenario, family)
                }));
            }
        }
    }
    // ARP, and the reverse-path filter, are of IPv4.
    for (name, run) in [
        ("dropped-here::rp-filter", drops::rp_filter as Test),
        ("unreachable::no-neighbour", drops::no_neighbour),
    ] {
        cases.push(Case::for_family(name, SocketFamily::V4, run));
    }
    let code = harness::main(cases);
    steps::clean();
    binary::remove();
    code
}
