//! Problems that counters alone show: SYNs that a listener refused without a half-open and without an event.

use crate::{
    model::{Confidence, Evidence, LimitedBy, Problem, Role, VerdictKind},
    verdict::{
        Context, CounterRise,
        client::no_route_back::{FEW, no_routes_fact, other_packets, refused_fact},
        context::ListenerHistory,
        parts::found::{contra, of_listener, pro},
    },
};

/// The listener that refused the SYNs of a namespace: the one whose `sk_drops` rose most, and whether others'
/// rose too. `None`: no listener of the selection may be it.
fn refuser(context: &Context, netns: u32) -> Option<(&ListenerHistory, usize)> {
    let may = |l: &&ListenerHistory| l.last.netns == netns && l.dropped() != Some(0);
    let all: Vec<&ListenerHistory> = context.listeners().filter(may).collect();
    let most = all
        .iter()
        .max_by_key(|l| (l.dropped(), l.syn_queue_was_full()))?;
    context
        .selects_listener(&most.last)
        .then_some((*most, all.len() - 1))
}

fn problem(
    verdict: VerdictKind,
    confidence: Confidence,
    (history, others): (&ListenerHistory, usize),
    refused: u64,
    mut evidence: Vec<Evidence>,
    remedy: String,
) -> Problem {
    let l = &history.last;
    if others > 0 {
        evidence.push(contra(format!(
            "sk_drops of {others} other listeners of the namespace rose too: they may have refused some of them"
        )));
    }
    Problem {
        confidence,
        ..of_listener(l, verdict, refused, evidence, remedy)
    }
}

/// Listeners that refused SYNs because they have no route to answer.
fn no_route_back(context: &Context, netns: u32) -> Option<Problem> {
    let refused = context.refused_without_trace(netns).filter(|n| *n > 0)?;
    let no_routes = context
        .moved(netns, |c| c.out_no_routes)
        .filter(|n| *n > 0)?;
    if no_routes * 2 < refused {
        return None;
    }
    let found = refuser(context, netns)?;
    let own = found.0.dropped();
    let adds_up = no_routes == refused && refused >= FEW && found.1 == 0;
    let mut evidence = vec![pro(refused_fact(refused)), pro(no_routes_fact(no_routes))];
    if let Some(n) = own {
        // Its first reading may be later than that of the counters.
        let at_least = if n < refused { "at least " } else { "" };
        evidence.push(pro(format!(
            "sk_drops of listener {} rose by {at_least}{n}",
            found.0.name()
        )));
    }
    if no_routes > refused {
        evidence.push(contra(other_packets(no_routes - refused)));
    }
    if no_routes < refused {
        evidence.push(contra(format!(
            "{} of the refused SYNs are not explained by a missing route",
            refused - no_routes
        )));
    }
    evidence.push(pro(
        "the kernel reports no event and no peer for a SYN that ends so".to_owned(),
    ));
    let enter = found.0.in_its_netns();
    let port = found.0.last.local_port;
    let remedy = format!(
        "see who calls: {enter}tcpdump -ni any -c 20 'dst port {port}'; see whether a route leads back to it: \
         {enter}ip route show table all; see whether a rule forbids it: {enter}ip rule; where a route is missing, \
         add one, or a default route"
    );
    let confidence = if adds_up {
        Confidence::Certain
    } else {
        Confidence::Likely
    };
    Some(problem(
        VerdictKind::NoRouteBack,
        confidence,
        found,
        refused,
        evidence,
        remedy,
    ))
}

/// Listeners whose SYN queue is full while SYN cookies are off.
fn syn_queue_full(context: &Context, netns: u32) -> Option<Problem> {
    let found = refuser(context, netns)?;
    let refused = context.refused_by_syn_queue(found.0)?;
    let counted = context.counts_full_syn_queue(found.0);
    let confidence = match counted && found.1 == 0 {
        true => Confidence::Certain,
        false => Confidence::Likely,
    };
    let evidence = found.0.syn_queue_facts(refused).into_iter().map(pro);
    let evidence = evidence.collect();
    let remedy = found.0.syn_queue_remedy();
    Some(problem(
        VerdictKind::SynQueueFull,
        confidence,
        found,
        refused,
        evidence,
        remedy,
    ))
}

