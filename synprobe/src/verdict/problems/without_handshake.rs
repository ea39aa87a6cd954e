//! What no handshake tells of: SYNs that never became a half-open.

use std::collections::BTreeMap;

use super::{peers, pro};
use crate::{
    model::{Confidence, Evidence, Handshake, Problem, Role, VerdictKind},
    util::format,
    verdict::{
        Context,
        context::{DroppedPacket, ListenerHistory, Packet},
    },
};

/// SYNs that came in and were thrown away before any half-open could be: no handshake tells of them.
pub(super) fn refused_at_the_door(
    handshakes: &[Box<Handshake>],
    context: &Context,
) -> Vec<Problem> {
    type Door<'a> = (u32, &'a str, std::net::IpAddr, u16);
    let mut doors: BTreeMap<Door<'_>, Vec<&DroppedPacket>> = BTreeMap::new();
    for d in context.drops().iter() {
        if d.packet == Packet::Syn && d.incoming {
            doors
                .entry((d.netns, d.reason, d.to.ip(), d.to.port()))
                .or_default()
                .push(d);
        }
    }
    doors
        .into_iter()
        .map(|((netns, _, addr, port), drops)| {
            let count: u64 = drops.iter().map(|d| d.count).sum();
            let (peers, peers_more) = peers(
                drops
                    .iter()
                    .flat_map(|d| std::iter::repeat_n(d.from.ip(), d.count.min(1000) as usize)),
            );
            let listener = context
                .listeners()
                .find(|l| l.last.netns == netns && l.last.local_port == port);
            let known = handshakes
                .iter()
                .find(|h| h.connection.netns == netns)
                .and_then(|h| h.connection.netns_name.clone());
            let first = drops[0];
            let place = first
                .place
                .as_ref()
                .map_or(String::new(), |p| format!(" at {p}"));
            Problem {
                rank: 0,
                verdict: Some(VerdictKind::DroppedHere),
                confidence: Confidence::Certain,
                role: Role::Server,
                netns,
                netns_name: listener.and_then(|l| l.last.netns_name.clone()).or(known),
                local_addr: Some(addr),
                local_port: Some(port),
                peer_port: None,
                pid: listener.and_then(|l| l.last.pid),
                comm: listener.and_then(|l| l.last.comm.clone()),
                handshakes: drops.len() as u64,
                open: 0,
                peers,
                peers_more,
                evidence: vec![
                    pro(format!(
                        "this host dropped {count} SYNs of {} connections that came in: {} ({}{place})",
                        drops.len(),
                        first.words,
                        first.reason
                    )),
                    pro("no half-open exists for them: the listener never saw them".to_owned()),
                ],
                remedy: Some(first.remedy()),
            }
        })
        .collect()
}

/// A listener whose queue is full and that has no half-open: SYNs are dropped without a word, and
/// neither a handshake nor a packet drop tells of them.
pub(super) fn full_listener(looks: &ListenerHistory, context: &Context) -> Problem {
    let l = &looks.last;
    let overflows = context.moved(l.netns, |c| c.listen_overflows).unwrap_or(0);
    let mut evidence = vec![pro(looks.how_full())];
    let fact = match overflows {
        0 => Evidence {
            fact:
                "ListenOverflows of its namespace did not move in this run: nobody was turned away"
                    .to_owned(),
            supports: false,
        },
        n => pro(format!(
            "ListenOverflows of its namespace rose by {n} in this run: SYNs are dropped without a word"
        )),
    };
    evidence.push(fact);
    Problem {
        rank: 0,
        verdict: Some(VerdictKind::AcceptQueueFull),
        confidence: match overflows {
            0 => Confidence::Likely,
            _ => Confidence::Certain,
        },
        role: Role::Server,
        netns: l.netns,
        netns_name: l.netns_name.clone(),
        local_addr: Some(l.local_addr),
        local_port: Some(l.local_port),
        peer_port: None,
        pid: l.pid,
        comm: l.comm.clone(),
        handshakes: overflows,
        open: 0,
        peers: Vec::new(),
        peers_more: 0,
        evidence,
        remedy: Some(match (&l.comm, l.pid) {
            (Some(comm), Some(pid)) => format!(
                "see why {} does not accept(): cat /proc/{pid}/stack; synprobe listeners --port {}",
                format::safe(comm),
                l.local_port
            ),
            _ => format!("synprobe listeners --port {}", l.local_port),
        }),
    }
}
