//! The handshake completed, and then data is not acknowledged.

use std::collections::BTreeMap;

use super::{
    Context, Explanation, Finding, Verdict,
    context::{DroppedPacket, Ends, Packet, StuckConnection, times as context_times},
    enter_of,
    parts::{
        callers::{Caller, Callers},
        found::{Found, contra, pro},
        peer_counts::PeerCounts,
    },
};
use crate::{
    model::{Confidence, Evidence, Handshake, Problem, Role, VerdictKind},
    util::format,
};

/// Stuck connections of a problem whose dropped packets are looked for.
const LOOKED_AT: usize = 64;

/// `data-unacknowledged`
///
/// It concerns connections and not handshakes, so no handshake gets it: [`problems`] makes its problems.
pub(super) struct DataUnacknowledged;

impl Verdict for DataUnacknowledged {
    fn kind(&self) -> VerdictKind {
        VerdictKind::DataUnacknowledged
    }

    fn check(&self, _: &Handshake, _: &Context) -> Option<Finding> {
        None
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the handshake completed, and then a data segment is never acknowledged",
            meaning: "SYN and SYN-ACK are small and passed; at the server the ACK did too. A data segment was then retransmitted \
                      again and again. Mostly the path drops large packets and the ICMP messages that \
                      would say so (an MTU black hole: tunnel, overlay, VPN), or it works in one \
                      direction only, or a stateful firewall sees one direction only or has forgotten the \
                      connection. A server whose accept queue is full discards the final ACK and the data: its \
                      client is connected all the same. The application sees a connection that hangs.",
            detection: "The same segment (socket and sequence number) retransmitted at least three times, \
                      the retransmission timer among them. Likely at most: whether the data or its \
                      acknowledgment is lost is not seen from this end, nor is the size at which \
                      packets are lost.",
            remedy: "Measure the path's MTU, then lower the device's, or let TCP probe for it.\n    \
                     tracepath -n <peer>\n    sysctl -w net.ipv4.tcp_mtu_probing=1",
            reproduce: "synprobe lab data-unacknowledged",
        }
    }
}

/// One problem for each caller of a port, and for each port that was called.
pub(super) fn problems(context: &Context) -> Vec<Found> {
    type Place = (u32, Role, Option<u16>, Caller);
    let mut callers = Callers::default();
    let mut places: BTreeMap<Place, Vec<&StuckConnection>> = BTreeMap::new();
    for stuck in context.stuck_connections() {
        let c = &stuck.connection;
        let port = match c.role {
            Role::Server => c.local_port,
            Role::Client => c.peer_port,
        };
        callers.note(c);
        places
            .entry((c.netns, c.role, port, callers.of(c)))
            .or_default()
            .push(stuck);
    }
    let found = |stuck: &Vec<&StuckConnection>| {
        let ends = stuck.iter().filter_map(|s| Ends::of(&s.connection));
        let drops = dropped(stuck, context);
        let cause = context.cause_of_drops(drops.iter().map(|(_, d)| *d));
        Found {
            cause: cause.filter(|_| drops.len() == stuck.len()),
            ..Found::of(problem(stuck, context), ends)
        }
    };
    places.values().map(found).collect()
}

/// Packets of some of them that this host dropped: what the peer has not had, or this end. One for each connection.
fn dropped<'s>(
    stuck: &[&'s StuckConnection],
    context: &'s Context,
) -> Vec<(&'s StuckConnection, &'s DroppedPacket)> {
    let of_each = stuck.iter().take(LOOKED_AT).filter_map(|s| {
        let drops = context.drops_of(&s.connection, s.since_ns());
        let of_acks = drops.into_iter().filter(|d| d.packet == Packet::Ack);
        Some((*s, of_acks.max_by_key(|d| d.count)?))
    });
    of_each.collect()
}

