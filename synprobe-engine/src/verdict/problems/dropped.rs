//! Packets that this host dropped, and that no handshake shows: SYNs that never became a half-open, SYN-ACKs that were
//! never seen to end one, and what it was to forward.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use super::explained::ExplainedClients;
use crate::{
    model::{Confidence, Evidence, Forward, Problem, ProblemRole, Role, VerdictKind},
    verdict::{
        Context,
        context::{DroppedPacket, Packet, connections},
        parts::{
            found::{Found, contra, pro},
            peer_counts::PeerCounts,
        },
    },
};

/// SYNs that came in and that this host dropped before there was a half-open: no handshake has them.
pub(super) fn refused_at_the_door(explained: &ExplainedClients, context: &Context) -> Vec<Found> {
    type Door<'a> = (u32, &'a str, IpAddr, u16);
    let mut doors: BTreeMap<Door<'_>, Vec<&DroppedPacket>> = BTreeMap::new();
    for d in context.dropped_syns().filter(|d| !explained.has(d)) {
        doors
            .entry((d.netns, &*d.words, d.to.ip(), d.to.port()))
            .or_default()
            .push(d);
    }
    doors
        .into_iter()
        .map(|((_, _, addr, port), drops)| {
            let count: u64 = drops.iter().map(|d| d.count).sum();
            let mut peers = PeerCounts::default();
            for d in &drops {
                peers.add(d.from.ip(), d.count.min(1000), usize::MAX);
            }
            let (peers, peers_more) = peers.most();
            let first = drops[0];
            if let Some(forward) = context.forward(first) {
                let mut problem = dropped_by_router(first, forward, &drops, count, context);
                (problem.peers, problem.peers_more) = (peers, peers_more);
                return found(problem, &drops, context);
            }
            let mut evidence = vec![
                pro(format!(
                    "this host dropped {} of {} that came in: {} ({})",
                    Packet::Syn.counted(count),
                    connections(drops.len() as u64),
                    first.words,
                    first.cause()
                )),
                pro(format!("they made no half-open: {}", first.stage().words())),
            ];
            evidence.extend(first.called_before_nat().map(pro));
            let conntrack = context.conntrack_fact(first);
            let rules = rules_of(&drops, context).into_iter();
            evidence.extend(rules.chain(conntrack).map(pro));
            let mut problem = dropped_at((addr, port), &drops, evidence, context);
            (problem.peers, problem.peers_more) = (peers, peers_more);
            found(problem, &drops, context)
        })
        .collect()
}

/// SYN-ACKs that this host dropped, at ports where no half-open was seen to end by it. The kernel removes a
/// half-open whose SYN-ACK it cannot send at the first time-out, within about a second: by tracepoints it
/// may never be seen. `listed`: the ports that have such a problem, with their namespaces.
pub(super) fn dropped_synacks(
    context: &Context,
    listed: &HashSet<(u32, Option<u16>)>,
) -> Vec<Found> {
    type Door<'a> = (u32, &'a str, IpAddr, u16);
    let mut doors: BTreeMap<Door<'_>, Vec<&DroppedPacket>> = BTreeMap::new();
    for d in context.dropped_packets() {
        let outgoing = d.packet == Packet::SynAck && !d.incoming;
        let port = Some(d.from.port());
        if outgoing && context.selection.wants(Role::Server) && !listed.contains(&(d.netns, port)) {
            doors
                .entry((d.netns, &*d.reason, d.from.ip(), d.from.port()))
                .or_default()
                .push(d);
        }
    }
    let problem = |((_, _, addr, port), drops): (Door<'_>, Vec<&DroppedPacket>)| {
        let count: u64 = drops.iter().map(|d| d.count).sum();
        let mut peers = PeerCounts::default();
        for d in &drops {
            peers.add(d.to.ip(), 1, usize::MAX);
        }
        let (peers, peers_more) = peers.most();
        let first = drops[0];
        let way = match count {
            1 => "on its way out",
            _ => "on their way out",
        };
        let mut evidence = vec![
            pro(format!(
                "this host dropped {} {way}, of {}: {} ({})",
                Packet::SynAck.counted(count),
                connections(drops.len() as u64),
                first.words,
                first.cause()
            )),
            pro(
                "no half-open of them is in this report: the kernel removes one whose SYN-ACK it cannot send \
                 within about a second, before it is seen"
                    .to_owned(),
            ),
        ];
        evidence.extend(rules_of(&drops, context).into_iter().map(pro));
        let sure = !context.losses.any();
        if !sure {
            evidence.push(contra("records of this run were lost".to_owned()));
        }
        let mut problem = dropped_at((addr, port), &drops, evidence, context);
        if !sure {
            problem.confidence = Confidence::Likely;
        }
        (problem.peers, problem.peers_more) = (peers, peers_more);
        found(problem, &drops, context)
    };
    doors.into_iter().map(problem).collect()
}

