//! What the run saw and no problem explains. Where this is empty, and only there, nothing wrong was found.

use super::explained::{ExplainedClients, explained};
use crate::{
    model::{Problem, Role},
    verdict::{
        Context, CounterRise,
        context::{
            DroppedPacket, IcmpReport, ListenerHistory, Packet, connections as counted, times,
        },
    },
};

/// Kinds of dropped packets that are listed each.
const DROPS: usize = 4;

/// One sentence each, with the numbers. `undecided`: handshakes that did not complete in their time and have
/// no verdict.
pub(in crate::verdict) fn unexplained(
    problems: &[&Problem],
    undecided: u64,
    context: &Context,
    clients: &ExplainedClients,
) -> Vec<String> {
    let mut found = Vec::new();
    // Beside a cause that was found, `diagnose` and the handshakes' own lines say that they have no verdict.
    if undecided > 0 && problems.iter().all(|p| p.verdict.is_none()) {
        found.push(match undecided {
            1 => "1 handshake did not complete, and too little was seen of it for a verdict"
                .to_owned(),
            n => format!(
                "{n} handshakes did not complete, and too little was seen of them for a verdict"
            ),
        });
    }
    if context.selection.wants(Role::Server) {
        for netns in context.counted_namespaces() {
            found.extend(counters(problems, netns, context));
        }
        found.extend(closed(problems, context));
    }
    if context.selection.wants(Role::Client) {
        found.extend(without_ack(problems, context));
    }
    found.extend(drops(problems, context, clients));
    found
}

/// Clients that are connected, and whose servers have not taken the final ACK.
fn without_ack(problems: &[&Problem], context: &Context) -> Vec<String> {
    let sentence = |((netns, port), (connections, repeated)): &((u32, u16), (u64, u64))| {
        let explains = |p: &&Problem| {
            let at_client = p.netns == *netns && p.peer_port == Some(*port);
            p.verdict.is_some() && (at_client || p.local_port == Some(*port))
        };
        if problems.iter().any(explains) {
            return None;
        }
        Some(format!(
            "{} of clients to port {port} ({}): the handshake was complete, and the server repeated its SYN-ACK \
             afterwards, {} in all. It has not taken the final ACK: its accept queue is full, it waits for data \
             (TCP_DEFER_ACCEPT), or ACKs are lost on the way to it",
            counted(*connections),
            named(*netns, context),
            times(*repeated)
        ))
    };
    let places = context.servers_without_ack();
    places.iter().filter_map(sentence).take(DROPS).collect()
}

/// A namespace in words.
fn named(netns: u32, context: &Context) -> String {
    match context.netns_name(netns) {
        Some(name) => place(&name),
        None => format!("netns {netns}"),
    }
}

