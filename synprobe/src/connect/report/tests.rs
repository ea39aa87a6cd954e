//! Reports of made-up attempts.

use super::*;
use crate::{
    connect::{icmp::Icmp, path::PathInfo},
    model::{Connection, DwellSource, Facts, Family, Retransmit, RetransmitKind},
};

const MS: u64 = 1_000_000;

pub fn tried(
    peer: &str,
    local: Option<&str>,
    began_ms: u64,
    ended_ms: u64,
    end: AttemptEnd,
) -> AttemptResult {
    AttemptResult {
        peer: peer.parse().unwrap(),
        began_ns: began_ms * MS,
        ended_ns: ended_ms * MS,
        end,
        local: local.map(|addr| addr.parse().unwrap()),
        icmp: None,
        path: PathInfo {
            interface: Some("eth0".to_owned()),
            gateway: Some("10.0.0.254".parse().unwrap()),
            source: Some("10.0.0.5".parse().unwrap()),
            nowhere: None,
        },
        rewritten: None,
        redirect: None,
    }
}

fn connection(id: u64, peer: &str, local_port: Option<u16>) -> Connection {
    let peer: SocketAddr = peer.parse().unwrap();
    Connection {
        id,
        role: Role::Client,
        family: Family::Ipv4,
        v4_mapped: false,
        local_addr: "10.0.0.5".parse().unwrap(),
        local_port,
        peer_addr: peer.ip(),
        peer_port: Some(peer.port()),
        netns: 1,
        netns_name: None,
        pid: None,
        comm: None,
        cgroup: None,
        workload: Default::default(),
    }
}

pub fn ended(id: u64, peer: &str, local_port: Option<u16>, outcome: Outcome) -> Line {
    Line {
        mono_ns: 0,
        body: Body::Handshake(Box::new(Handshake {
            connection: connection(id, peer, local_port),
            outcome,
            open_reason: None,
            dwell_us: Some(1234),
            dwell_source: Some(DwellSource::Events),
            dwell_error_us: None,
            dwell_at_least_us: None,
            retransmits: 0,
            retransmits_by_peer: 0,
            error: None,
            verdict: None,
            confidence: Confidence::Insufficient,
            evidence: Vec::new(),
            remedy: None,
            gaps_us: Vec::new(),
            facts: Facts::default(),
        })),
    }
}

pub fn syn_retransmitted(id: u64, peer: &str, at_ms: u64, gives_up_us: u64) -> Line {
    Line {
        mono_ns: at_ms * MS,
        body: Body::Retransmit(Retransmit {
            connection: connection(id, peer, Some(40_000)),
            kind: RetransmitKind::Syn,
            trigger: None,
            attempt: Some(1),
            gap_us: Some(1_000_000),
            expected_gap_us: Some(1_000_000),
            next_us: Some(1_000_000),
            gives_up_us: Some(gives_up_us),
            segs: 1,
            failed: false,
            error: None,
        }),
    }
}

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";

fn report(tried: Vec<AttemptResult>, lines: &[Line]) -> ConnectReport {
    build_report(&"db.internal:80".parse().unwrap(), Some(900), tried, lines)
}

#[test]
fn the_first_to_be_connected_is_the_one_an_application_gets() {
    let tries = vec![
        tried(A, Some("10.0.0.5:40000"), 100, 1200, AttemptEnd::Connected),
        tried(B, Some("10.0.0.5:40001"), 350, 360, AttemptEnd::Connected),
    ];
    let lines = [
        ended(1, B, Some(40_001), Outcome::Established),
        ended(2, A, Some(40_000), Outcome::Established),
    ];
    let connect = report(tries, &lines).line();
    assert!(connect.connected);
    assert_eq!(
        (connect.connected_us, connect.resolve_us),
        (Some(260_000), Some(900))
    );
    let seen: Vec<_> = connect
        .attempts
        .iter()
        .map(|a| (a.order, a.id, a.chosen, a.started_us, a.syns))
        .collect();
    assert_eq!(
        seen,
        [
            (1, Some(2), false, 0, Some(1)),
            (2, Some(1), true, 250_000, Some(1))
        ]
    );
}

#[test]
fn another_s_handshake_with_the_same_peer_is_not_ours() {
    let tries = vec![tried(
        A,
        Some("10.0.0.5:40000"),
        0,
        10,
        AttemptEnd::TimedOut,
    )];
    let lines = [
        ended(1, A, Some(50_000), Outcome::Established),
        ended(2, A, None, Outcome::Unreachable),
    ];
    let attempt = report(tries, &lines).line().attempts.remove(0);
    assert_eq!(
        (attempt.id, attempt.outcome, attempt.syns),
        (None, Outcome::Abandoned, None)
    );
    let unbound = tried(A, None, 0, 0, AttemptEnd::Failed(libc::EADDRNOTAVAIL));
    let attempt = report(vec![unbound], &lines).line().attempts.remove(0);
    assert_eq!((attempt.id, attempt.syns), (Some(2), Some(0)));
    assert_eq!(attempt.error.as_deref(), Some("EADDRNOTAVAIL"));
}

#[test]
fn what_the_kernel_refused_has_no_handshake() {
    let icmp = Icmp {
        v6: false,
        kind: 3,
        code: 1,
        from: Some("10.0.0.254".parse().unwrap()),
        errno: libc::EHOSTUNREACH,
    };
    let refused = AttemptResult {
        icmp: Some(icmp),
        ..tried(A, None, 0, 0, AttemptEnd::Failed(libc::ENETUNREACH))
    };
    let connect = report(vec![refused], &[]).line();
    assert!(!connect.connected && connect.connected_us.is_none());
    let attempt = &connect.attempts[0];
    assert_eq!(
        (attempt.outcome, attempt.error.as_deref(), attempt.syns),
        (Outcome::Unreachable, Some("ENETUNREACH"), Some(0))
    );
    assert_eq!(attempt.dwell_us, None, "unknown, not 0");
    assert_eq!(attempt.icmp.as_deref(), Some("host unreachable"));
    assert_eq!(attempt.icmp_from, Some("10.0.0.254".parse().unwrap()));
    assert_eq!(attempt.local_addr, Some("10.0.0.5".parse().unwrap()));
}

#[test]
fn how_long_the_kernel_would_have_gone_on() {
    let tries = vec![tried(
        A,
        Some("10.0.0.5:40000"),
        0,
        10_000,
        AttemptEnd::TimedOut,
    )];
    let mut lines = vec![
        syn_retransmitted(1, A, 1_000, 130_000_000),
        syn_retransmitted(1, A, 9_000, 58_000_000),
        ended(1, A, Some(40_000), Outcome::Abandoned),
    ];
    let left = report(tries.clone(), &lines).attempts[0].left_us;
    assert_eq!(left, Some(57_000_000), "58 s from 9 s, and 10 s are over");
    if let Body::Handshake(h) = &mut lines[2].body {
        h.facts.would_give_up_us = Some(67_000_000);
        h.dwell_us = Some(10_000_000);
    }
    assert_eq!(report(tries, &lines).attempts[0].left_us, Some(57_000_000));
    let tries = vec![tried(
        A,
        Some("10.0.0.5:40000"),
        0,
        10_000,
        AttemptEnd::Failed(libc::ETIMEDOUT),
    )];
    assert_eq!(
        report(tries, &lines).attempts[0].left_us,
        None,
        "it gave up itself"
    );
}
