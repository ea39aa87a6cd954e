//! Many handshakes under one verdict: what is wrong, worst first.

mod without_handshake;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use super::{Context, find};
use crate::{
    model::{Confidence, Evidence, Handshake, Outcome, PeerShare, Problem, Role, VerdictKind},
    util::format,
};

/// Peers named in a problem.
const PEERS: usize = 5;
/// Facts quoted that several handshakes share.
const SHARED: usize = 6;
/// Facts quoted of single handshakes.
const EXAMPLES: usize = 2;

/// What makes two handshakes part of one problem.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    /// `None`: too little is known.
    verdict: Option<VerdictKind>,
    role: Role,
    netns: u32,
    /// Server: the listening port. Client: the port called; `None` for a fan-out.
    port: Option<u16>,
    /// Client: the caller.
    pid: Option<u32>,
}

impl Key {
    fn of(h: &Handshake) -> Self {
        let c = &h.connection;
        let port = match c.role {
            Role::Server => c.local_port,
            Role::Client if h.verdict == Some(VerdictKind::ScanFanout) => None,
            Role::Client => c.peer_port,
        };
        Self {
            role: c.role,
            netns: c.netns,
            pid: c.pid.filter(|_| c.role == Role::Client),
            verdict: h.verdict,
            port,
        }
    }
}

/// Groups judged handshakes; drops without a handshake (a SYN that this host refused) are problems too.
pub fn problems(handshakes: &[Box<Handshake>], context: &Context) -> Vec<Problem> {
    let mut groups: BTreeMap<Key, Vec<&Handshake>> = BTreeMap::new();
    for h in handshakes {
        groups.entry(Key::of(h)).or_default().push(h);
    }
    let mut problems: Vec<Problem> = groups
        .into_iter()
        .map(|(key, group)| problem(&key, &group, context))
        .collect();
    problems.extend(without_handshake::refused_at_the_door(handshakes, context));
    let told: HashSet<(u32, Option<u16>)> = problems
        .iter()
        .filter(|p| p.verdict == Some(VerdictKind::AcceptQueueFull))
        .map(|p| (p.netns, p.local_port))
        .collect();
    let silent = context
        .listeners()
        .filter(|l| l.was_full() && !told.contains(&(l.last.netns, Some(l.last.local_port))));
    problems.extend(silent.map(|l| without_handshake::full_listener(l, context)));
    problems.sort_by_key(|p| {
        (
            p.verdict.is_none(),
            !p.verdict.and_then(find).is_none_or(|v| v.is_fault()),
            std::cmp::Reverse(weight(p)),
        )
    });
    for (rank, problem) in (1..).zip(&mut problems) {
        problem.rank = rank;
    }
    problems
}

/// How bad it is: how many it concerns, half as much where it is only likely.
fn weight(p: &Problem) -> u64 {
    let sure = if p.confidence == Confidence::Certain {
        2
    } else {
        1
    };
    // A handshake that came late to a good end is the lesser evil.
    let late = matches!(
        p.verdict,
        Some(VerdictKind::SlowPeer | VerdictKind::SynLostThenOk | VerdictKind::FlashCrowd)
    );
    p.handshakes * sure * if late { 1 } else { 4 }
}

fn problem(key: &Key, group: &[&Handshake], context: &Context) -> Problem {
    let surest = group
        .iter()
        .copied()
        .min_by_key(|h| match h.confidence {
            Confidence::Certain => 0,
            Confidence::Likely => 1,
            Confidence::Insufficient => 2,
        })
        .unwrap_or(group[0]);
    let certain = group
        .iter()
        .filter(|h| h.confidence == Confidence::Certain)
        .count();
    let mut evidence = vec![pro(summary(group))];
    if certain > 0 && certain < group.len() {
        evidence.push(pro(format!(
            "seen itself in {certain} of them, the likeliest reason for the others"
        )));
    }
    let of_many = key
        .verdict
        .and_then(find)
        .and_then(|v| v.facts_of_many(group, context));
    evidence.extend(of_many.unwrap_or_else(|| shared_facts(group)));
    let (peers, peers_more) = peers(group.iter().map(|h| h.connection.peer_addr));
    let c = &surest.connection;
    let listener = context.listener(c).filter(|_| key.role == Role::Server);
    Problem {
        rank: 0,
        verdict: key.verdict,
        confidence: surest.confidence,
        role: key.role,
        netns: key.netns,
        netns_name: c.netns_name.clone(),
        local_addr: match key.role {
            Role::Server => Some(listener.map_or(c.local_addr, |l| l.last.local_addr)),
            Role::Client => None,
        },
        local_port: key.port.filter(|_| key.role == Role::Server),
        peer_port: key.port.filter(|_| key.role == Role::Client),
        pid: c.pid,
        comm: c.comm.clone(),
        handshakes: group.len() as u64,
        open: group.iter().filter(|h| h.outcome == Outcome::Open).count() as u64,
        peers,
        peers_more,
        evidence,
        remedy: surest.remedy.clone(),
    }
}

