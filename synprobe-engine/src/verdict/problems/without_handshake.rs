//! Problems that no handshake shows: SYNs that never became a half-open.

use std::collections::{BTreeMap, HashSet};

use super::{
    ProblemGroups, contra, of_listener, one_cause::Found, peers::PeerCounts, pro,
    router::dropped_by_router,
};
use crate::{
    model::{Confidence, Evidence, Problem, ProblemRole, Role, VerdictKind, who},
    verdict::{
        Context,
        context::{ClosedListener, DroppedPacket, ListenerHistory, Packet},
        server::listener_closed,
    },
};

/// SYNs that came in and that this host dropped before there was a half-open: no handshake has them.
pub(super) fn refused_at_the_door(groups: &ProblemGroups, context: &Context) -> Vec<Found> {
    type Door<'a> = (u32, &'a str, std::net::IpAddr, u16);
    let mut doors: BTreeMap<Door<'_>, Vec<&DroppedPacket>> = BTreeMap::new();
    for d in context.dropped_syns().filter(|d| !groups.explains(d)) {
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
                return found(problem, &drops);
            }
            let mut evidence = vec![
                pro(format!(
                    "this host dropped {count} SYNs of {} connections that came in: {} ({})",
                    drops.len(),
                    first.words,
                    first.cause()
                )),
                pro(format!(
                    "no half-open exists for them: {}",
                    first.stage().words()
                )),
            ];
            let conntrack = context.conntrack_fact(first);
            let rules = rules_of(&drops, context).into_iter();
            evidence.extend(rules.chain(conntrack).map(pro));
            let mut problem = dropped_at((addr, port), &drops, evidence, context);
            (problem.peers, problem.peers_more) = (peers, peers_more);
            found(problem, &drops)
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
    type Door<'a> = (u32, &'a str, std::net::IpAddr, u16);
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
        let mut evidence = vec![
            pro(format!(
                "this host dropped {count} SYN-ACKs on their way out, of {} connections: {} ({})",
                drops.len(),
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
        found(problem, &drops)
    };
    doors.into_iter().map(problem).collect()
}

/// These drops at a port of this host, with its listener; `certain`, and without peers.
fn dropped_at(
    (addr, port): (std::net::IpAddr, u16),
    drops: &[&DroppedPacket],
    evidence: Vec<Evidence>,
    context: &Context,
) -> Problem {
    let first = drops[0];
    let listener = context
        .listeners_of_port(first.netns, port)
        .next()
        .map(|l| &l.last);
    let netns_name = listener.and_then(|l| l.netns_name.clone());
    Problem {
        rank: 0,
        verdict: Some(VerdictKind::DroppedHere),
        confidence: Confidence::Certain,
        role: ProblemRole::Server,
        forward: None,
        netns: first.netns,
        netns_name: netns_name.or_else(|| context.netns_name(first.netns)),
        local_addr: Some(addr),
        local_port: Some(port),
        peer_port: None,
        pid: listener.and_then(|l| l.pid),
        comm: listener.and_then(|l| l.comm.clone()),
        workload: listener.map(|l| l.workload.clone()).unwrap_or_default(),
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
pub(super) fn rules_of(drops: &[&DroppedPacket], context: &Context) -> Vec<String> {
    context.rules_of_drops(drops.iter().take(LOOKED_AT).copied(), RULES)
}

/// A problem of these drops.
pub(super) fn found(problem: Problem, drops: &[&DroppedPacket]) -> Found {
    Found::of(problem, drops.iter().map(|d| d.ends()))
}

/// A listener that was closed or replaced while another listens at its address: what it held went with it.
/// `None`: it held nothing at the last check, or the group took its half-opens over.
pub(super) fn closed_listener(history: &ListenerHistory, context: &Context) -> Option<Problem> {
    let l = &history.last;
    history.closed_ns?;
    let others = context.group_of(l);
    let replaced = others.iter().any(|h| h.closed_ns.is_none());
    let migrates = context.migrates(l.netns) == Some(true);
    // What the close itself showed is exact.
    let at_check = u64::from(l.accept_queue.unwrap_or(0));
    let waiting = context.waited_at_close(l).unwrap_or(at_check);
    let half_opens = history.half_opens();
    if !replaced || migrates || waiting == 0 && half_opens == 0 {
        return None;
    }
    let mut evidence = vec![pro(history.how_closed())];
    if waiting > 0 {
        evidence.push(pro(
            "close() of a listener resets the connections that wait in its accept queue".to_owned(),
        ));
    }
    if half_opens > 0 {
        evidence.push(pro(format!(
            "{half_opens} half-opens were in the SYN queues of the address then: those of the closed socket end \
             with it, and their final ACK is answered with a RST"
        )));
        evidence.push(contra(
            "the kernel does not tell which socket of the group a half-open belongs to".to_owned(),
        ));
    }
    evidence.push(contra(
        "the check is up to a second older than the close: what happened in between is not known"
            .to_owned(),
    ));
    let remedy = listener_closed::remedy(
        Some(l.local_port),
        true,
        &others
            .first()
            .map_or_else(String::new, |l| l.in_its_netns()),
    );
    let held = waiting + u64::from(half_opens);
    Some(of_listener(
        l,
        VerdictKind::ListenerClosed,
        held,
        evidence,
        remedy,
    ))
}

/// A listener that was closed with connections in its accept queue. `None`: others of its SO_REUSEPORT group
/// took them over.
pub(super) fn closed_with_queue(closed: &ClosedListener, context: &Context) -> Option<Problem> {
    let l = &closed.listener;
    let migrates = context.migrates(l.netns);
    if closed.others_listen && migrates == Some(true) {
        return None;
    }
    let name = std::net::SocketAddr::new(l.local_addr, l.local_port);
    let owner = who(l.comm.as_deref(), l.pid, &l.workload);
    let owner = match owner.is_empty() {
        true => String::new(),
        false => format!(" ({owner})"),
    };
    let (connections, their) = match closed.waiting {
        1 => ("1 connection".to_owned(), "its client"),
        n => (format!("{n} connections"), "their clients"),
    };
    let mut evidence = vec![
        pro(format!(
            "listener {name}{owner} was closed with {connections} in its accept queue"
        )),
        pro(format!(
            "close() of a listener resets what waits there: {their} had completed the handshake, and got a RST"
        )),
    ];
    if closed.others_listen {
        evidence.push(pro("another socket listened at its address then".to_owned()));
        evidence.extend(
            (migrates == Some(false)).then(|| pro(listener_closed::NO_MIGRATION.to_owned())),
        );
    }
    let listens = context.group_of(l);
    let enter = listens
        .first()
        .map_or_else(String::new, |l| l.in_its_netns());
    let remedy = listener_closed::remedy(Some(l.local_port), closed.others_listen, &enter);
    let sure = !closed.others_listen || migrates == Some(false);
    Some(Problem {
        confidence: match sure {
            true => Confidence::Certain,
            false => Confidence::Likely,
        },
        ..of_listener(
            l,
            VerdictKind::ListenerClosed,
            closed.waiting,
            evidence,
            remedy,
        )
    })
}

/// A listener whose queue is full and that has no half-open: the kernel drops SYNs silently, and neither a
/// handshake nor a packet drop shows them.
pub(super) fn full_listener(history: &ListenerHistory, context: &Context) -> Problem {
    let l = &history.last;
    let overflows = context.moved(l.netns, |c| c.listen_overflows);
    let mut evidence = vec![pro(history.how_full())];
    evidence.extend(history.why_not_accepted().map(pro));
    evidence.extend(history.others_of(&context.group_of(l)).map(pro));
    evidence.push(match overflows {
        None => contra("ListenOverflows of its namespace could not be read".to_owned()),
        Some(0) => contra(format!(
            "ListenOverflows of its namespace did not rise {}: no SYN was refused",
            context.during()
        )),
        Some(n) => pro(format!(
            "ListenOverflows of its namespace rose by {n} {}: SYNs are dropped silently",
            context.during()
        )),
    });
    let own = history.dropped();
    let refused = overflows.unwrap_or(0).min(own.unwrap_or(u64::MAX));
    if overflows.unwrap_or(0) > 0 && own == Some(0) {
        evidence.push(contra(
            "its own sk_drops did not rise: it was another listener that refused them".to_owned(),
        ));
    }
    let look = format!("synprobe listeners --port {}", l.local_port);
    let steps = [history.owner_remedy(), Some(look), history.longer_queue()];
    let remedy = steps.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Problem {
        confidence: match refused {
            0 => Confidence::Likely,
            _ => Confidence::Certain,
        },
        ..of_listener(l, VerdictKind::AcceptQueueFull, refused, evidence, remedy)
    }
}
