//! Problems by who calls.

use super::{
    MOST, ProblemGroups,
    group::{Group, Kept},
    key::ProblemKey,
};
use crate::{
    model::{Confidence, Handshake, Outcome, Problem, VerdictKind, Workload, WorkloadNames},
    verdict::{Context, fixtures::*, parts::callers::Caller},
};

/// A refused connect of this process.
fn refused_of(pid: u32, comm: &str) -> Handshake {
    let mut h = active(Outcome::Refused);
    (h.verdict, h.confidence) = (Some(VerdictKind::Refused), Confidence::Certain);
    (h.connection.pid, h.connection.comm) = (Some(pid), Some(comm.into()));
    h.connection.local_port = Some(10_000 + pid as u16 % 50_000);
    h
}

fn problems_of(all: impl IntoIterator<Item = Handshake>) -> Vec<Problem> {
    let mut groups = ProblemGroups::default();
    for h in all {
        groups.add(&h);
    }
    groups.problems(std::iter::empty(), &Context::default())
}

fn says(p: &Problem, fact: &str) -> bool {
    p.evidence.iter().any(|e| e.fact == fact)
}

#[test]
fn clients_that_differ_by_their_pid_are_one_problem() {
    let found = problems_of((1..=300).map(|pid| refused_of(pid, "curl")));
    let [p] = &found[..] else {
        panic!("{found:#?}");
    };
    assert_eq!((p.handshakes, p.pid), (300, None));
    assert_eq!(p.comm.as_deref(), Some("curl"));
    let fact = "the connects were made by 300 processes, such as pid 1";
    assert!(says(p, fact), "{:?}", p.evidence);

    // One process keeps its pid, and nothing is said of processes.
    let found = problems_of((0..3).map(|_| refused_of(7, "curl")));
    assert_eq!((found.len(), found[0].pid), (1, Some(7)));
    let all: Vec<_> = found[0].evidence.iter().map(|e| &*e.fact).collect();
    assert!(all.iter().all(|f| !f.contains("processes")), "{all:?}");
}

#[test]
fn clients_that_differ_by_more_than_their_pid_are_several() {
    let in_unit = |mut h: Handshake, unit: &str| {
        let names = WorkloadNames {
            unit: Some(unit.into()),
            ..WorkloadNames::default()
        };
        h.connection.workload = Workload(Some(names.into()));
        h
    };
    let to_port = |mut h: Handshake, port| {
        h.connection.peer_port = Some(port);
        h
    };
    let all = [
        refused_of(1, "curl"),
        refused_of(2, "wget"),
        in_unit(refused_of(3, "curl"), "a.service"),
        in_unit(refused_of(4, "curl"), "b.service"),
        to_port(refused_of(5, "curl"), 81),
        in_unit(refused_of(6, "curl"), "b.service"),
    ];
    let found = problems_of(all);
    let mut handshakes: Vec<_> = found.iter().map(|p| (p.handshakes, p.pid)).collect();
    handshakes.sort_unstable();
    let alone = [1, 2, 3, 5].map(|pid| (1, Some(pid)));
    assert_eq!(handshakes[..4], alone);
    assert_eq!(handshakes[4..], [(2, None)]);

    // Nothing is known of these but their pid.
    let unnamed = [1, 2].map(|pid| {
        let mut h = refused_of(pid, "");
        h.connection.comm = None;
        h
    });
    assert_eq!(problems_of(unnamed).len(), 2);
}

#[test]
fn a_process_whose_threads_have_names_is_one() {
    let threads = (0..20).map(|n| refused_of(7, &format!("worker-{n}")));
    let found = problems_of(threads);
    let [p] = &found[..] else {
        panic!("{found:#?}");
    };
    assert_eq!((p.handshakes, p.pid), (20, Some(7)));
}

#[test]
fn how_many_processes_is_a_lower_bound_beyond_the_bound() {
    let mut group = Group::new(&refused_of(1, "curl"));
    let limits = Kept { peers: 5, ..MOST };
    for pid in 1..=8 {
        group.add(&refused_of(pid, "curl"), limits);
    }
    let key = ProblemKey::of(&refused_of(1, "curl"), Caller::Unknown);
    let p = group.problem(&key, &[], &Context::default());
    let fact = "the connects were made by at least 5 processes, such as pid 1";
    assert!(says(&p, fact), "{:?}", p.evidence);
    assert_eq!(p.pid, None);
}

#[test]
fn connects_of_an_unknown_process_are_one_problem_with_the_only_known_one() {
    let nobody = || {
        let mut h = refused_of(9, "");
        (h.connection.pid, h.connection.comm) = (None, None);
        h
    };
    for all in [
        [refused_of(7, "curl"), nobody()],
        [nobody(), refused_of(7, "curl")],
    ] {
        let found = problems_of(all);
        let [p] = &found[..] else {
            panic!("{found:#?}");
        };
        assert_eq!((p.handshakes, p.pid), (2, Some(7)));
        assert_eq!(p.comm.as_deref(), Some("curl"));
        assert!(says(p, "the process of 1 of them is not known"), "{p:#?}");
    }
    // Of two processes it is not known whose they are.
    let found = problems_of([refused_of(7, "curl"), nobody(), refused_of(8, "wget")]);
    assert_eq!(found.len(), 3, "{found:#?}");
    // One known connect does not name a hundred others.
    let most_unknown = [refused_of(7, "curl"), nobody(), nobody()];
    assert_eq!(problems_of(most_unknown).len(), 2);
    // Another port has another cause.
    let mut other = nobody();
    other.connection.peer_port = Some(81);
    assert_eq!(problems_of([refused_of(7, "curl"), other]).len(), 2);
}