/// Counters of a namespace that rose.
fn counters(problems: &[&Problem], netns: u32, context: &Context) -> Vec<String> {
    let listeners: Vec<&ListenerHistory> = context
        .listeners()
        .filter(|l| l.last.netns == netns)
        .collect();
    let selected = |l: &&&ListenerHistory| context.selects_listener(&l.last);
    let may = |l: &&&ListenerHistory| l.dropped() != Some(0);
    // With ports or peers selected, others' drops are nothing that was asked for.
    if !context.selection.is_whole() && !listeners.iter().filter(may).any(|l| selected(&l)) {
        return Vec::new();
    }
    let name = listeners
        .iter()
        .find_map(|l| l.last.netns_name.clone())
        .map_or_else(|| format!("namespace {netns}"), |name| place(&name));
    let who: Vec<String> = listeners
        .iter()
        .filter(|l| l.dropped() > Some(0))
        .take(DROPS)
        .map(|l| format!("{} by {}", l.name(), l.dropped().unwrap_or(0)))
        .collect();
    let who = match who.is_empty() {
        true => String::new(),
        false => format!("; sk_drops rose at {}", who.join(", ")),
    };
    let mut found = Vec::new();
    let refused = context.refused_without_trace(netns).filter(|n| *n > 0);
    // Seldom: it reads every error that is remembered.
    let icmp = refused.and_then(|_| context.half_opens_ended_by_icmp(netns));
    // A problem tells of errors whose sequence number was that of a SYN-ACK. Of others nobody knows here whether they are
    // genuine: they hide nothing.
    let icmp_told = explained(problems.iter().copied(), CounterRise::IcmpErrors, netns);
    let by_icmp = icmp.filter(|_| icmp_told).map_or(0, |(count, _)| count);
    let perhaps = icmp
        .filter(|_| !icmp_told)
        .map_or_else(String::new, perhaps_by_icmp);
    let mut rose = |n: Option<u64>, counted, say: &dyn Fn(u64) -> String| {
        if let Some(n) =
            n.filter(|n| *n > 0 && !explained(problems.iter().copied(), counted, netns))
        {
            found.push(format!("{}{who}", say(n)));
        }
    };
    rose(
        context.moved(netns, |c| c.listen_overflows),
        CounterRise::Overflows,
        &|n| {
            format!(
                "ListenOverflows of {name} rose by {n}: SYNs or final ACKs found a full accept queue, and no \
                 check found one full"
            )
        },
    );
    rose(
        refused
            .map(|n| n.saturating_sub(ended_by_neighbours(netns, context)))
            .map(|n| n.saturating_sub(by_icmp)),
        CounterRise::Refusals,
        &|n| {
            format!(
                "ListenDrops of {name} rose by {n} more than ListenOverflows and TCPReqQFullDrop: listeners \
                 refused SYNs or ended half-opens without an event (no route back to the peer, no memory, a \
                 security module, ICMP)"
            ) + &perhaps
        },
    );
    rose(
        context.moved(netns, |c| c.req_q_full_drop),
        CounterRise::FullSynQueue,
        &|n| format!("TCPReqQFullDrop of {name} rose by {n}: a full SYN queue refused SYNs"),
    );
    let returned = context.moved(netns, |c| c.syncookies_recv);
    let always = context.always_sends_cookies(netns);
    rose(
        // Where every SYN gets a cookie, those that came back are healthy.
        context
            .moved(netns, |c| c.syncookies_sent)
            .filter(|sent| !always || returned < Some(*sent)),
        CounterRise::Cookies,
        &|n| {
            let returned = returned.map_or_else(String::new, |returned| {
                format!(", SyncookiesRecv by {returned}, the final ACKs with a valid cookie")
            });
            match always {
                true => format!(
                    "SyncookiesSent of {name} rose by {n}{returned}: tcp_syncookies is 2, so each SYN gets a \
                     cookie, and no half-open is seen"
                ),
                false => format!(
                    "SyncookiesSent of {name} rose by {n}{returned}: a SYN queue was full, or tcp_syncookies is 2"
                ),
            }
        },
    );
    rose(
        context.moved(netns, |c| c.later.syncookies_failed),
        CounterRise::Cookies,
        &|n| {
            format!(
                "SyncookiesFailed of {name} rose by {n}: ACKs came to a listener that is sending SYN cookies, and had no \
                 valid one (too late, changed on the way, of a connection that has ended, or forged); it answers \
                 each with a RST"
            )
        },
    );
    // A half-open that was seen, and a connect() that timed out, have a problem there.
    let has_one = problems
        .iter()
        .any(|p| p.netns == netns && p.verdict.is_some());
    let silent = context.moved(netns, |c| c.later.silent_timeouts);
    found.extend(silent.filter(|n| *n > 0 && !has_one).map(|n| {
        format!(
            "TCPTimeouts of {name} rose by {n} more than RetransSegs: with net.ipv4.tcp_synack_retries 0 a half-open \
             that gets no ACK ends after one second, without an event and without a second SYN-ACK"
        )
    }));
    found
}

