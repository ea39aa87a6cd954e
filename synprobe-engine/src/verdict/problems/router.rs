//! What this host drops while it forwards it: it is no end of these connections.

use std::collections::BTreeMap;

use super::{
    ProblemGroups,
    one_cause::Found,
    peers::PeerCounts,
    pro,
    without_handshake::{found, rules_of},
};
use crate::{
    model::{Confidence, Forward, Problem, ProblemRole, VerdictKind},
    verdict::{
        Context,
        context::{DroppedPacket, Packet},
    },
};

/// Whether the router itself refuses it. One to an address that nobody has, or whose neighbour does not answer, may be
/// the answer to a forged SYN.
fn is_refused(d: &DroppedPacket) -> bool {
    let nobodys = ["IP_INADDRERRORS", "IP_INNOROUTES", "IP_OUTNOROUTES"];
    !nobodys.contains(&&*d.reason) && !d.is_of_neighbour() && !d.may_be_a_copy()
}

/// SYN-ACKs that came in, that this host was to forward and dropped. `listed`: those whose handshake has a problem.
pub(super) fn forwarded_synacks(groups: &ProblemGroups, context: &Context) -> Vec<Found> {
    type Door<'a> = (u32, &'a str, std::net::IpAddr, u16);
    let mut doors: BTreeMap<Door<'_>, Vec<(&DroppedPacket, Forward)>> = BTreeMap::new();
    let dropped = context.dropped_packets().filter(|d| {
        d.packet == Packet::SynAck && d.incoming && is_refused(d) && !groups.explains(d)
    });
    for d in dropped {
        if let Some(forward) = context.forward(d) {
            let door = (d.netns, &*d.words, d.from.ip(), d.from.port());
            doors.entry(door).or_default().push((d, forward));
        }
    }
    let problem = |all: Vec<(&DroppedPacket, Forward)>| {
        let (first, forward) = all[0].clone();
        let drops: Vec<&DroppedPacket> = all.iter().map(|(d, _)| *d).collect();
        let count: u64 = drops.iter().map(|d| d.count).sum();
        let mut peers = PeerCounts::default();
        for d in &drops {
            peers.add(d.to.ip(), 1, usize::MAX);
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
        problem.forward = Some(called);
        (problem.peers, problem.peers_more) = peers.most();
        found(problem, &drops)
    };
    doors.into_values().map(problem).collect()
}

/// SYNs that this host dropped and that are not for it: it has no listener for them, and is no end of them.
pub(super) fn dropped_by_router(
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
            "this host dropped {count} {}s of {} connections that it {order}{way}: {} ({})",
            first.packet.name(),
            drops.len(),
            first.words,
            first.cause()
        )),
        pro(format!(
            "they are not for this host: {} is no address of namespace {name}",
            forward.to_addr
        )),
    ];
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
    Problem {
        rank: 0,
        verdict: Some(VerdictKind::DroppedHere),
        confidence: Confidence::Certain,
        role: ProblemRole::Router,
        netns: first.netns,
        netns_name: context.netns_name(first.netns),
        local_addr: None,
        local_port: None,
        peer_port: None,
        forward: Some(forward),
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
