//! Combines what the sockets saw with the kernel's records, for each address.

use std::net::{IpAddr, SocketAddr};

use super::{
    attempt::{AttemptEnd, AttemptResult},
    resolve::interface_name,
    target::{Target, TargetHost},
};
use crate::{
    model::{Body, Confidence, Connect, ConnectAttempt, Handshake, Line, Outcome, Role},
    util::errno,
};

/// An attempt, with what only the page shows.
#[derive(Clone, Debug)]
pub struct AttemptDetail {
    /// As printed in JSON.
    pub attempt: ConnectAttempt,
    /// What the socket saw.
    pub tried: AttemptResult,
    /// Its handshake.
    pub handshake: Option<Handshake>,
    /// How much longer the kernel would have retried, microseconds.
    pub left_us: Option<u64>,
}

/// The result of all attempts.
#[derive(Clone, Debug)]
pub struct ConnectReport {
    /// As printed in JSON, without the attempts.
    pub connect: Connect,
    /// The attempts.
    pub attempts: Vec<AttemptDetail>,
}

impl ConnectReport {
    /// The `connect` line.
    pub fn line(&self) -> Connect {
        Connect {
            attempts: self.attempts.iter().map(|a| a.attempt.clone()).collect(),
            ..self.connect.clone()
        }
    }
}

/// Builds the report. `lines`: the lines of the run. Names of interfaces are looked up in the calling
/// thread's namespace.
pub fn build_report(
    target: &Target,
    resolve_us: Option<u64>,
    tried: Vec<AttemptResult>,
    lines: &[Line],
) -> ConnectReport {
    let began_ns = tried.first().map_or(0, |first| first.began_ns);
    let since = |ns: u64| ns.saturating_sub(began_ns) / 1000;
    let chosen = tried
        .iter()
        .enumerate()
        .filter(|(_, t)| t.end == AttemptEnd::Connected)
        .min_by_key(|(_, t)| t.ended_ns)
        .map(|(at, t)| (at, since(t.ended_ns)));
    let attempts = tried.into_iter().enumerate().map(|(at, tried)| {
        let handshake = handshake_of(&tried, lines).cloned();
        let chosen = chosen.is_some_and(|(chosen, _)| chosen == at);
        let started_us = since(tried.began_ns);
        let attempt = attempt(
            at as u32 + 1,
            chosen,
            started_us,
            &tried,
            handshake.as_ref(),
        );
        AttemptDetail {
            left_us: left_us(&tried, handshake.as_ref(), lines),
            attempt,
            tried,
            handshake,
        }
    });
    ConnectReport {
        attempts: attempts.collect(),
        connect: Connect {
            host: target.host_text(),
            port: target.port,
            resolve_us: resolve_us.filter(|_| matches!(target.host, TargetHost::Name(_))),
            connected: chosen.is_some(),
            connected_us: chosen.map(|(_, us)| us),
            attempts: Vec::new(),
        },
    }
}

/// The handshake of an attempt: the one from the same local port, or without a local port if the kernel
/// chose none. No two attempts have the same peer.
fn handshake_of<'l>(tried: &AttemptResult, lines: &'l [Line]) -> Option<&'l Handshake> {
    let (peer, port) = (tried.peer.ip().to_canonical(), tried.peer.port());
    let of_peer = lines.iter().filter_map(|line| match &line.body {
        Body::Handshake(h) => Some(&**h),
        _ => None,
    });
    let mut of_peer = of_peer.filter(|h| {
        let c = &h.connection;
        c.role == Role::Client && c.peer_addr == peer && c.peer_port == Some(port)
    });
    let local = tried.local.map(|addr| addr.port());
    of_peer.find(|h| h.connection.local_port == local)
}

