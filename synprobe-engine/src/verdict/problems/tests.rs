//! Problems at the end of a run, and as they stand meanwhile.

use super::*;
use crate::{
    filter::Selection,
    model::{Body, Line, OpenReason, Outcome, ProblemRole, Role},
    verdict::{Judge, Mode, context::Packet, fixtures::*, parts::found::pro},
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
    let named: Vec<_> = problems
        .iter()
        .map(|p| (p.rank, p.verdict_name(), p.confidence, p.handshakes))
        .collect();
    assert_eq!(
        named,
        [
            (1, "synack-lost", Confidence::Likely, 40),
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
        "40 half-opens: 40 open; the longest 3.00 s; retransmitted twice; 40 whose peer repeated its SYN"
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
        context.note_drop(d);
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

/// A router has no handshake of its own: the SYN-ACKs that it drops are its problem.
#[test]
fn syn_acks_that_are_forwarded_and_dropped_are_a_routers_problem() {
    let h = half_open(Outcome::Open);
    let mut context = Context::default();
    let mut drop = discard(&h, Packet::SynAck, 3);
    drop.incoming = true;
    let (server, client) = (drop.from, drop.to);
    context.note_drop(drop);
    assert!(
        ProblemGroups::default()
            .problems([].into_iter(), &context)
            .is_empty()
    );
    context.has_addresses(NETNS, vec!["192.0.2.1".parse().unwrap()]);
    let found = ProblemGroups::default().problems([].into_iter(), &context);
    assert_eq!(found.len(), 1, "{found:#?}");
    let p = &found[0];
    assert_eq!(
        (p.verdict, p.role),
        (Some(VerdictKind::DroppedHere), ProblemRole::Router)
    );
    let forward = p.forward.as_ref().unwrap();
    assert_eq!(
        (forward.to_addr, forward.to_port),
        (server.ip(), server.port())
    );
    assert!(
        p.evidence[0]
            .fact
            .starts_with("this host dropped 3 SYN-ACKs of 1 connection ")
    );
    assert_eq!(p.peers[0].peer_addr, client.ip());
    // The answer to a forged SYN has nowhere to go: that is nothing of the router's.
    let mut forged = Context::default();
    let mut drop = discard(&h, Packet::SynAck, 3);
    (drop.incoming, drop.reason) = (true, "IP_INADDRERRORS".into());
    forged.note_drop(drop);
    forged.has_addresses(NETNS, vec!["192.0.2.1".parse().unwrap()]);
    let groups = ProblemGroups::default();
    assert!(groups.problems([].into_iter(), &forged).is_empty());
}

/// The final ACK comes again with each SYN-ACK. One alone may belong to a connection that has ended.
#[test]
fn acks_that_are_forwarded_and_dropped_again_are_a_routers_problem() {
    let said = |count| {
        let mut context = Context::default();
        let mut drop = discard(&half_open(Outcome::Open), Packet::Ack, count);
        drop.incoming = true;
        context.note_drop(drop);
        context.has_addresses(NETNS, vec!["192.0.2.1".parse().unwrap()]);
        ProblemGroups::default().problems([].into_iter(), &context)
    };
    assert!(said(1).is_empty());
    let [p] = &said(3)[..] else {
        panic!("one problem");
    };
    assert_eq!(
        (p.role, p.confidence),
        (ProblemRole::Router, Confidence::Likely)
    );
    let fact = &p.evidence[0].fact;
    assert!(
        fact.starts_with("this host dropped 3 ACKs of 1 connection "),
        "{fact}"
    );
    assert!(p.evidence.iter().any(|e| !e.supports), "{p:#?}");
}

/// A hop limit that runs out is answered with ICMP too.
#[test]
fn an_answer_of_this_host_is_a_rules_only_where_a_rule_dropped() {
    let said = |reason: &'static str| {
        let mut h = active(Outcome::Unreachable);
        h.error = Some("EHOSTUNREACH".into());
        h.facts.syn_seq = Some(5);
        let mut drop = discard(&h, Packet::Syn, 1);
        drop.netns = NETNS + 1;
        (drop.incoming, drop.syn_seq, drop.reason) = (true, Some(5), reason.into());
        let mut context = Context::default();
        context.note_drop(drop);
        let p = found(&ended(vec![h], context)).remove(0);
        assert_eq!(p.verdict, Some(VerdictKind::DroppedHere));
        let facts: Vec<String> = p.evidence.into_iter().map(|e| e.fact).collect();
        facts.join("; ")
    };
    assert!(said("NETFILTER_DROP").contains("this host's own: a rule rejects"));
    let facts = said("IP_INHDR");
    assert!(facts.contains("the answer is this host's own") && !facts.contains("a rule rejects"));
}

/// A bridge discards what would go back by the port by which it came, and copies that a switch sends back too.
#[test]
fn what_a_bridge_discards_is_likely_its_clients_cause_and_no_problem_of_its_own() {
    let mut h = active(Outcome::Abandoned);
    (h.retransmits, h.facts.syn_seq) = (2, Some(5));
    let mut drop = discard(&h, Packet::Syn, 3);
    drop.netns = NETNS + 1;
    (drop.incoming, drop.syn_seq) = (true, Some(5));
    drop.reason = "NOT_SPECIFIED".into();
    drop.place = Some("br_handle_frame_finish".into());
    let mut context = Context::default();
    context.note_drop(drop.clone());
    context.has_addresses(NETNS + 1, vec!["192.0.2.1".parse().unwrap()]);
    assert!(
        ProblemGroups::default()
            .problems([].into_iter(), &context)
            .is_empty()
    );
    // Three SYNs of one connect got no answer: that is named, and not what did it.
    let named = unexplained::unexplained(&[], 0, &context, &ExplainedClients::default());
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(
        verdict_of(&h, context),
        (Some(VerdictKind::DroppedHere), Confidence::Likely)
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

/// A flood of 300 and 30 refused connects, to a judge that holds back `most` handshakes.
fn much_trouble(most: usize) -> (Judge, Vec<Line>) {
    let mut context = looked(&listener(0, 100), 0, 30);
    context.bounds.held = most;
    let mut judge = Judge::new(Mode::AtTheEnd, context);
    let mut lines = Vec::new();
    for n in 0..300 {
        let mut h = half_open_of(&format!("198.18.{}.{}", n / 250, n % 250), Outcome::Expired);
        h.dwell_us = Some(1_000_000 + n);
        lines.push(line(h));
        if n % 10 == 0 {
            let mut h = active(Outcome::Refused);
            h.facts.reset_seen = true;
            lines.push(line(h));
        }
    }
    let printed = judge.pass(lines);
    (judge, printed)
}

#[test]
fn issue14_2_more_handshakes_than_are_held_are_all_in_the_problems() {
    for most in [0, 10, 200, 1000] {
        let (mut judge, mut printed) = much_trouble(most);
        let now = judge.problems_now();
        printed.extend(judge.finish(Vec::new()));
        let mut problems = found(&printed);
        for p in &mut problems {
            let life = std::mem::take(&mut p.life);
            assert_eq!((life.id, life.until_ns), (format!("0-{}", p.rank), None));
        }
        assert_eq!(now, problems, "the same, without ending the run");
        let sum: u64 = problems.iter().map(|p| p.handshakes).sum();
        assert_eq!(sum, 330, "{most} held: {problems:#?}");
        let refused = problems
            .iter()
            .find(|p| p.verdict == Some(VerdictKind::Refused))
            .unwrap();
        assert_eq!((refused.handshakes, refused.peers[0].handshakes), (30, 30));
        let handshakes = printed
            .iter()
            .filter(|l| matches!(l.body, Body::Handshake(_)));
        assert_eq!(handshakes.count(), 330);
        // Those that came beyond the bound were judged by what was known then.
        let flood = problems
            .iter()
            .filter(|p| p.verdict == Some(VerdictKind::SynFlood))
            .map(|p| p.handshakes)
            .sum::<u64>();
        assert!(flood >= most.min(300) as u64 * 9 / 10, "{problems:#?}");
    }
}

#[test]
fn issue14_2_sums_over_whole_handshakes_say_how_many_they_are_of() {
    let mut context = Context::default();
    let mut lines = Vec::new();
    for port in 0..400 {
        let mut h = half_open(Outcome::Expired);
        h.connection.peer_port = Some(1000 + port);
        context.note_drop(discard(&h, Packet::SynAck, 3));
        lines.push(line(h));
    }
    context.bounds.held = 100;
    let mut judge = Judge::new(Mode::AtTheEnd, context);
    let mut printed = judge.pass(lines);
    printed.extend(judge.finish(Vec::new()));
    let problems = found(&printed);
    let [p] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!(
        (p.verdict, p.handshakes),
        (Some(VerdictKind::DroppedHere), 400)
    );
    assert!(
        p.evidence[1]
            .fact
            .ends_with("(counted in 256 of the handshakes)"),
        "{:#?}",
        p.evidence
    );
}

#[test]
fn problems_as_they_stand_are_the_same_where_handshakes_are_judged_at_once() {
    let mut judge = Judge::new(Mode::AtOnce, looked(&listener(0, 0), 0, 0));
    for n in 0..20 {
        let mut h = active(Outcome::Refused);
        h.connection.id = n;
        h.facts.reset_seen = true;
        judge.pass(vec![line(h), line(fine())]);
    }
    let problems = judge.problems_now();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].verdict, problems[0].handshakes),
        (Some(VerdictKind::Refused), 20)
    );
    assert_eq!(judge.problems_now(), problems);
}

#[test]
fn beyond_the_bound_problems_are_summed_and_none_is_left_out() {
    let mut groups = ProblemGroups::default();
    let most = GROUPS as u32 + 500;
    for n in 0..most {
        let mut h = active(Outcome::Refused);
        (h.verdict, h.confidence) = (Some(VerdictKind::Refused), Confidence::Certain);
        (h.connection.pid, h.connection.comm) = (Some(n), Some(format!("c{n}").into()));
        groups.add(&h);
    }
    let problems = groups.problems(std::iter::empty(), &Context::default());
    // The smaller half made room, once.
    assert_eq!(problems.len(), GROUPS / 2 + 500 + 1);
    assert_eq!(
        problems.iter().map(|p| p.handshakes).sum::<u64>(),
        u64::from(most)
    );
    let summed = GROUPS as u64 / 2;
    assert_eq!((problems[0].handshakes, problems[0].pid), (summed, None));
}

/// A user starts a process of another name for each connect that fails. Somebody else's problem is not hidden by them,
/// neither one of before nor one that comes later.
#[test]
fn problems_by_the_thousand_hide_no_other() {
    let mut groups = ProblemGroups::default();
    let mut fail = |name: &str, pid| {
        let mut h = active(Outcome::Refused);
        (h.verdict, h.confidence) = (Some(VerdictKind::Refused), Confidence::Certain);
        (h.connection.pid, h.connection.comm) = (Some(pid), Some(name.into()));
        groups.add(&h);
    };
    (0..3).for_each(|_| fail("before", 1));
    for n in 0..5 * GROUPS as u32 {
        fail(&format!("c{n}"), 100 + n);
    }
    (0..3).for_each(|_| fail("later", 2));
    for n in 0..5 * GROUPS as u32 {
        fail(&format!("d{n}"), 100_000 + n);
    }
    let problems = groups.problems(std::iter::empty(), &Context::default());
    for name in ["before", "later"] {
        let of = problems.iter().find(|p| p.comm.as_deref() == Some(name));
        assert_eq!(of.map(|p| p.handshakes), Some(3), "{name}");
    }
    let all = problems.iter().map(|p| p.handshakes).sum::<u64>();
    assert_eq!(all, 10 * GROUPS as u64 + 6);
}

#[test]
fn evicted_handshakes_are_not_still_open() {
    let mut evicted = half_open(Outcome::Open);
    evicted.open_reason = Some(OpenReason::Evicted);
    let problems = found(&ended(vec![evicted], Context::default()));
    let [p] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!((p.verdict, p.handshakes, p.open), (None, 1, 0));
    assert!(p.evidence[0].fact.starts_with("1 half-open: 1 evicted"));
}

/// A full listener on 8080, and a SYN to it that this host dropped.
fn beside_the_selection(selection: Selection) -> Context {
    let mut context = looked(&listener(129, 0), 40, 0);
    let h = half_open(Outcome::Open);
    let mut d = discard(&h, Packet::Syn, 4);
    std::mem::swap(&mut d.from, &mut d.to);
    d.incoming = true;
    context.note_drop(d);
    context.selection = selection;
    context
}

fn selecting(change: impl FnOnce(&mut Selection)) -> Selection {
    let mut selection = Selection::default();
    change(&mut selection);
    selection
}

#[test]
fn issue14_5_selections_hold_for_every_line() {
    let elsewhere = "10.9.9.0/24".parse().unwrap();
    for (name, selection) in [
        ("--port", selecting(|s| s.ports = "18198".parse().unwrap())),
        (
            "--local-port",
            selecting(|s| s.local_ports = "18198".parse().unwrap()),
        ),
        (
            "--peer-port",
            selecting(|s| s.peer_ports = "18198".parse().unwrap()),
        ),
        ("--role client", selecting(|s| s.role = Some(Role::Client))),
        ("--peer", selecting(|s| s.peers = vec![elsewhere])),
        ("--netns", selecting(|s| s.netns = Some([1, 1]))),
    ] {
        let lines = ended(Vec::new(), beside_the_selection(selection));
        assert!(lines.is_empty(), "{name}: {lines:#?}");
    }
    for (name, selection) in [
        ("nothing", Selection::default()),
        ("--port", selecting(|s| s.ports = "8080".parse().unwrap())),
        ("--role server", selecting(|s| s.role = Some(Role::Server))),
        ("--netns", selecting(|s| s.netns = Some([NETNS, NETNS]))),
        // A listener has no peer; a SYN of a selected one was on its way to it.
        (
            "--peer",
            selecting(|s| s.peers = vec!["10.0.0.9/32".parse().unwrap()]),
        ),
        (
            "--port of a peer",
            selecting(|s| s.ports = "55555".parse().unwrap()),
        ),
    ] {
        let lines = ended(Vec::new(), beside_the_selection(selection));
        let named: Vec<_> = lines
            .iter()
            .map(|l| matches!(l.body, Body::Listener(_)))
            .collect();
        assert_eq!(named, [false, false, true], "{name}: {lines:#?}");
    }
}

#[test]
fn issue14_5_a_listener_is_a_selected_peer_s_problem_where_one_came_to_it() {
    let mut context = looked(&listener(129, 0), 40, 0);
    context.selection.peers = vec!["10.0.0.9/32".parse().unwrap()];
    // The tracker's lines are those of selected peers.
    let mut h = half_open(Outcome::Reset);
    h.facts.reset_seen = true;
    let problems = found(&ended(vec![h], context));
    let verdicts: Vec<_> = problems.iter().map(Problem::verdict_name).collect();
    assert_eq!(verdicts, ["accept-queue-full", "peer-reset"]);
}

#[test]
fn what_all_groups_keep_is_bounded() {
    let mut groups = ProblemGroups::default();
    for n in 0..400_000_u32 {
        let peer = std::net::Ipv4Addr::from(n);
        let mut h = half_open_of("10.0.0.9", Outcome::Expired);
        h.connection.peer_addr = peer.into();
        h.connection.local_port = Some((n % 16) as u16);
        h.evidence = vec![pro(format!("fact {n}"))];
        groups.add(&h);
    }
    let kept = groups.kept;
    let few = 16 * FEW.peers;
    assert!(kept.peers <= ALL.peers + 2 * few, "{kept:?}");
    assert!(kept.facts <= ALL.facts, "{kept:?}");
    let problems = groups.problems(std::iter::empty(), &Context::default());
    assert_eq!(problems.iter().map(|p| p.handshakes).sum::<u64>(), 400_000);
    let left_out = |p: &Problem| {
        p.evidence
            .iter()
            .any(|e| e.fact.contains("not attributed to a peer"))
    };
    assert!(problems.iter().any(left_out), "{:#?}", problems[0]);
}

/// A hash order would make a replay differ from the run.
#[test]
fn equally_full_listeners_come_in_the_order_of_their_addresses() {
    let ports = 1000..1032;
    let mut context = Context::default();
    for port in ports.clone().rev() {
        let mut full = listener(129, 0);
        full.local_port = port;
        context.sample(&[full], &[]);
    }
    let problems = found(&ended(Vec::new(), context));
    let listed: Vec<u16> = problems.iter().filter_map(|p| p.local_port).collect();
    assert_eq!(listed, ports.collect::<Vec<_>>());
}
