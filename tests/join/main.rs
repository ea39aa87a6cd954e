//! `synprobe join`: files made by hand, and two agents that each see one end of the lab.

mod crossed;
mod files;
mod recorded;
mod two_ends;
mod ways;

use std::process::ExitCode;

use synprobe_lab::SocketFamily;
use synprobe_tests::{
    binary,
    harness::{self, Case},
};

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for family in [SocketFamily::V4, SocketFamily::V6] {
        cases.push(Case::for_family("both-ends", family, two_ends::both_ends));
        cases.push(Case::for_family("late", family, two_ends::late));
        cases.push(Case::for_family(
            "own-filters",
            family,
            two_ends::own_filters,
        ));
        cases.push(Case::for_family("asymmetric", family, ways::asymmetric));
        cases.push(Case::for_family("balancer", family, ways::balancer));
        cases.push(Case::for_family("crossing", family, crossed::crossing));
        cases.push(Case::for_family(
            "called-back",
            family,
            crossed::called_back,
        ));
    }
    cases.push(Case::new("clocks-hours-apart", files::clocks_hours_apart));
    cases.push(Case::new("silence", files::silence));
    cases.push(Case::new("client-began-late", files::client_began_late));
    cases.push(Case::new("the-way-back", files::the_way_back));
    cases.push(Case::new(
        "refused-without-an-event",
        files::refused_without_an_event,
    ));
    cases.push(Case::new("unknown-clocks", files::unknown_clocks));
    cases.push(Case::new("without-an-end", files::without_an_end));
    cases.push(Case::new(
        "half-open-without-its-number",
        files::half_open_without_its_number,
    ));
    cases.push(Case::new("nat", files::nat));
    cases.push(Case::new("called-at-once", crossed::called_at_once));
    cases.push(Case::new("called-at-once-in-vain", crossed::in_vain));
    cases.push(Case::new("forged-call", crossed::forged));
    cases.push(Case::new("odd-files", files::odd_files));
    cases.push(Case::new("versions", recorded::versions));
    cases.push(Case::new("recordings-from-pipes", recorded::pipes));
    cases.push(Case::new("other-hours", recorded::other_hours));
    let code = harness::main(cases);
    binary::remove();
    code
}