/// SYN-ACKs for which a next hop was not found. The ICMP error of this host about each ends its half-open, which
/// `ListenDrops` counts (`tcp_req_err()`). A problem has them: see `dropped_synacks()`.
fn ended_by_neighbours(netns: u32, context: &Context) -> u64 {
    let drops = context.dropped_packets();
    drops
        .filter(|d| d.netns == netns && d.packet == Packet::SynAck && d.is_of_neighbour())
        .map(|d| d.count)
        .sum()
}

/// ICMP errors of others about SYN-ACKs: their half-opens may have ended before they were seen.
fn perhaps_by_icmp((count, error): (u64, &IcmpReport)) -> String {
    format!(
        "; ICMP errors about SYN-ACKs came {}, such as {} from {}: each one that is genuine ends a half-open, and is \
         counted there",
        times(count),
        error.what,
        error.from
    )
}

/// Listeners that were closed while another listens at their address, after which RSTs were sent: so are
/// final ACKs of their half-opens answered. Half-opens of less than a second may never have been seen.
fn closed(problems: &[&Problem], context: &Context) -> Vec<String> {
    let closed = |l: &&ListenerHistory| {
        let replaced = || {
            let mut group = context.group_of(&l.last).into_iter();
            group.any(|h| h.closed_ns.is_none())
        };
        // Where its half-opens were counted at its close, a problem tells of them.
        let is_open_question = || match context.seen_closing(&l.last) {
            Some(seen) => seen.half_opens.is_none() && seen.others_listen,
            None => replaced(),
        };
        l.closed_ns.is_some() && context.selects_listener(&l.last) && is_open_question()
    };
    let sentence = |l: &ListenerHistory| {
        let netns = l.last.netns;
        if explained(problems.iter().copied(), CounterRise::ClosedListener, netns)
            || context.migrates(netns) == Some(true)
        {
            return None;
        }
        // A SYN that found no socket is answered with one too.
        let explained = context.syns_without_socket(netns);
        let rsts = context.rsts_since_closed(l)?.saturating_sub(explained);
        if rsts == 0 {
            return None;
        }
        Some(format!(
            "listener {} was closed in this run while another listened at its address, and the namespace sent \
             {rsts} RSTs since the check before: final ACKs of its half-opens are answered so, unless \
             net.ipv4.tcp_migrate_req is 1",
            l.name()
        ))
    };
    let all = context.listeners().filter(closed);
    all.filter_map(sentence).take(DROPS).collect()
}

fn place(name: &str) -> String {
    match name {
        "host" => "the host's namespace".to_owned(),
        name => format!("netns {}", crate::util::format::safe(name)),
    }
}

/// As many SYNs of one connect got no answer: what was discarded of each is more than a copy of one that got through.
const UNANSWERED: u64 = 3;

/// Whether it is a copy of a packet that got further, as far as can be seen.
fn is_a_copy(d: &DroppedPacket) -> bool {
    let is_unanswered = d.packet == Packet::Syn && d.count >= UNANSWERED;
    d.may_be_a_copy() && !is_unanswered
}