/// The listener on this host that one of them called, if its accept queue was seen to be full.
fn full_queue(stuck: &[&StuckConnection], context: &Context) -> Option<Evidence> {
    let mut called = (stuck.iter().take(LOOKED_AT))
        .filter(|s| s.connection.role == Role::Client)
        .filter_map(|s| context.called_listener(&s.connection));
    let full = called.find(|l| l.was_full())?;
    Some(pro(format!(
        "listener {} of this host was called, and its accept queue was seen to be full: it discards the final ACK and \
         what follows",
        full.name()
    )))
}

/// What fits, where it is not known what was lost.
fn what_fits(is_client: bool) -> [Evidence; 2] {
    [
        pro(match is_client {
            // The ACK is this end's own: only its sending is known.
            true => {
                "SYN and SYN-ACK are small and passed: where the segment is large, a path that drops large packets \
                 (MTU) fits. A server whose accept queue is full and which discards the final ACK and the data \
                 fits too; and a firewall that drops the ACK or the data because it sees one direction only (an \
                 asymmetric route), because of its content, or because it has forgotten the connection"
            }
            false => {
                "SYN, SYN-ACK and ACK are small and passed: where the segment is large, a path that drops large packets \
                 (MTU) fits. A firewall that has forgotten the connection, or drops by content, fits too"
            }
        }
        .to_owned()),
        contra(
            "whether the data or its acknowledgment was lost cannot be seen from this end, nor the size of \
             the lost packets"
                .to_owned(),
        ),
    ]
}

/// That the servers repeated their SYN-ACK to clients: then the final ACK is what they lack. And whether to all of them.
fn lacks_ack(stuck: &[&StuckConnection], context: &Context) -> Option<(Evidence, bool)> {
    let looked_at = stuck.iter().take(LOOKED_AT);
    let times = looked_at.map(|s| context.repeated_synacks(&s.connection));
    let repeated: Vec<u64> = times.filter(|n| *n > 0).collect();
    let most = repeated.iter().max()?;
    let fact = format!(
        "after {} of them was connected, the server repeated its SYN-ACK, to one {}: it has not taken the final ACK. \
         Its accept queue is full, or ACKs are lost on the way to it",
        repeated.len(),
        context_times(*most)
    );
    Some((pro(fact), repeated.len() == stuck.len().min(LOOKED_AT)))
}

