//! Problems of one cause are one: the cause stays, and what it does to the other end is its effect.
//!
//! Both ends of a connection may be on this host: the server's SYN-ACK is dropped, and the client gets no
//! answer. Both are troubled handshakes of the same connections. One rule of a packet filter drops SYNs to several ports,
//! and ACKs: those are problems of one cause too, though their connections differ.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use crate::{
    model::{Confidence, EffectTie, Problem, ProblemEffect, ProblemRole, Role, VerdictKind},
    verdict::parts::found::Found,
};

/// Of a problem's connections, this share must be another's for it to be an effect, percent.
const SHARE: usize = 90;

/// How strong the evidence of a cause is; the strongest comes first.
fn strength(p: &Problem) -> impl Ord + use<> {
    let place = p
        .verdict
        .and_then(|kind| VerdictKind::ALL.iter().position(|k| *k == kind));
    (
        p.verdict.is_none(),
        place,
        p.confidence != Confidence::Certain,
        // Where several say the same: the router that did it, then the server, which has the queues.
        match p.role {
            ProblemRole::Router => 0,
            ProblemRole::Server => 1,
            ProblemRole::Client => 2,
        },
        Reverse(p.handshakes),
    )
}

/// Whether a listener's verdict is what the verdict of its clients tells of. The listener's problem may have no
/// connections: counters alone show it.
fn is_other_end(listener: Option<VerdictKind>, client: Option<VerdictKind>) -> bool {
    use VerdictKind::{
        AcceptQueueFull, ListenerClosed, NoRouteBack, ResetAfterHandshake, ServerQueueFull,
        SynQueueFull,
    };
    matches!(
        (listener, client),
        (Some(AcceptQueueFull), Some(ServerQueueFull))
            | (Some(NoRouteBack), Some(NoRouteBack))
            | (Some(SynQueueFull), Some(SynQueueFull))
            | (Some(ListenerClosed), Some(ResetAfterHandshake))
    ) || listener == Some(ListenerClosed) && client.is_some_and(VerdictKind::finds_no_listener)
}

/// Causes so far, and how to find the one of which a problem is an effect. At most one look-up a connection:
/// there may be thousands of problems.
#[derive(Default)]
struct Causes {
    found: Vec<Found>,
    /// By role and connection: the strongest cause, an index of `found`.
    by_connection: HashMap<(ProblemRole, u64), usize>,
    /// What dropped packets, by its namespace and name: the first of its problems.
    by_drop: HashMap<(u32, String), usize>,
}

impl Causes {
    /// An index of `found`, and what ties the problem to it.
    fn cause_of(&self, f: &Found) -> Option<(usize, EffectTie)> {
        let other_end = self.other_end_of(f).map(|n| {
            let tie = match self.found[n].problem.role == f.problem.role {
                // SYNs that came after the listener was closed.
                true => EffectTie::Cause,
                false => EffectTie::Connections,
            };
            (n, tie)
        });
        let same = || self.by_drop.get(f.cause.as_ref()?).copied();
        let same = || same().or_else(|| self.self_connect_of(&f.problem));
        other_end.or_else(|| Some((same()?, EffectTie::Cause)))
    }

    /// The socket that is connected to itself at the port where a client was refused before: nothing listens there.
    fn self_connect_of(&self, p: &Problem) -> Option<usize> {
        let ([peer], ProblemRole::Client) = (&p.peers[..], p.role) else {
            return None;
        };
        if !p.verdict.is_some_and(VerdictKind::finds_no_listener) || p.peers_more > 0 {
            return None;
        }
        self.found.iter().position(|cause| {
            let cause = &cause.problem;
            let there = (cause.netns, cause.peer_port) == (p.netns, p.peer_port);
            cause.verdict == Some(VerdictKind::SelfConnect)
                && there
                && cause.peers.iter().any(|of| of.peer_addr == peer.peer_addr)
        })
    }

    fn other_end_of(&self, f: &Found) -> Option<usize> {
        let p = &f.problem;
        let others = [
            ProblemRole::Client,
            ProblemRole::Server,
            ProblemRole::Router,
        ];
        let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
        for connection in &f.connections {
            for other in others.into_iter().filter(|other| *other != p.role) {
                if let Some(cause) = self.by_connection.get(&(other, *connection)) {
                    *shared.entry(*cause).or_default() += 1;
                }
            }
        }
        let all = f.connections.len();
        let of_connections = shared
            .into_iter()
            .find(|(_, shared)| shared * 100 >= all * SHARE)
            .map(|(cause, _)| cause);
        of_connections.or_else(|| {
            let called = f.called?;
            self.found.iter().position(|cause| {
                let cause = &cause.problem;
                let at = (cause.netns, cause.local_port) == (called.0, Some(called.1));
                at && cause.role == Role::Server && is_other_end(cause.verdict, p.verdict)
            })
        })
    }

    fn add(&mut self, f: Found) {
        if let Some(cause) = &f.cause {
            let index = self.found.len();
            self.by_drop.entry(cause.clone()).or_insert(index);
        }
        if f.problem.verdict.is_some() {
            let index = self.found.len();
            for connection in &f.connections {
                self.by_connection
                    .entry((f.problem.role, *connection))
                    .or_insert(index);
            }
        }
        self.found.push(f);
    }
}