/// `307 half-opens: 290 open, 17 expired; the oldest 48.0 s; sent again 1 to 5 times`
fn summary(group: &[&Handshake]) -> String {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for h in group {
        *outcomes.entry(h.outcome.name()).or_default() += 1;
    }
    let mut parts: Vec<(usize, String)> = outcomes
        .into_iter()
        .map(|(name, n)| (n, format!("{n} {}", name.replace('_', " "))))
        .collect();
    parts.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    let what = match (group[0].connection.role, group.len()) {
        (Role::Server, 1) => "half-open",
        (Role::Server, _) => "half-opens",
        (Role::Client, 1) => "connect",
        (Role::Client, _) => "connects",
    };
    let ends: HashSet<_> = group
        .iter()
        .map(|h| {
            let c = &h.connection;
            (c.local_addr, c.local_port, c.peer_addr, c.peer_port)
        })
        .collect();
    let of = match (ends.len(), group[0].connection.role) {
        // A peer that sends its SYN again after we have forgotten it makes another one.
        (n, Role::Server) if n < group.len() => format!(" of {n} connections"),
        _ => String::new(),
    };
    let mut text = format!("{} {what}{of}: {}", group.len(), parts.join(", "));
    if let Some(longest) = group.iter().filter_map(|h| h.dwell_us).max() {
        text.push_str(&format!("; the longest {}", format::duration(longest)));
    }
    let again = |h: &&Handshake| h.retransmits;
    let (least, most) = (
        group.iter().map(again).min().unwrap_or(0),
        group.iter().map(again).max().unwrap_or(0),
    );
    match (least, most) {
        (0, 0) => (),
        (a, b) if a == b => text.push_str(&format!("; sent again {}", super::times(a))),
        (a, b) => text.push_str(&format!("; sent again {a} to {b} times")),
    }
    let by_peer = group.iter().filter(|h| h.retransmits_by_peer > 0).count();
    if by_peer > 0 {
        text.push_str(&format!("; {by_peer} whose peer repeated its SYN"));
    }
    text
}

/// Facts that several of them share word for word, most shared first; then a few of single ones.
fn shared_facts(group: &[&Handshake]) -> Vec<Evidence> {
    let mut counts: HashMap<&Evidence, usize> = HashMap::new();
    let mut order: Vec<&Evidence> = Vec::new();
    for e in group.iter().flat_map(|h| &h.evidence) {
        let n = counts.entry(e).or_insert(0);
        if *n == 0 {
            order.push(e);
        }
        *n += 1;
    }
    order.sort_by_key(|e| std::cmp::Reverse(counts[e]));
    let alone = |e: &&Evidence| counts[e] == 1 && group.len() > 1;
    let (single, shared): (Vec<&Evidence>, Vec<&Evidence>) = order.iter().partition(|e| alone(e));
    let shown = shared
        .into_iter()
        .take(SHARED)
        .chain(single.into_iter().take(EXAMPLES));
    let mut facts: Vec<Evidence> = shown
        .map(|e| Evidence {
            fact: match counts[e] {
                n if n == group.len() => e.fact.clone(),
                1 => format!("for example: {}", e.fact),
                n => format!("{} ({n} of them)", e.fact),
            },
            supports: e.supports,
        })
        .collect();
    facts.sort_by_key(|e| !e.supports);
    facts
}

fn peers(of: impl Iterator<Item = IpAddr>) -> (Vec<PeerShare>, u64) {
    let mut counts: HashMap<IpAddr, u64> = HashMap::new();
    for peer in of {
        *counts.entry(peer).or_default() += 1;
    }
    let mut counts: Vec<(IpAddr, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(peer, n)| (std::cmp::Reverse(*n), *peer));
    let more = counts.len().saturating_sub(PEERS) as u64;
    let shown = counts
        .into_iter()
        .take(PEERS)
        .map(|(peer_addr, handshakes)| PeerShare {
            peer_addr,
            handshakes,
        })
        .collect();
    (shown, more)
}