fn problem(stuck: &[&StuckConnection], context: &Context) -> Problem {
    let c = &stuck[0].connection;
    let mut counts = PeerCounts::default();
    for s in stuck {
        counts.add(s.connection.peer_addr, 1, usize::MAX);
    }
    let (peers, peers_more) = counts.most();
    let attempts = stuck.iter().map(|s| s.attempts);
    let (least, most) = (attempts.clone().min(), attempts.max());
    let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
    let times = match least == most {
        true => format!("{least} times"),
        false => format!("{least} to {most} times"),
    };
    let lasted = stuck.iter().map(|s| s.lasted_us).max().unwrap_or(0);
    let (peer, run) = (c.peer_addr, enter_of(c));
    let is_client = c.role == Role::Client;
    let connections = match stuck.len() {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    };
    let dropped = dropped(stuck, context);
    let lacks_ack = lacks_ack(stuck, context);
    let one_process = !is_client || stuck.iter().all(|s| s.connection.pid == c.pid);
    Problem {
        rank: 0,
        verdict: Some(VerdictKind::DataUnacknowledged),
        confidence: Confidence::Likely,
        role: c.role.into(),
        forward: None,
        netns: c.netns,
        netns_name: c.netns_name.clone(),
        local_addr: (!is_client).then_some(c.local_addr),
        local_port: c.local_port.filter(|_| !is_client),
        peer_port: c.peer_port.filter(|_| is_client),
        pid: c.pid.filter(|_| one_process),
        comm: c.comm.clone(),
        workload: c.workload.clone(),
        handshakes: stuck.len() as u64,
        open: 0,
        peers,
        peers_more,
        evidence: {
            let mut evidence = vec![pro(format!(
                "{connections} completed the handshake. Then one segment, of data or the FIN, was retransmitted {times}, \
                 for up to {}, and no acknowledgment came meanwhile",
                format::duration(lasted)
            ))];
            if let Some((s, d)) = dropped.first() {
                evidence.push(pro(context.fact_of_drop_of(d, &s.connection)));
                evidence.extend(context.rule_of_drop(d).map(|rule| pro(rule.fact)));
            }
            let others = stuck.len().min(LOOKED_AT) - dropped.len();
            if others > 0 && !dropped.is_empty() {
                evidence.push(contra(format!(
                    "of {others} of them no dropped packet was seen: they may have another cause"
                )));
            }
            if others > 0 {
                evidence.extend(full_queue(stuck, context));
                evidence.extend(lacks_ack.iter().map(|(fact, _)| fact.clone()));
                if !lacks_ack.as_ref().is_some_and(|(_, all)| *all) {
                    evidence.extend(what_fits(is_client));
                }
            }
            evidence
        },
        remedy: Some(match dropped.first() {
            Some((_, d)) => context.remedy_of_drop(d),
            None if lacks_ack.is_some() => {
                let port = c.peer_port.unwrap_or(0);
                format!(
                    "on the peer, see its accept queue: ss -ltn 'sport = :{port}'; on the peer, see whether its queue is \
                     full: nstat -az TcpExtListenOverflows; else look for a firewall between that drops ACKs"
                )
            }
            None => format!(
                "{run}tracepath -n {peer}; see the MTU of each device: {run}ip link; let TCP find a size that passes: \
             {run}sysctl -w net.ipv4.tcp_mtu_probing=1"
            ),
        }),
        effects: Vec::new(),
        life: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, Connection, Line, Retransmit, RetransmitKind},
        verdict::fixtures::*,
    };

    fn retransmitted(context: &mut Context, id: u64, kind: RetransmitKind, attempts: &[u32]) {
        let mut connection = connection(Role::Client, "10.0.0.9", 5432);
        connection.id = id;
        retransmissions(context, &connection, kind, attempts);
    }

    /// One a second.
    fn retransmissions(
        context: &mut Context,
        connection: &Connection,
        kind: RetransmitKind,
        attempts: &[u32],
    ) {
        for (n, attempt) in (0..).zip(attempts) {
            let body = Body::Retransmit(Retransmit {
                connection: connection.clone(),
                kind,
                trigger: None,
                attempt: Some(*attempt),
                gap_us: None,
                expected_gap_us: None,
                next_us: None,
                gives_up_us: None,
                segs: 1,
                failed: false,
                error: None,
            });
            context.note(&Line {
                mono_ns: T0 + n * SEC,
                body,
            });
        }
    }

    #[test]
    fn a_segment_that_is_retransmitted_again_and_again_makes_it() {
        let mut context = Context::default();
        retransmitted(&mut context, 7, RetransmitKind::Rto, &[1, 2, 3, 4]);
        retransmitted(&mut context, 8, RetransmitKind::Rto, &[1, 2, 3]);
        let found = problems(&context);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].problem.handshakes, 2);
        assert_eq!(found[0].problem.confidence, Confidence::Likely);
        assert_eq!(
            found[0].problem.evidence[0].fact,
            "2 connections completed the handshake. Then one segment, of data or the FIN, was retransmitted 3 to 4 \
             times, for up to 3.00 s, and no acknowledgment came meanwhile"
        );
    }

    #[test]
    fn a_full_queue_of_a_listener_of_this_host_is_named() {
        let mut context = looked(&listener(129, 0), 4, 0);
        let server = listener(0, 0).local_addr;
        assert!(server.is_unspecified());
        context.has_addresses(NETNS, vec!["10.0.0.9".parse().unwrap()]);
        let mut connection = connection(Role::Client, "10.0.0.9", 8080);
        connection.id = 1;
        retransmissions(&mut context, &connection, RetransmitKind::Rto, &[1, 2, 3]);
        let said = |context: &Context| {
            let p = problems(context).remove(0).problem;
            let facts: Vec<String> = p.evidence.into_iter().map(|e| e.fact).collect();
            facts.join("; ")
        };
        assert!(said(&context).contains("its accept queue was seen to be full"));
        let mut context = looked(&listener(3, 0), 0, 0);
        context.has_addresses(NETNS, vec!["10.0.0.9".parse().unwrap()]);
        retransmissions(&mut context, &connection, RetransmitKind::Rto, &[1, 2, 3]);
        assert!(!said(&context).contains("was seen to be full"));
    }

    /// A server that repeats its SYN-ACK lacks the final ACK, however small the data is.
    #[test]
    fn a_repeated_syn_ack_is_named_in_place_of_the_mtu() {
        let mut connection = connection(Role::Client, "10.0.0.9", 8080);
        connection.id = 1;
        let said = |server_repeats: bool| {
            let mut context = Context::default();
            if server_repeats {
                let ends = Ends::of(&connection).unwrap();
                context.note_repeated_synack(connection.netns, ends, 8080, T0);
                context.note_repeated_synack(connection.netns, ends, 8080, T0 + SEC);
            }
            retransmissions(&mut context, &connection, RetransmitKind::Rto, &[1, 2, 3]);
            let p = problems(&context).remove(0).problem;
            let facts: Vec<String> = p.evidence.into_iter().map(|e| e.fact).collect();
            (facts.join("; "), p.remedy.unwrap())
        };
        let (facts, remedy) = said(true);
        assert!(
            facts.contains(
                "after 1 of them was connected, the server repeated its SYN-ACK, to one twice"
            ),
            "{facts}"
        );
        assert!(
            !facts.contains("(MTU)") && !remedy.contains("mtu"),
            "{remedy}"
        );
        assert!(remedy.contains("ss -ltn 'sport = :8080'"), "{remedy}");
        let (facts, remedy) = said(false);
        assert!(facts.contains("(MTU)") && remedy.contains("tcp_mtu_probing"));
    }

    #[test]
    fn an_ack_that_this_host_dropped_is_named_in_place_of_the_mtu() {
        let mut h = active(crate::model::Outcome::Established);
        h.connection.id = 7;
        for (earlier_ns, is_told) in [(SEC, true), (99 * SEC, false)] {
            let mut context = Context::default();
            let mut drop = discard(&h, Packet::Ack, 4);
            drop.last_ns = T0 - earlier_ns;
            context.note_drop(drop);
            retransmissions(
                &mut context,
                &h.connection,
                RetransmitKind::Rto,
                &[1, 2, 3, 4],
            );
            let found = problems(&context);
            let told = &found[0].problem;
            let said = |what: &str| told.evidence.iter().any(|e| e.fact.contains(what));
            assert_eq!(said("this host dropped the ACK"), is_told, "{told:#?}");
            assert_eq!(said("(MTU)"), !is_told, "{told:#?}");
            let remedy = told.remedy.as_deref().unwrap();
            assert_eq!(remedy.contains("nft list ruleset"), is_told, "{remedy}");
        }
    }

    #[test]
    fn what_was_dropped_of_one_connection_does_not_explain_another() {
        let h = active(crate::model::Outcome::Established);
        let mut context = Context::default();
        let mut drop = discard(&h, Packet::Ack, 4);
        drop.last_ns = T0;
        context.note_drop(drop);
        for (id, port) in [(7, h.connection.local_port), (8, Some(1111))] {
            let mut connection = h.connection.clone();
            (connection.id, connection.local_port) = (id, port);
            retransmissions(&mut context, &connection, RetransmitKind::Rto, &[1, 2, 3]);
        }
        let p = problems(&context).remove(0).problem;
        let said = |what: &str| p.evidence.iter().any(|e| e.fact.contains(what));
        assert!(said("this host dropped the ACK"), "{p:#?}");
        assert!(said("of 1 of them no dropped packet was seen"), "{p:#?}");
        assert!(said("(MTU)"), "{p:#?}");
    }

    #[test]
    fn segments_that_got_through_and_handshakes_are_not_it() {
        let mut context = Context::default();
        retransmitted(&mut context, 7, RetransmitKind::Rto, &[1, 2, 1, 2, 1]);
        retransmitted(&mut context, 8, RetransmitKind::Syn, &[1, 2, 3, 4]);
        assert!(problems(&context).is_empty());
    }
}