/// An accept queue that overflowed between two checks: ListenOverflows counts nothing else.
fn overflowed(context: &Context, netns: u32) -> Option<Problem> {
    let overflows = context
        .moved(netns, |c| c.listen_overflows)
        .filter(|n| *n > 0)?;
    let was_full = |l: &ListenerHistory| l.last.netns == netns && l.was_full();
    if context.listeners().any(was_full) {
        return None;
    }
    let may = |l: &&ListenerHistory| l.last.netns == netns && l.dropped() != Some(0);
    let mut all = context.listeners().filter(may);
    // With two, it is not known which: see `unexplained`.
    let (Some(only), None) = (all.next(), all.next()) else {
        return None;
    };
    if !context.selects_listener(&only.last) {
        return None;
    }
    let max = only.last.accept_queue_max.unwrap_or(0);
    let evidence = vec![
        pro(format!(
            "ListenOverflows of its namespace rose by {overflows} {}: SYNs and final ACKs found a full accept queue",
            context.during()
        )),
        pro(format!(
            "listener {}: the only one of the namespace whose sk_drops rose",
            only.name()
        )),
        contra(format!(
            "its accept queue was not full in any of {} checks, up to {} of {max}: it was full between them",
            only.samples, only.longest
        )),
    ];
    let port = only.last.local_port;
    let raise = match only.last.limited_by {
        Some(LimitedBy::Somaxconn) => "raise net.core.somaxconn and the backlog of listen()",
        _ => "raise the backlog of listen()",
    };
    let remedy = format!(
        "a queue of {max} is short for a burst of connections; {raise}, or accept() sooner; synprobe \
         listeners --port {port}"
    );
    Some(problem(
        VerdictKind::AcceptQueueFull,
        Confidence::Likely,
        (only, 0),
        overflows,
        evidence,
        remedy,
    ))
}

/// All of them, by namespace. `explained`: whether another problem explains it already.
pub(super) fn refused_silently(
    context: &Context,
    explained: impl Fn(CounterRise, u32) -> bool,
) -> Vec<Problem> {
    if !context.selection.wants(Role::Server) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for netns in context.counted_namespaces() {
        problems.extend(no_route_back(context, netns));
        if !explained(CounterRise::FullSynQueue, netns) {
            problems.extend(syn_queue_full(context, netns));
        }
        if !explained(CounterRise::Overflows, netns) {
            problems.extend(overflowed(context, netns));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ListenCounters, Outcome, ProblemRole},
        verdict::{ProblemGroups, context::Packet, fixtures::*},
    };

    /// Listeners on these ports, the `drops` of the first rose, and the counters as changed.
    fn problems(ports: &[u16], drops: u64, change: impl Fn(&mut ListenCounters)) -> Vec<Problem> {
        let mut context = Context::default();
        let before = ListenCounters {
            netns: NETNS,
            listen_overflows: Some(0),
            listen_drops: Some(0),
            req_q_full_drop: Some(0),
            out_no_routes: Some(0),
            ..ListenCounters::default()
        };
        let mut after = before;
        change(&mut after);
        for (counters, dropped) in [(before, 0), (after, drops), (after, drops)] {
            let all: Vec<_> = ports
                .iter()
                .enumerate()
                .map(|(n, port)| {
                    let mut it = listener(0, 0);
                    (it.local_port, it.inode) = (*port, Some(u32::from(*port)));
                    it.drops = Some(if n == 0 { dropped } else { 0 });
                    it
                })
                .collect();
            context.sample(&all, &[counters]);
        }
        ProblemGroups::default().problems(std::iter::empty(), &context)
    }

    #[test]
    fn as_many_without_a_route_as_were_refused_is_certain() {
        let found = problems(&[80, 81], 18, |c| {
            (c.listen_drops, c.out_no_routes) = (Some(18), Some(18));
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].verdict, Some(VerdictKind::NoRouteBack));
        assert_eq!(found[0].confidence, Confidence::Certain);
        assert_eq!((found[0].local_port, found[0].handshakes), (Some(80), 18));
        // Two may be equal by chance, and other packets may have had no route.
        for (refused, no_routes) in [(2, 2), (18, 40), (18, 12)] {
            let found = problems(&[80], refused, |c| {
                (c.listen_drops, c.out_no_routes) = (Some(refused), Some(no_routes));
            });
            assert_eq!(found[0].verdict, Some(VerdictKind::NoRouteBack));
            assert_eq!(
                found[0].confidence,
                Confidence::Likely,
                "{refused} {no_routes}"
            );
        }
    }

    #[test]
    fn refusals_that_no_missing_route_explains_are_no_problem_of_routes() {
        for no_routes in [Some(0), None, Some(3)] {
            let found = problems(&[80], 18, |c| {
                (c.listen_drops, c.out_no_routes) = (Some(18), no_routes);
            });
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn an_overflow_between_two_checks_is_the_only_listener_s_whose_drops_rose() {
        let found = problems(&[80, 81], 864, |c| {
            (c.listen_drops, c.listen_overflows) = (Some(864), Some(864));
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].verdict, Some(VerdictKind::AcceptQueueFull));
        assert_eq!(found[0].confidence, Confidence::Likely);
        assert_eq!((found[0].local_port, found[0].handshakes), (Some(80), 864));
    }

    #[test]
    fn dropped_syn_acks_are_a_problem_though_no_half_open_is_seen() {
        let mut context = Context::default();
        let h = half_open(Outcome::Open);
        context.note_drop(discard(&h, Packet::SynAck, 7));
        let found = ProblemGroups::default().problems(std::iter::empty(), &context);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].verdict, Some(VerdictKind::DroppedHere));
        assert_eq!(found[0].role, ProblemRole::Server);
        assert_eq!(found[0].handshakes, 1);
        assert!(
            found[0].evidence[0]
                .fact
                .starts_with("this host dropped 7 SYN-ACKs on their way out, of 1 connection:"),
            "{found:?}"
        );
    }
}