/// The problems that are a cause of their own, each with its effects.
pub(in crate::verdict) fn merged(mut found: Vec<Found>) -> Vec<Problem> {
    found.sort_by_key(|f| strength(&f.problem));
    let mut causes = Causes::default();
    for f in found {
        let Some((cause, tie)) = causes.cause_of(&f) else {
            causes.add(f);
            continue;
        };
        let p = f.problem;
        causes.found[cause].problem.effects.push(ProblemEffect {
            tie,
            verdict: p.verdict,
            confidence: p.confidence,
            role: p.role,
            netns: p.netns,
            netns_name: p.netns_name,
            local_port: p.local_port,
            peer_port: p.peer_port,
            pid: p.pid,
            comm: p.comm,
            workload: p.workload,
            handshakes: p.handshakes,
        });
    }
    let mut problems: Vec<Problem> = causes.found.into_iter().map(|f| f.problem).collect();
    for p in &mut problems {
        p.effects.sort_by_key(|e| Reverse(e.handshakes));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, Handshake, Outcome},
        verdict::{Context, Judge, Mode, fixtures::*},
    };

    fn problems(handshakes: Vec<Handshake>) -> Vec<Problem> {
        let mut judge = Judge::new(Mode::AtTheEnd, Context::default());
        judge.pass(handshakes.into_iter().map(line).collect());
        let of = |l: &crate::model::Line| match &l.body {
            Body::Problem(p) => Some(p.as_ref().clone()),
            _ => None,
        };
        judge.finish(Vec::new()).iter().filter_map(of).collect()
    }

    /// A half-open whose peer repeats its SYN, and the client's end of the same connection.
    fn both_ends(port: u16) -> [Handshake; 2] {
        let mut server = half_open_of("10.0.0.9", Outcome::Open);
        server.connection.peer_port = Some(port);
        server.retransmits_by_peer = 2;
        let mut client = active(Outcome::TimedOut);
        let (c, s) = (&mut client.connection, &server.connection);
        (c.local_addr, c.local_port) = (s.peer_addr, s.peer_port);
        (c.peer_addr, c.peer_port) = (s.local_addr, s.local_port);
        (c.netns, c.id) = (s.netns + 1, s.id + 1);
        [server, client]
    }

    #[test]
    fn the_other_end_of_the_same_connections_is_an_effect() {
        let all = (0..20).flat_map(|n| both_ends(2000 + n)).collect();
        let found = problems(all);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].verdict, Some(VerdictKind::SynackLost));
        let [effect] = &found[0].effects[..] else {
            panic!("{found:#?}");
        };
        assert_eq!(effect.verdict, Some(VerdictKind::Filtered));
        assert_eq!((effect.role, effect.handshakes), (ProblemRole::Client, 20));
    }

    /// One rule drops SYNs to one port and final ACKs to another: the connections differ, the cause does not.
    #[test]
    fn what_one_rule_dropped_is_one_problem() {
        let found = |cause: Option<&str>, handshakes| {
            let mut problem = problems(both_ends(2000).to_vec()).remove(0);
            problem.verdict = Some(VerdictKind::DroppedHere);
            problem.handshakes = handshakes;
            Found {
                cause: cause.map(|rule| (NETNS, rule.to_owned())),
                ..Found::alone(problem)
            }
        };
        let merge = |a, b| merged(vec![found(a, 3), found(b, 15)]);
        let one = merge(
            Some("table ip n chain p handle 2"),
            Some("table ip n chain p handle 2"),
        );
        let [problem] = &one[..] else {
            panic!("{one:#?}");
        };
        assert_eq!(problem.handshakes, 15);
        let own = problem.effects.iter().filter(|e| e.tie == EffectTie::Cause);
        assert_eq!(own.map(|e| e.handshakes).collect::<Vec<_>>(), [3]);
        assert_eq!(
            merge(Some("table ip n chain p handle 2"), Some("handle 3")).len(),
            2
        );
        assert_eq!(merge(None, None).len(), 2);
    }

    /// The service is down: its client is refused in a loop, and one day connected to itself.
    #[test]
    fn refusals_before_a_self_connect_are_its_effect() {
        let found = |port| {
            let mut itself = active(Outcome::Established);
            itself.connection.peer_addr = itself.connection.local_addr;
            itself.connection.peer_port = itself.connection.local_port;
            let refused = (1..4).map(|id| {
                let mut h = itself.clone();
                (h.outcome, h.facts.reset_seen) = (Outcome::Refused, true);
                (h.connection.id, h.connection.local_port) = (id + 100, Some(5000 + id as u16));
                h.connection.peer_port = port;
                h
            });
            problems(refused.chain([itself.clone()]).collect())
        };
        let port = active(Outcome::Established).connection.local_port;
        let one = found(port);
        assert_eq!(one.len(), 1, "{one:#?}");
        assert_eq!(one[0].verdict, Some(VerdictKind::SelfConnect));
        assert_eq!(one[0].effects[0].handshakes, 3);
        assert_eq!(found(Some(9)).len(), 2);
    }

    #[test]
    fn connections_of_their_own_are_a_problem_of_their_own() {
        let mut all: Vec<Handshake> = (0..20).flat_map(|n| both_ends(2000 + n)).collect();
        // Five more clients, of which no server's end is known.
        all.extend((0..5).map(|n| {
            let [_, client] = both_ends(3000 + n);
            client
        }));
        let found = problems(all);
        let verdicts: Vec<_> = found.iter().map(Problem::verdict_name).collect();
        assert_eq!(verdicts, ["filtered", "synack-lost"]);
        assert!(found.iter().all(|p| p.effects.is_empty()), "{found:#?}");
    }
}
