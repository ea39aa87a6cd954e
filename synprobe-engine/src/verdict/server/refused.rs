//! SYNs for which no socket listens: the server's end of `refused`.

use crate::{
    model::{Confidence, Evidence, Handshake, Listener, Problem, ProblemRole, Role, VerdictKind},
    verdict::{
        Context,
        context::{Ends, ListenerHistory, NoSocketSum},
        parts::found::{Found, contra, pro},
        run_in, who_listens,
    },
};

/// Listeners of the port that are described each.
const DESCRIBED: usize = 3;

/// Whether it is the other end: a client whose SYN was answered with a RST.
pub(in crate::verdict) fn is_clients_end(h: &Handshake) -> bool {
    h.verdict == Some(VerdictKind::Refused) && h.connection.role == Role::Client
}

/// One problem for each end at which a listener is missed. SYNs of this host's own clients, by their sequence numbers,
/// are theirs.
pub(in crate::verdict) fn problems(
    is_a_clients: &dyn Fn(u32) -> bool,
    context: &Context,
) -> Vec<Found> {
    let found = |sum: &NoSocketSum| {
        let left: Vec<Ends> = (sum.seqs.iter())
            .filter(|(_, seq)| !is_a_clients(*seq))
            .map(|(peer, _)| Ends::between(sum.local, *peer))
            .collect();
        let own = (sum.seqs.len() - left.len()) as u64;
        (!left.is_empty()).then(|| Found {
            called: closed_listener(sum, context),
            ..Found::of(problem(sum, sum.count - own, context), left)
        })
    };
    context.missed_listeners().filter_map(found).collect()
}

/// The listener that was closed in this run with what it held: then these SYNs came too late. Namespace and port.
fn closed_listener(sum: &NoSocketSum, context: &Context) -> Option<(u32, u16)> {
    let called = Listener::at(sum.netns, sum.local.ip(), sum.local.port());
    let closed = context.seen_closing(&called)?;
    (closed.held() > 0).then_some((sum.netns, sum.local.port()))
}

fn problem(sum: &NoSocketSum, count: u64, context: &Context) -> Problem {
    let (peers, peers_more) = sum.peers.most();
    let name = context.netns_name(sum.netns);
    let port = sum.local.port();
    let which = run_in(name.as_deref(), &who_listens(port));
    Problem {
        rank: 0,
        verdict: Some(VerdictKind::Refused),
        confidence: Confidence::Certain,
        role: ProblemRole::Server,
        forward: None,
        netns: sum.netns,
        netns_name: name,
        local_addr: Some(sum.local.ip()),
        local_port: Some(port),
        peer_port: None,
        pid: None,
        comm: None,
        workload: Default::default(),
        handshakes: count,
        open: 0,
        peers,
        peers_more,
        evidence: evidence(sum, count, context),
        remedy: Some(format!(
            "see who listens, and on which address: {which}; start the service, or let it listen on {}; where none \
             is due, the peers call the wrong host or port, or a rule of NAT (REDIRECT, DNAT) sends them here",
            sum.local.ip()
        )),
        effects: Vec::new(),
        life: Default::default(),
    }
}

fn evidence(sum: &NoSocketSum, count: u64, context: &Context) -> Vec<Evidence> {
    let syns = match count {
        1 => "1 SYN".to_owned(),
        n => format!("{n} SYNs"),
    };
    let mut facts = vec![pro(format!(
        "{syns} for {} found no listening socket (NO_SOCKET): the kernel answers such a SYN with a RST",
        sum.local
    ))];
    facts.extend(sum.called.map(|(port, of_them)| {
        pro(format!(
            "{} of them called port {port}: a rule of NAT (DNAT, REDIRECT) of this namespace sends them to {}",
            of_them.min(count),
            sum.local
        ))
    }));
    let rsts = context.moved(sum.netns, |c| c.out_rsts);
    facts.extend(rsts.filter(|n| *n >= count).map(|n| {
        pro(format!(
            "OutRsts of its namespace rose by {n} {}",
            context.during()
        ))
    }));
    let mut listeners = context
        .listeners_of_port(sum.netns, sum.local.port())
        .peekable();
    let no_listener = listeners.peek().is_none();
    facts.extend(listeners.take(DESCRIBED).map(|l| about(l, sum)));
    if no_listener {
        facts.push(pro(format!(
            "no listener of the port was seen in its namespace {}",
            context.during()
        )));
    }
    facts
}

