use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::*;
use crate::{
    engine::{HandshakeStats, PortKey},
    model::{Body, Confidence, Handshake, Line, Outcome, Role, VerdictKind},
    status::{RunStatus, fixtures::status},
    verdict::fixtures::{active, half_open, listener},
};

fn ended(mut h: Handshake, peer: u32, port: u16) -> Line {
    h.connection.peer_addr = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + peer));
    match h.connection.role {
        Role::Server => h.connection.local_port = Some(port),
        Role::Client => h.connection.peer_port = Some(port),
    }
    h.dwell_us = Some(u64::from(peer));
    if h.outcome != Outcome::Established {
        let verdicts = VerdictKind::ALL;
        h.verdict = Some(verdicts[peer as usize % verdicts.len()]);
        h.confidence = match peer % 2 {
            0 => Confidence::Certain,
            _ => Confidence::Likely,
        };
    }
    Line {
        mono_ns: 1,
        body: Body::Handshake(Box::new(h)),
    }
}

/// Feeds handshakes of `ports` ports and `peers` peers, both roles, with every outcome and verdict.
fn feed(stats: &mut HandshakeStats, ports: u32, peers: u32) {
    for peer in 0..peers {
        let port = 1 + (peer % ports) as u16;
        let outcome = Outcome::ALL[peer as usize / 7 % (Outcome::ALL.len() - 1)];
        stats.line(&ended(half_open(outcome), peer, port));
        stats.line(&ended(active(outcome), peer, port));
    }
}

fn series(families: &[MetricFamily]) -> usize {
    families.iter().map(MetricFamily::series).sum()
}

/// Sums of every counter, and of every histogram's count, by name and labels.
fn counters(families: &[MetricFamily]) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    for family in families {
        for (labels, value) in &family.samples {
            let value = match (family.kind, value) {
                (family::Kind::Counter, family::Value::Whole(n)) => *n,
                (_, family::Value::Histogram { count, .. }) => *count,
                _ => continue,
            };
            values.insert(format!("{} {labels:?}", family.name), value);
        }
    }
    values
}

fn established(families: &[MetricFamily], role: &str) -> u64 {
    let family = families.iter().find(|f| f.name == "synprobe_handshakes");
    let samples = &family.expect("the family").samples;
    let of_role = samples.iter().filter(|(labels, _)| {
        labels.contains(&("role", role.to_owned()))
            && labels.contains(&("outcome", "established".to_owned()))
    });
    of_role
        .map(|(_, value)| match value {
            family::Value::Whole(n) => *n,
            other => panic!("{other:?}"),
        })
        .sum()
}

pub(in crate::serve) fn crowded(ports: u32, peers: u32) -> RunStatus {
    let mut status = status();
    feed(&mut status.snapshot.stats, ports, peers);
    status.snapshot.listeners = (1..=ports)
        .map(|port| crate::model::Listener {
            local_port: port as u16,
            ..listener(1, 1)
        })
        .collect();
    for port in 1..=ports.min(1024) {
        let drops = &mut status.snapshot.host.listener_drops;
        drops.insert(Some(port as u16), 1);
    }
    for n in 0..200 {
        let reason = format!("REASON_{n}").into();
        status.snapshot.host.drop(reason, n % 2 == 0);
    }
    status.snapshot.problems = (0..100)
        .map(|n| {
            let mut problem = crate::status::fixtures::problem("x");
            problem.verdict = VerdictKind::ALL.get(n % 40).copied();
            problem
        })
        .collect();
    status
}

#[test]
fn ten_thousand_ports_and_a_hundred_thousand_peers_are_at_most_2000_series() {
    let metrics = Metrics::default();
    let status = crowded(10_000, 100_000);
    let sockets = ByState::default();
    let families = metrics.families(&status, Some(&sockets));
    let count = series(&families);
    assert!((1000..=MOST_SERIES).contains(&count), "{count} series");
    let text = metrics.text(&status, Some(&sockets), TextFormat::Prometheus);
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(lines, count);
    assert!(text.contains("port=\"other\""));
    // Nothing is lost by that.
    let all: u64 = (0..100_000_u32)
        .filter(|peer| ((peer / 7) as usize).is_multiple_of(Outcome::ALL.len() - 1))
        .count() as u64;
    assert_eq!(established(&families, "client"), all);
    assert_eq!(established(&families, "server"), all);
    let limited = counters(&families)["synprobe_series_limited []"];
    assert!(limited > 10_000, "{limited}");
}

#[test]
fn counters_never_go_back_when_ports_come() {
    let metrics = Metrics::default();
    let mut status = status();
    let mut before = BTreeMap::new();
    let kernel: PortKey = (Role::Server, Some(40_000));
    for round in 1..=40_u32 {
        feed(&mut status.snapshot.stats, round * 50, round * 100);
        let mut counts = [0; synprobe_ebpf::histogram::BUCKETS];
        counts[20] = u64::from(round) * 1_000_000;
        status.snapshot.stats.set_counted(kernel, &counts, 0);
        let families = metrics.families(&status, None);
        let now = counters(&families);
        for (name, value) in &before {
            assert!(
                now.get(name) >= Some(value),
                "{name}: {value} {:?}",
                now.get(name)
            );
        }
        before = now;
    }
}

#[test]
fn a_port_keeps_its_label_and_one_in_other_stays_there() {
    let metrics = Metrics::default();
    let mut status = status();
    feed(&mut status.snapshot.stats, 1000, 2000);
    metrics.families(&status, None);
    let own: Vec<u16> = metrics.ports.lock().unwrap().own(Role::Client).collect();
    assert!(own.len() > 10, "{own:?}");
    feed(&mut status.snapshot.stats, 3000, 90_000);
    metrics.families(&status, None);
    let labels = metrics.ports.lock().unwrap();
    assert_eq!(labels.own(Role::Client).collect::<Vec<_>>(), own);
}

#[test]
fn no_label_names_an_address_a_pid_or_a_command() {
    let metrics = Metrics::default();
    let mut status = crowded(5, 100);
    for l in &mut status.snapshot.listeners {
        l.comm = Some("secret-name".into());
        l.pid = Some(31_337);
    }
    status.snapshot.problems = vec![crate::status::fixtures::problem("secret-name")];
    let text = metrics.text(&status, None, TextFormat::OpenMetrics);
    for word in ["secret-name", "31337", "10.0.", "127.0.0.1"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    let known = [
        "role",
        "port",
        "outcome",
        "verdict",
        "confidence",
        "kind",
        "state",
        "reason",
        "direction",
        "version",
        "kernel",
        "mode",
        "le",
    ];
    for family in metrics.families(&status, None) {
        for (labels, _) in &family.samples {
            assert!(
                labels.iter().all(|(name, _)| known.contains(name)),
                "{labels:?}"
            );
        }
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn what_is_not_known_is_absent() {
    let metrics = Metrics::default();
    let text = metrics.text(&status(), None, TextFormat::Prometheus);
    for name in [
        "synprobe_tcp_sockets",
        "synprobe_accept_wait_seconds",
        "synprobe_listen_overflows_total",
        "synprobe_syn_cookies_sent_total",
        "synprobe_oldest_half_open_seconds",
    ] {
        assert!(!text.contains(name), "{name}: {text}");
    }
}