fn attempt(
    order: u32,
    chosen: bool,
    started_us: u64,
    tried: &AttemptResult,
    handshake: Option<&Handshake>,
) -> ConnectAttempt {
    let seen = outcome(tried.end);
    let failed_with = match tried.end {
        AttemptEnd::Failed(number) => Some(errno::name(number.unsigned_abs())),
        _ => None,
    };
    let local = tried.local.map(|addr| addr.ip().to_canonical());
    ConnectAttempt {
        order,
        address: tried.peer.ip().to_canonical(),
        scope: scope(&tried.peer),
        id: handshake.map(|h| h.connection.id),
        chosen,
        started_us,
        outcome: handshake.map_or(seen, |h| h.outcome),
        error: handshake.and_then(|h| h.error.clone()).or(failed_with),
        dwell_us: handshake.and_then(|h| h.dwell_us),
        syns: match handshake {
            Some(handshake) => Some(syns(handshake)),
            // connect() failed before the kernel chose a local port.
            None => tried.local.is_none().then_some(0),
        },
        verdict: handshake.and_then(|h| h.verdict.clone()),
        confidence: handshake.map_or(Confidence::Insufficient, |h| h.confidence),
        local_addr: local
            .filter(|addr: &IpAddr| !addr.is_unspecified())
            .or(tried.path.source),
        local_port: tried.local.map(|addr| addr.port()),
        interface: tried.path.interface.clone(),
        gateway: tried.path.gateway,
        icmp: tried.icmp.as_ref().map(|icmp| icmp.text()),
        icmp_from: tried.icmp.as_ref().and_then(|icmp| icmp.from),
    }
}

/// SYNs sent. Without a local port there was no first SYN.
fn syns(handshake: &Handshake) -> u32 {
    let first = u32::from(!handshake.facts.unbound && handshake.connection.local_port.is_some());
    handshake.retransmits.saturating_add(first)
}

fn outcome(end: AttemptEnd) -> Outcome {
    match end {
        AttemptEnd::Connected => Outcome::Established,
        AttemptEnd::Failed(libc::ECONNREFUSED) => Outcome::Refused,
        AttemptEnd::Failed(libc::ETIMEDOUT) => Outcome::TimedOut,
        AttemptEnd::Failed(_) => Outcome::Unreachable,
        AttemptEnd::TimedOut | AttemptEnd::Interrupted => Outcome::Abandoned,
    }
}

fn scope(peer: &SocketAddr) -> Option<String> {
    match peer {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            Some(interface_name(v6.scope_id()).unwrap_or_else(|| v6.scope_id().to_string()))
        }
        _ => None,
    }
}

/// From the kernel's schedule that the tracker knows, or from the last retransmission's prediction.
fn left_us(tried: &AttemptResult, handshake: Option<&Handshake>, lines: &[Line]) -> Option<u64> {
    let handshake = handshake
        .filter(|_| matches!(tried.end, AttemptEnd::TimedOut | AttemptEnd::Interrupted))?;
    if let (Some(ends), Some(dwell)) = (handshake.facts.would_give_up_us, handshake.dwell_us) {
        return Some(ends.saturating_sub(dwell));
    }
    let predicted = lines.iter().rev().find_map(|line| match &line.body {
        Body::Retransmit(r) if r.connection.id == handshake.connection.id => {
            Some(line.mono_ns / 1000 + r.gives_up_us?)
        }
        _ => None,
    });
    Some(predicted?.saturating_sub(tried.ended_ns / 1000))
}

#[cfg(test)]
pub(super) mod tests {
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
        }
    }

    pub fn ended(id: u64, peer: &str, local_port: Option<u16>, outcome: Outcome) -> Line {
        Line {
            mono_ns: 0,
            body: Body::Handshake(Box::new(Handshake {
                connection: connection(id, peer, local_port),
                outcome,
                dwell_us: Some(1234),
                dwell_source: Some(DwellSource::Events),
                dwell_error_us: None,
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

    pub fn syn_again(id: u64, peer: &str, at_ms: u64, gives_up_us: u64) -> Line {
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
            syn_again(1, A, 1_000, 130_000_000),
            syn_again(1, A, 9_000, 58_000_000),
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
}