/// These drops at a port of this host, with its listener; `certain`, and without peers.
fn dropped_at(
    (addr, port): (IpAddr, u16),
    drops: &[&DroppedPacket],
    evidence: Vec<Evidence>,
    context: &Context,
) -> Problem {
    let first = drops[0];
    let listener = context
        .listeners_of_port(first.netns, port)
        .next()
        .map(|l| &l.last);
    let mut problem = of_drops(ProblemRole::Server, drops, evidence, context);
    if let Some(l) = listener {
        problem.netns_name = l.netns_name.clone().or(problem.netns_name);
        (problem.pid, problem.comm) = (l.pid, l.comm.clone());
        problem.workload = l.workload.clone();
    }
    (problem.local_addr, problem.local_port) = (Some(addr), Some(port));
    problem
}

/// These drops; `certain`, and without the ends that they concern.
fn of_drops(
    role: ProblemRole,
    drops: &[&DroppedPacket],
    evidence: Vec<Evidence>,
    context: &Context,
) -> Problem {
    let first = drops[0];
    Problem {
        rank: 0,
        verdict: Some(VerdictKind::DroppedHere),
        confidence: Confidence::Certain,
        role,
        forward: None,
        netns: first.netns,
        netns_name: context.netns_name(first.netns),
        local_addr: None,
        local_port: None,
        peer_port: None,
        pid: None,
        comm: None,
        workload: Default::default(),
        handshakes: drops.len() as u64,
        open: 0,
        peers: Vec::new(),
        peers_more: 0,
        evidence,
        remedy: Some(context.remedy_of_drop(first)),
        effects: Vec::new(),
        life: Default::default(),
    }
}

/// Connections whose rules are looked for, and sentences about rules in one problem.
const LOOKED_AT: usize = 64;
const RULES: usize = 4;

/// The rules that did it.
fn rules_of(drops: &[&DroppedPacket], context: &Context) -> Vec<String> {
    context.rules_of_drops(drops.iter().take(LOOKED_AT).copied(), RULES)
}

/// A problem of these drops.
fn found(problem: Problem, drops: &[&DroppedPacket], context: &Context) -> Found {
    Found {
        cause: context.cause_of_drops(drops.iter().take(LOOKED_AT).copied()),
        ..Found::of(problem, drops.iter().map(|d| d.ends()))
    }
}

/// Whether the router itself refuses it. One to an address that nobody has, or whose neighbour does not answer, may be
/// the answer to a forged SYN.
fn is_refused(d: &DroppedPacket) -> bool {
    let nobodys = ["IP_INADDRERRORS", "IP_INNOROUTES", "IP_OUTNOROUTES"];
    !nobodys.contains(&&*d.reason) && !d.is_of_neighbour() && !d.may_be_a_copy()
}

/// Whether it is an answer that the router refuses: a SYN-ACK, or an ACK that came again, as the final one does with each
/// SYN-ACK that is repeated. One ACK alone may belong to a connection that has ended.
fn is_answer(d: &DroppedPacket) -> bool {
    let is_answer = d.packet == Packet::SynAck || (d.packet == Packet::Ack && d.count > 1);
    is_answer && d.incoming && is_refused(d)
}