fn pro(fact: String) -> Evidence {
    Evidence {
        fact,
        supports: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, Line},
        verdict::{Judge, Mode, context::Packet, fixtures::*},
    };

    /// What is said at the end of a run that had these handshakes.
    fn ended(handshakes: Vec<Handshake>, context: Context) -> Vec<Line> {
        let mut judge = Judge::new(Mode::AtTheEnd, context);
        let early = judge.pass(handshakes.into_iter().map(line).collect());
        assert!(
            early.is_empty(),
            "nothing is said before the end: {early:?}"
        );
        judge.finish(Vec::new())
    }

    fn found(lines: &[Line]) -> Vec<Problem> {
        let of = |line: &Line| match &line.body {
            Body::Problem(p) => Some(p.as_ref().clone()),
            _ => None,
        };
        lines.iter().filter_map(of).collect()
    }

    fn fine() -> Handshake {
        let mut h = half_open(Outcome::Established);
        (h.retransmits, h.dwell_us) = (0, Some(300));
        h
    }

    #[test]
    fn many_of_one_kind_are_one_problem_worst_first() {
        let mut all = vec![fine(), fine()];
        for n in 0..40 {
            let mut h = half_open_of(&format!("10.1.{}.7", n % 8), Outcome::Open);
            h.connection.peer_port = Some(1000 + n);
            h.retransmits_by_peer = 1 + u32::from(n % 3);
            all.push(h);
        }
        for n in 0..3 {
            let mut h = active(Outcome::Refused);
            h.connection.id = 100 + n;
            h.facts.reset_seen = true;
            all.push(h);
        }
        let mut young = half_open_of("10.2.0.1", Outcome::Open);
        young.retransmits = 0;
        all.push(young);
        let lines = ended(all, looked(&listener(0, 41), 0, 0));
        let handshakes = lines
            .iter()
            .filter(|l| matches!(l.body, Body::Handshake(_)))
            .count();
        assert_eq!(handshakes, 44, "those that went well are not among them");
        let problems = found(&lines);
        let told: Vec<_> = problems
            .iter()
            .map(|p| (p.rank, p.verdict_name(), p.confidence, p.handshakes))
            .collect();
        assert_eq!(
            told,
            [
                (1, "synack-lost", Confidence::Certain, 40),
                (2, "refused", Confidence::Certain, 3),
                (3, "insufficient", Confidence::Insufficient, 1),
            ]
        );
        let worst = &problems[0];
        assert_eq!((worst.open, worst.peers_more), (40, 3));
        assert_eq!(worst.peers.len(), 5);
        assert!(worst.peers.iter().all(|p| p.handshakes == 5));
        assert_eq!(worst.local_addr, Some("0.0.0.0".parse().unwrap()));
        assert_eq!(
            worst.evidence[0].fact,
            "40 half-opens: 40 open; the longest 3.00 s; sent again twice; 40 whose peer repeated its SYN"
        );
        assert!(worst.evidence.iter().any(|e| !e.supports) || worst.remedy.is_some());
    }

    #[test]
    fn all_are_judged_by_what_is_known_at_the_end() {
        // The first ones of a flood look like a few silent peers; at the end they are part of it.
        let mut all = Vec::new();
        for n in 0..120 {
            all.push(half_open_of(&format!("198.18.0.{n}"), Outcome::Expired));
        }
        let problems = found(&ended(all, looked(&listener(0, 100), 0, 30)));
        assert_eq!(problems.len(), 1);
        assert_eq!(
            (problems[0].verdict_name(), problems[0].handshakes),
            ("syn-flood", 120)
        );
    }

    #[test]
    fn syns_that_never_became_a_half_open_are_a_problem_too() {
        let mut context = looked(&listener(0, 0), 0, 0);
        for port in 0..3 {
            let mut h = half_open(Outcome::Open);
            h.connection.peer_port = Some(2000 + port);
            let mut d = discard(&h, Packet::Syn, 4);
            std::mem::swap(&mut d.from, &mut d.to);
            d.incoming = true;
            context.discarded(d);
        }
        let problems = found(&ended(Vec::new(), context));
        assert_eq!(problems.len(), 1);
        let p = &problems[0];
        assert_eq!(
            (p.verdict_name(), p.confidence, p.local_port, p.handshakes),
            ("dropped-here", Confidence::Certain, Some(8080), 3)
        );
        assert_eq!(
            p.evidence[0].fact,
            "this host dropped 12 SYNs of 3 connections that came in: this host's netfilter rules \
             (NETFILTER_DROP at nft_do_chain)"
        );
    }

    #[test]
    fn a_full_queue_is_a_problem_though_no_handshake_tells() {
        let problems = found(&ended(Vec::new(), looked(&listener(129, 0), 40, 0)));
        assert_eq!(problems.len(), 1);
        let p = &problems[0];
        assert_eq!(
            (p.verdict_name(), p.confidence, p.local_port, p.handshakes),
            ("accept-queue-full", Confidence::Certain, Some(8080), 40)
        );
        let unmoved = found(&ended(Vec::new(), looked(&listener(129, 0), 0, 0)));
        assert_eq!(unmoved[0].confidence, Confidence::Likely);
        // Once, where handshakes tell of it too.
        let mut h = half_open(Outcome::Open);
        (h.facts.acked, h.facts.queue_was_full) = (true, true);
        assert_eq!(
            found(&ended(vec![h], looked(&listener(129, 1), 40, 0))).len(),
            1
        );
    }

    #[test]
    fn a_healthy_run_has_no_problem() {
        let lines = ended(vec![fine(), fine()], Context::default());
        assert!(lines.is_empty());
    }
}