/// What a listener that has the port has to do with it.
fn about(l: &ListenerHistory, sum: &NoSocketSum) -> Evidence {
    let (at, called) = (l.last.local_addr, sum.local.ip());
    if l.closed_ns.is_some() {
        return pro(l.how_closed());
    }
    let name = l.name();
    if at == called || (at.is_unspecified() && at.is_ipv4() == called.is_ipv4()) {
        if l.opened_by_ns > Some(sum.last_ns) {
            return contra(format!(
                "listener {name} has that address: it was opened in this run, and the last of these SYNs came before \
                 the first check that showed it"
            ));
        }
        return contra(format!(
            "listener {name} has that address: it is bound to another device (SO_BINDTODEVICE, a VRF), or was \
             opened after these SYNs"
        ));
    }
    if at.is_unspecified() && at.is_ipv6() {
        return pro(format!(
            "listener {name} does not serve IPv4: IPV6_V6ONLY is set (net.ipv6.bindv6only), or it was opened after \
             these SYNs"
        ));
    }
    pro(format!("listener {name} is bound to another address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        filter::Selection,
        model::{ListenCounters, Outcome},
        verdict::{context::SynWithoutSocket, fixtures::*},
    };

    /// A SYN of a peer for port 8080 that found no socket.
    fn syn(peer: &str, seq: u32) -> SynWithoutSocket {
        SynWithoutSocket {
            netns: NETNS,
            local: "10.0.0.1:8080".parse().unwrap(),
            peer: peer.parse().unwrap(),
            syn_seq: seq,
            called_port: None,
            at_ns: T0,
        }
    }

    fn of(context: &Context) -> Vec<Problem> {
        problems(&|_| false, context)
            .into_iter()
            .map(|f| f.problem)
            .collect()
    }

    #[test]
    fn a_scan_is_no_problem_and_a_client_that_comes_back_is() {
        let mut context = Context::default();
        for n in 0..2 {
            context.note_syn_without_socket(syn("10.0.0.9:4000", n), true);
            context.note_syn_without_socket(syn("10.0.0.8:4000", n), true);
        }
        assert!(of(&context).is_empty());
        context.note_syn_without_socket(syn("10.0.0.9:4001", 2), true);
        let found = of(&context);
        assert_eq!(found.len(), 1);
        let p = &found[0];
        assert_eq!(
            (p.verdict, p.role),
            (Some(VerdictKind::Refused), ProblemRole::Server)
        );
        assert_eq!((p.handshakes, p.local_port), (5, Some(8080)));
        assert!(
            p.evidence[0]
                .fact
                .starts_with("5 SYNs for 10.0.0.1:8080 found no listening socket")
        );
        assert!(
            p.evidence[1]
                .fact
                .starts_with("no listener of the port was seen")
        );
    }

    #[test]
    fn a_port_that_is_asked_for_is_one_at_once_and_others_syns_are_not() {
        let mut context = Context::default();
        context.selection = Selection {
            ports: "8080".parse().unwrap(),
            ..Selection::default()
        };
        context.note_syn_without_socket(syn("10.0.0.9:4000", 1), false);
        assert!(of(&context).is_empty());
        context.note_syn_without_socket(syn("10.0.0.9:4000", 1), true);
        assert_eq!(of(&context).len(), 1);
    }

    #[test]
    fn a_port_to_which_nat_sends_is_missed_at_once_and_has_both() {
        let mut context = Context::default();
        for (seq, called_port) in [(1, Some(80)), (2, None)] {
            let one = SynWithoutSocket {
                called_port,
                ..syn("10.0.0.9:4000", seq)
            };
            context.note_syn_without_socket(one, true);
        }
        let found = of(&context);
        assert_eq!((found.len(), found[0].handshakes), (1, 2));
        assert_eq!(
            found[0].evidence[1].fact,
            "1 of them called port 80: a rule of NAT (DNAT, REDIRECT) of this namespace sends them to 10.0.0.1:8080"
        );
    }

    #[test]
    fn a_listener_that_has_the_port_is_told() {
        let said = |at: &str, closes: bool| {
            let counters = |rsts| ListenCounters {
                netns: NETNS,
                out_rsts: Some(rsts),
                ..ListenCounters::default()
            };
            let mut context = Context::default();
            let mut there = listener(0, 0);
            there.local_addr = at.parse().unwrap();
            there.local_port = 8080;
            context.sample(std::slice::from_ref(&there), &[counters(3)]);
            context.note_syn_without_socket(syn("10.0.0.9:4000", 1), true);
            let left = if closes { vec![] } else { vec![there] };
            context.sample_at((T0, T0 + 1), &left, &[counters(4)]);
            let mut found = of(&context);
            assert_eq!(found.len(), 1);
            let mut facts = found.remove(0).evidence.into_iter();
            let rsts = facts.nth(1).unwrap();
            assert!(
                rsts.fact.starts_with("OutRsts of its namespace rose by 1"),
                "{rsts:?}"
            );
            let last = facts.next_back().unwrap();
            (last.fact, last.supports)
        };
        let (fact, supports) = said("127.0.0.1", false);
        assert!(
            supports && fact.ends_with("is bound to another address"),
            "{fact}"
        );
        let (fact, supports) = said("::", false);
        assert!(supports && fact.contains("IPV6_V6ONLY"), "{fact}");
        let (fact, supports) = said("0.0.0.0", false);
        assert!(!supports && fact.contains("SO_BINDTODEVICE"), "{fact}");
        let (fact, supports) = said("0.0.0.0", true);
        assert!(
            supports && fact.contains("was closed in this run"),
            "{fact}"
        );
    }

    /// Of a client of this host whose SYN was that one, with another address before NAT.
    fn refused_client(seq: u32) -> Handshake {
        let mut h = active(Outcome::Refused);
        h.facts.reset_seen = true;
        h.facts.syn_seq = Some(seq);
        h
    }

    #[test]
    fn a_client_of_this_host_is_told_where_and_counted_once() {
        let mut context = Context::default();
        context.sees_drops = true;
        context.selection.ports = "8080".parse().unwrap();
        context.note_syn_without_socket(syn("10.0.0.9:4000", 77), true);
        let h = judged(&refused_client(77), context);
        assert_eq!(h.verdict, Some(VerdictKind::Refused));
        let told = |h: &Handshake| {
            let mut facts = h.evidence.iter();
            facts.any(|e| e.fact.contains("10.0.0.1:8080") && e.fact.contains("NO_SOCKET"))
        };
        assert!(told(&h), "{:#?}", h.evidence);
        assert!(h.remedy.as_ref().unwrap().contains("'sport = :8080'"));

        let mut context = Context::default();
        context.selection.ports = "8080".parse().unwrap();
        context.note_syn_without_socket(syn("10.0.0.9:4000", 77), true);
        assert!(is_clients_end(&h));
        assert!(problems(&|seq| seq == 77, &context).is_empty());
        // Another SYN is another client's.
        context.note_syn_without_socket(syn("10.0.0.7:4000", 78), true);
        assert_eq!(
            problems(&|seq| seq == 77, &context)[0].problem.handshakes,
            1
        );
        assert!(!told(&judged(&refused_client(79), context)));
    }
}