/// The end that called, and the one that has the port that was called, as far as that is known.
fn ends(d: &DroppedPacket) -> (SocketAddr, SocketAddr) {
    match d.packet {
        Packet::SynAck => (d.to, d.from),
        _ => (d.from, d.to),
    }
}

/// SYN-ACKs and ACKs that came in, that this host was to forward and dropped. `explained`: those whose handshake has a
/// problem.
pub(super) fn forwarded_answers(explained: &ExplainedClients, context: &Context) -> Vec<Found> {
    type Door<'a> = (u32, &'a str, Packet, IpAddr, u16);
    let mut doors: BTreeMap<Door<'_>, Vec<(&DroppedPacket, Forward)>> = BTreeMap::new();
    let dropped = context.dropped_packets();
    for d in dropped.filter(|d| is_answer(d) && !explained.has(d)) {
        if let Some(forward) = context.forward(d) {
            let (_, called) = ends(d);
            let door = (d.netns, &*d.words, d.packet, called.ip(), called.port());
            doors.entry(door).or_default().push((d, forward));
        }
    }
    let problem = |all: Vec<(&DroppedPacket, Forward)>| {
        let (first, forward) = all[0].clone();
        let drops: Vec<&DroppedPacket> = all.iter().map(|(d, _)| *d).collect();
        let count: u64 = drops.iter().map(|d| d.count).sum();
        let mut peers = PeerCounts::default();
        for d in &drops {
            let (caller, _) = ends(d);
            peers.add(caller.ip(), 1, usize::MAX);
        }
        // The end that was called names it: the connections have it in common.
        let called = Forward {
            to_addr: first.from.ip(),
            to_port: first.from.port(),
            from_interface: forward.to_interface.clone(),
            to_interface: forward.from_interface.clone(),
            gateway: None,
        };
        let mut problem = dropped_by_router(first, forward, &drops, count, context);
        if first.packet == Packet::SynAck {
            problem.forward = Some(called);
        } else {
            problem.confidence = Confidence::Likely;
            problem.evidence.push(contra(
                "whether these are the final ACKs of handshakes or later ones is not seen here: a firewall that has \
                 forgotten a connection drops its ACKs too"
                    .to_owned(),
            ));
        }
        (problem.peers, problem.peers_more) = peers.most();
        found(problem, &drops, context)
    };
    doors.into_values().map(problem).collect()
}

/// SYNs that this host dropped and that are not for it: it has no listener for them, and is no end of them.
fn dropped_by_router(
    first: &DroppedPacket,
    forward: Forward,
    drops: &[&DroppedPacket],
    count: u64,
    context: &Context,
) -> Problem {
    let from = forward.from_interface.as_ref();
    let to = forward.to_interface.as_ref();
    let way = format!(
        "{}{}",
        from.map_or(String::new(), |from| format!(" from {from}")),
        to.map_or(String::new(), |to| format!(" to {to}"))
    );
    let name = context.name_of(first.netns);
    let order = match context.refuses_to_forward(first) {
        true => "was asked to forward",
        false => "was to forward",
    };
    let mut evidence = vec![
        pro(format!(
            "this host dropped {} of {} that it {order}{way}: {} ({})",
            first.packet.counted(count),
            connections(drops.len() as u64),
            first.words,
            first.cause()
        )),
        pro(format!(
            "they are not for this host: {} is no address of namespace {name}",
            forward.to_addr
        )),
    ];
    evidence.extend(first.called_before_nat().map(pro));
    evidence.extend(rules_of(drops, context).into_iter().map(pro));
    evidence.extend(context.route_of_drop(first).map(pro));
    let is_syn = first.packet == Packet::Syn;
    if let Some(listener) = context.would_serve(first).filter(|_| is_syn) {
        evidence.push(pro(format!(
            "listener {listener} would take them, if {} were an address of the namespace (a virtual address \
             of a load balancer, DSR)",
            forward.to_addr
        )));
    }
    let mut problem = of_drops(ProblemRole::Router, drops, evidence, context);
    problem.forward = Some(forward);
    problem
}
