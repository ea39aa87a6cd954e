//! Combines what the sockets saw with the kernel's records, for each address.

#[cfg(test)]
pub(super) mod tests;

use std::net::{IpAddr, SocketAddr};

use super::{
    attempt::{AttemptEnd, AttemptResult},
    resolve::interface_name,
    target::{Target, TargetHost},
};
use crate::{
    model::{
        Body, CommunityId, Confidence, Connect, ConnectAttempt, Handshake, Line, Outcome, Redirect,
        Role,
    },
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
    // An ICMP error may give the same number as a RST.
    let seen = match outcome(tried.end) {
        Outcome::Refused if tried.icmp.is_some() => Outcome::Unreachable,
        seen => seen,
    };
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
        verdict: handshake.and_then(|h| h.verdict),
        confidence: handshake.map_or(Confidence::Insufficient, |h| h.confidence),
        local_addr: local
            .filter(|addr: &IpAddr| !addr.is_unspecified())
            .or(tried.path.source),
        local_port: tried.local.map(|addr| addr.port()),
        interface: match &tried.redirect {
            Some(redirect) => redirect.interface.clone(),
            None => tried.path.interface.clone(),
        },
        gateway: tried.path.gateway.filter(|_| tried.redirect.is_none()),
        icmp: tried.icmp.as_ref().map(|icmp| icmp.text()),
        icmp_from: tried.icmp.as_ref().and_then(|icmp| icmp.from),
        redirect: tried.redirect.as_ref().map(|redirect| Redirect {
            by: redirect.by,
            addr: redirect.to.ip(),
            port: redirect.to.port(),
            pid: redirect.owner.as_ref().map(|(pid, _)| *pid),
            comm: redirect.owner.as_ref().map(|(_, comm)| comm.clone()),
        }),
        syn_seq: handshake.and_then(|h| h.facts.syn_seq),
        syn_ack_seq: handshake.and_then(|h| h.facts.syn_ack_seq),
        community_id: community_id(tried),
    }
}

fn community_id(tried: &AttemptResult) -> Option<CommunityId> {
    let local = tried.local?;
    Some(CommunityId::of_tcp(
        (local.ip(), local.port()),
        (tried.peer.ip(), tried.peer.port()),
    ))
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
