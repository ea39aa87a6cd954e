use super::*;
use crate::{
    model::{Confidence, Problem},
    verdict::fixtures::problem,
};

const SECOND: u64 = 1_000_000_000;
const WINDOW: u64 = 60 * SECOND;

fn states() -> ProblemStates {
    ProblemStates::new(WINDOW, 0xabc)
}

fn with(verdict: VerdictKind, handshakes: u64) -> Problem {
    Problem {
        verdict: Some(verdict),
        handshakes,
        ..problem()
    }
}

fn lines(changed: &[Problem]) -> Vec<(String, ProblemState)> {
    changed
        .iter()
        .map(|p| (p.life.id.clone(), p.life.state))
        .collect()
}

#[test]
fn it_opens_once_and_closes_when_it_was_gone_for_a_window() {
    let mut states = states();
    let found = || vec![with(VerdictKind::PeerSilent, 5)];
    let opened = states.judged(SECOND, found());
    assert_eq!(lines(&opened), [("abc-1".to_owned(), ProblemState::Opened)]);
    assert_eq!(opened[0].life.since_ns, SECOND);
    for n in 2..=100 {
        assert!(states.judged(n * SECOND, found()).is_empty());
    }
    // It comes and goes, and is never gone for a window.
    for n in [159, 218, 277] {
        assert!(states.judged((n - 1) * SECOND, Vec::new()).is_empty());
        assert_eq!(states.open().count(), 1);
        assert!(states.judged(n * SECOND, found()).is_empty());
    }
    assert!(states.judged(336 * SECOND, Vec::new()).is_empty());
    let closed = states.judged(337 * SECOND, Vec::new());
    assert_eq!(lines(&closed), [("abc-1".to_owned(), ProblemState::Closed)]);
    assert_eq!(closed[0].life.until_ns, Some(277 * SECOND));
    assert!(states.is_empty());
    // Another one is another one.
    let again = states.judged(400 * SECOND, found());
    assert_eq!(lines(&again), [("abc-2".to_owned(), ProblemState::Opened)]);
}

#[test]
fn another_verdict_at_the_same_place_is_the_same_problem() {
    let mut states = states();
    states.judged(0, vec![with(VerdictKind::PeerSilent, 5)]);
    let flood = states.judged(20 * SECOND, vec![with(VerdictKind::SynFlood, 50)]);
    assert_eq!(lines(&flood), [("abc-1".to_owned(), ProblemState::Updated)]);
    assert_eq!(flood[0].verdict, Some(VerdictKind::SynFlood));
    assert_eq!(states.open().count(), 1);
    // Both at once are two.
    let both = vec![
        with(VerdictKind::SynFlood, 50),
        with(VerdictKind::SlowPeer, 1),
    ];
    let slow = states.judged(40 * SECOND, both);
    assert_eq!(lines(&slow), [("abc-2".to_owned(), ProblemState::Opened)]);
    // Another port is another place.
    let other = Problem {
        local_port: Some(81),
        ..with(VerdictKind::SynFlood, 50)
    };
    let other = states.judged(41 * SECOND, vec![other]);
    assert_eq!(lines(&other), [("abc-3".to_owned(), ProblemState::Opened)]);
}

#[test]
fn one_process_that_becomes_several_is_the_same_problem() {
    let of = |pid: Option<u32>, comm: &str| Problem {
        role: ProblemRole::Client,
        local_port: None,
        peer_port: Some(80),
        pid,
        comm: Some(comm.into()),
        ..with(VerdictKind::Refused, 1)
    };
    let mut states = states();
    states.judged(0, vec![of(Some(7), "curl")]);
    assert!(states.judged(SECOND, vec![of(None, "curl")]).is_empty());
    assert!(
        states
            .judged(2 * SECOND, vec![of(Some(9), "curl")])
            .is_empty()
    );
    // Another thread of the same process.
    assert!(
        states
            .judged(3 * SECOND, vec![of(Some(9), "dns")])
            .is_empty()
    );
    assert_eq!(states.open().count(), 1);
    let other = states.judged(4 * SECOND, vec![of(Some(8), "wget")]);
    assert_eq!(lines(&other), [("abc-2".to_owned(), ProblemState::Opened)]);
}

#[test]
fn at_a_threshold_it_neither_opens_nor_closes_and_its_lines_are_few() {
    let mut states = states();
    let mut all = Vec::new();
    for n in 0..600 {
        let verdict = match n % 2 {
            0 => VerdictKind::PeerSilent,
            _ => VerdictKind::SynFlood,
        };
        all.extend(states.judged(n * SECOND, vec![with(verdict, 50)]));
    }
    assert!(all.len() <= 1 + 600 / 15, "{} lines", all.len());
    assert!(all.iter().all(|p| p.life.id == "abc-1"));
    let opened = |p: &&Problem| p.life.state == ProblemState::Opened;
    assert_eq!(all.iter().filter(opened).count(), 1);
}

#[test]
fn only_a_material_change_has_a_line() {
    let mut states = states();
    let mut at = 0;
    let mut judged = |p: Problem| {
        at += 20 * SECOND;
        states.judged(at, vec![p]).len()
    };
    let silent = |n| with(VerdictKind::PeerSilent, n);
    assert_eq!(judged(silent(100)), 1);
    assert_eq!(judged(silent(150)), 0);
    assert_eq!(judged(silent(90)), 0);
    assert_eq!(judged(silent(200)), 1);
    assert_eq!(judged(silent(200)), 0);
    let certain = Problem {
        confidence: Confidence::Certain,
        ..silent(200)
    };
    assert_eq!(judged(certain.clone()), 1);
    assert_eq!(judged(certain), 0);
}

/// Before the listener is known, the place of a half-open's server is the address that was called.
#[test]
fn a_listener_that_becomes_known_is_no_second_problem() {
    let at = |addr: &str, port| Problem {
        local_addr: Some(addr.parse().unwrap()),
        local_port: Some(port),
        ..with(VerdictKind::SynackLost, 4)
    };
    let mut states = states();
    states.judged(0, vec![at("10.0.0.1", 80), at("10.0.0.1", 81)]);
    assert!(states.judged(SECOND, vec![at("0.0.0.0", 80)]).is_empty());
    let open: Vec<_> = states
        .open()
        .map(|p| (p.local_addr, p.life.id.clone()))
        .collect();
    assert_eq!(open.len(), 2, "{open:?}");
    assert_eq!(
        open[0],
        (Some("0.0.0.0".parse().unwrap()), "abc-1".to_owned())
    );
    // Two listeners at different addresses are two.
    let other = states.judged(2 * SECOND, vec![at("10.0.0.2", 81)]);
    assert_eq!(lines(&other), [("abc-3".to_owned(), ProblemState::Opened)]);
}