/// Packets of handshakes that this host dropped, at ports without a problem.
fn drops(problems: &[&Problem], context: &Context, clients: &ExplainedClients) -> Vec<String> {
    let explained = |d: &&DroppedPacket| {
        let ports = [Some(d.from.port()), Some(d.to.port())];
        problems.iter().any(|p| {
            let forwarded = p.forward.as_ref().map(|forward| forward.to_port);
            let port = p.local_port.or(p.peer_port).or(forwarded);
            p.verdict.is_some() && port.is_some() && ports.contains(&port)
        })
    };
    let mut kinds = std::collections::BTreeMap::<_, (u64, u64)>::new();
    for d in context.dropped_packets() {
        // NAT may have changed the ports: then its client's problem has it.
        if d.packet == Packet::Rst || is_a_copy(d) || explained(&d) || clients.has(d) {
            continue;
        }
        let kind = (d.packet, d.incoming, &*d.words, d.cause(), d.netns);
        let (packets, connections) = kinds.entry(kind).or_default();
        *packets += d.count;
        *connections += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (packets, _))| std::cmp::Reverse(*packets));
    let more: u64 = kinds.iter().skip(DROPS).map(|(_, (n, _))| n).sum();
    let mut found: Vec<String> = kinds
        .iter()
        .take(DROPS)
        .map(
            |((packet, incoming, words, cause, netns), (packets, connections))| {
                let way = match (*incoming, packets) {
                    (true, _) => "that came in",
                    (false, 1) => "on its way out",
                    (false, _) => "on their way out",
                };
                format!(
                    "this host dropped {} {way}, of {} ({}): {words} \
                 ({cause}); no handshake was seen to fail by it",
                    packet.counted(*packets),
                    counted(*connections),
                    named(*netns, context)
                )
            },
        )
        .collect();
    if more > 0 {
        found.push(format!(
            "this host dropped {more} more packets of handshakes"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{LaterCounters, ListenCounters, Listener, Outcome, VerdictKind},
        verdict::{
            context::{ClosedListener, SynWithoutSocket},
            fixtures::*,
        },
    };

    fn moved(change: impl Fn(&mut ListenCounters)) -> Context {
        let mut context = Context::default();
        let before = ListenCounters {
            netns: NETNS,
            listen_overflows: Some(5),
            listen_drops: Some(7),
            syncookies_sent: Some(1),
            syncookies_recv: Some(0),
            req_q_full_drop: Some(2),
            out_no_routes: Some(3),
            out_rsts: Some(0),
            migrate_req: Some(0),
            later: LaterCounters {
                syncookies_failed: Some(3),
                silent_timeouts: Some(4),
            },
        };
        let mut after = before;
        change(&mut after);
        for counters in [before, after, after] {
            context.sample(&[listener(0, 0)], &[counters]);
        }
        context
    }

    #[test]
    fn each_counter_that_rose_is_named_with_its_number() {
        assert!(unexplained(&[], 0, &moved(|_| ()), &ExplainedClients::default()).is_empty());
        for (change, words) in [
            (
                (|c| c.listen_overflows = Some(869)) as fn(&mut ListenCounters),
                "ListenOverflows of the host's namespace rose by 864",
            ),
            (
                |c| c.listen_drops = Some(9),
                "ListenDrops of the host's namespace rose by 2 more",
            ),
            (
                |c| c.req_q_full_drop = Some(6),
                "TCPReqQFullDrop of the host's namespace rose by 4",
            ),
            (
                |c| c.syncookies_sent = Some(12),
                "SyncookiesSent of the host's namespace rose by 11, SyncookiesRecv by 0, the final ACKs",
            ),
            (
                |c| c.later.syncookies_failed = Some(13),
                "SyncookiesFailed of the host's namespace rose by 10",
            ),
            (
                |c| c.later.silent_timeouts = Some(9),
                "TCPTimeouts of the host's namespace rose by 5 more than RetransSegs",
            ),
        ] {
            let found = unexplained(&[], 0, &moved(change), &ExplainedClients::default());
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(words), "{found:?}");
        }
    }

    #[test]
    fn a_cookie_for_each_syn_is_a_sign_only_where_it_did_not_come_back() {
        let said = |setting, returned| {
            let mut context = moved(|c| {
                c.syncookies_sent = Some(12);
                c.syncookies_recv = Some(returned);
            });
            context.has_syncookies(NETNS, setting);
            unexplained(&[], 0, &context, &ExplainedClients::default())
        };
        assert!(said(Some(2), 11).is_empty());
        let [lost] = &said(Some(2), 10)[..] else {
            panic!("one is missing");
        };
        assert!(
            lost.contains("rose by 11, SyncookiesRecv by 10")
                && lost.contains("tcp_syncookies is 2, so")
        );
        for setting in [Some(1), None] {
            assert!(said(setting, 11)[0].contains("a SYN queue was full"));
        }
    }

    /// Two sockets of an address, of which one was closed while the namespace sent `rsts` RSTs.
    fn closed(rsts: u64, without_socket: u64, seen: Option<ClosedListener>) -> Vec<String> {
        let mut context = Context::default();
        let socket = |inode| Listener {
            inode: Some(inode),
            ..listener(0, 0)
        };
        let counters = |rsts| ListenCounters {
            netns: NETNS,
            out_rsts: Some(rsts),
            migrate_req: Some(0),
            ..ListenCounters::default()
        };
        context.sample(&[socket(1), socket(2)], &[counters(0)]);
        context.sample(&[socket(2)], &[counters(rsts)]);
        for n in 0..without_socket {
            let syn = SynWithoutSocket {
                netns: NETNS,
                local: "10.0.0.1:8081".parse().unwrap(),
                peer: "10.0.0.9:40001".parse().unwrap(),
                syn_seq: n as u32,
                called_port: None,
                at_ns: T0,
            };
            context.note_syn_without_socket(syn, true);
        }
        if let Some(seen) = seen {
            context.note_closed_listener(seen);
        }
        unexplained(&[], 0, &context, &ExplainedClients::default())
    }

    #[test]
    fn rsts_after_a_close_are_listed_less_those_for_syns_without_a_socket() {
        assert!(closed(0, 0, None).is_empty());
        let found = closed(5, 3, None);
        assert!(
            found[0].contains("while another listened") && found[0].contains("sent 2 RSTs since"),
            "{found:?}"
        );
        assert!(closed(5, 5, None).is_empty());
    }

    #[test]
    fn what_a_close_showed_is_no_open_question() {
        let seen = |half_opens, others_listen| {
            Some(ClosedListener {
                listener: listener(0, 0),
                waiting: 0,
                half_opens,
                others_listen,
            })
        };
        assert!(closed(5, 0, seen(Some(0), true)).is_empty());
        // The other one was opened later: a restart.
        assert!(closed(5, 0, seen(None, false)).is_empty());
        assert_eq!(closed(5, 0, seen(None, true)).len(), 1);
    }

    #[test]
    fn a_server_that_repeats_its_syn_ack_is_named_where_no_problem_is() {
        let h = active(Outcome::Established);
        let ends = crate::verdict::context::Ends::of(&h.connection).unwrap();
        let said = |times: u64, problems: &[&Problem]| {
            let mut context = Context::default();
            for n in 0..times {
                context.note_repeated_synack(NETNS, ends, 8080, T0 + n * SEC);
            }
            unexplained(problems, 0, &context, &ExplainedClients::default())
        };
        assert!(said(1, &[]).is_empty(), "one lost ACK");
        let found = said(3, &[]);
        assert!(
            found[0].starts_with("1 connection of clients to port 8080")
                && found[0].contains("repeated its SYN-ACK afterwards, 3 times in all"),
            "{found:?}"
        );
        let mut context = Context::default();
        context.note_repeated_synack(NETNS, ends, 8080, T0);
        assert_eq!(context.repeated_synacks(&h.connection), 1);
    }

    #[test]
    fn what_may_be_a_copy_is_named_where_three_of_one_connect_are() {
        let said = |count, place: Option<&'static str>, reason: &'static str| {
            let mut context = Context::default();
            let mut drop = discard(&active(crate::model::Outcome::TimedOut), Packet::Syn, count);
            (drop.incoming, drop.place) = (true, place.map(Into::into));
            drop.reason = reason.into();
            context.note_drop(drop);
            unexplained(&[], 0, &context, &ExplainedClients::default())
        };
        for (place, reason) in [
            (Some("br_handle_frame_finish"), "NOT_SPECIFIED"),
            (None, "OTHERHOST"),
        ] {
            assert!(said(2, place, reason).is_empty());
            let told = said(3, place, reason);
            assert!(told[0].starts_with("this host dropped 3 SYNs that came in"));
        }
    }

    /// `tcp_v4_syn_recv_sock()` counts a final ACK with a valid cookie at a full queue.
    #[test]
    fn an_overflow_may_be_a_final_ack_of_a_cookie() {
        let words = moved(|_| ()).what_overflowed(NETNS);
        assert_eq!(words, "SYNs are dropped silently");
        let words = moved(|c| c.syncookies_recv = Some(3)).what_overflowed(NETNS);
        assert!(words.contains("final ACKs of SYN cookies"), "{words}");
    }

    /// The client's ARP is silent: each SYN-ACK that waits for it is dropped, and the ICMP error of this host about it
    /// ends a half-open.
    #[test]
    fn half_opens_that_a_silent_neighbour_ended_are_explained() {
        let said = |drops: u64| {
            let mut context = moved(|c| c.listen_drops = Some(9));
            let h = half_open(crate::model::Outcome::Dropped);
            let mut drop = discard(&h, Packet::SynAck, drops);
            drop.reason = "NEIGH_FAILED".into();
            context.note_drop(drop);
            let found = unexplained(&[], 0, &context, &ExplainedClients::default());
            found
                .into_iter()
                .find(|fact| fact.starts_with("ListenDrops"))
        };
        assert_eq!(said(2), None);
        let rest = said(1).unwrap();
        assert!(
            rest.starts_with("ListenDrops of the host's namespace rose by 1 more"),
            "{rest}"
        );
    }

    /// Without a half-open that was seen, the errors are told beside the counter; with a problem they are in it.
    #[test]
    fn half_opens_that_icmp_errors_ended_are_told_once() {
        let said = |problems: &[&Problem]| {
            let mut context = moved(|c| c.listen_drops = Some(9));
            let error = IcmpReport {
                from: "10.0.0.254".parse().unwrap(),
                what: "host unreachable (type 3 code 1)".into(),
                count: 2,
                netns: Some(NETNS),
                seq: Some(7),
                last_ns: Some(T0),
                local_port: 8080,
            };
            let ends = crate::verdict::context::Ends::of(&half_open(Outcome::Dropped).connection);
            context.note_icmp(ends.unwrap(), error);
            unexplained(problems, 0, &context, &ExplainedClients::default())
        };
        let [only] = &said(&[])[..] else {
            panic!("{:?}", said(&[]));
        };
        // Whoever forges them hides no refused SYN.
        assert!(only.starts_with("ListenDrops of the host's namespace rose by 2 more"));
        let errors = "; ICMP errors about SYN-ACKs came twice, such as host unreachable (type 3 code 1) from 10.0.0.254";
        assert!(only.contains(errors), "{only}");
        let mut groups = crate::verdict::ProblemGroups::default();
        let mut h = half_open(Outcome::Expired);
        h.verdict = Some(VerdictKind::SynackLost);
        groups.add(&h);
        let problems = groups.problems(std::iter::empty(), &Context::default());
        assert!(said(&[&problems[0]]).is_empty());
    }

    #[test]
    fn a_dropped_packet_and_an_undecided_handshake_are_named() {
        let mut context = Context::default();
        let h = half_open(crate::model::Outcome::Open);
        context.note_drop(discard(&h, Packet::Ack, 3));
        let found = unexplained(&[], 1, &context, &ExplainedClients::default());
        assert!(
            found[0].starts_with("1 handshake did not complete"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("this host dropped 3 ACKs"),
            "{found:?}"
        );
        // A dropped RST holds nothing up.
        let mut context = Context::default();
        context.note_drop(discard(&h, Packet::Rst, 3));
        assert!(unexplained(&[], 0, &context, &ExplainedClients::default()).is_empty());
    }
}
