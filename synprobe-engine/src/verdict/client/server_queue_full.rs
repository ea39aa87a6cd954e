//! The server is on this host too, and its accept queue is full.

use crate::{
    model::{Handshake, VerdictKind},
    verdict::{Context, CounterRise, Explanation, Finding, Verdict},
};

/// `server-queue-full`
pub(in crate::verdict) struct ServerQueueFull;

impl Verdict for ServerQueueFull {
    fn kind(&self) -> VerdictKind {
        VerdictKind::ServerQueueFull
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::waited_for_an_answer(h, context) {
            return None;
        }
        let listener = context.called_listener(&h.connection)?;
        let overflows = context.moved(listener.last.netns, |c| c.listen_overflows);
        // Every SYN that a full queue refuses is an overflow. One overflow does not explain ten SYNs.
        let unanswered = context.unanswered_syns(&h.connection, listener);
        if overflows.is_some_and(|n| n * 2 < unanswered) {
            return None;
        }
        // Counters catch a queue that is full for a moment; samples may miss it. A repeated SYN counts as a
        // drop of its listener too, and overflows are the whole namespace's: they count only where no other
        // listener can have caused them.
        let another = context
            .listeners()
            .any(|l| l.last.netns == listener.last.netns && l.was_full());
        let rose = overflows.unwrap_or(0) > 0;
        let dropped = listener.dropped().unwrap_or(0) > 0;
        let overflowed = rose && !another && dropped && h.retransmits > 0;
        if !listener.was_full() && !overflowed {
            return None;
        }
        // Some of the overflows may be final ACKs of SYN cookies.
        let explained = overflows.is_some_and(|n| n >= unanswered.max(1))
            && !context.returned_cookies(listener.last.netns);
        let mut finding = if listener.was_full() && explained && h.retransmits > 0 {
            Finding::certain().accounts_for(overflows.unwrap_or(0))
        } else {
            Finding::likely()
        };
        finding = finding.pro("the server is on this host");
        finding = if listener.was_full() {
            finding.pro(listener.how_full())
        } else {
            finding.contra(format!(
                "listener {}: its accept queue was not full in any of {} checks",
                listener.name(),
                listener.samples
            ))
        };
        let group = context.group_of(&listener.last);
        finding = finding
            .maybe_pro(listener.why_not_accepted())
            .maybe_pro(listener.others_of(&group));
        finding = match overflows {
            Some(0) => finding.contra(format!(
                "ListenOverflows of its namespace did not rise {}",
                context.during()
            )),
            Some(n) => finding.pro(format!(
                "ListenOverflows of its namespace rose by {n} {}: {}",
                context.during(),
                context.what_overflowed(listener.last.netns)
            )),
            None => finding.contra("ListenOverflows of its namespace could not be read"),
        };
        if let Some(n) = overflows.filter(|n| *n < unanswered) {
            finding = finding.contra(format!(
                "{unanswered} SYNs to it got no answer: {} of them are not explained by overflows",
                unanswered - n
            ));
        }
        finding = finding.pro(format!("{} in {}", super::syns(h), super::took(h)));
        let look = format!("synprobe listeners --port {}", listener.last.local_port);
        let steps = [listener.owner_remedy(), Some(look), listener.longer_queue()];
        let steps: Vec<String> = steps.into_iter().flatten().collect();
        Some(finding.remedy(steps.join("; ")))
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[CounterRise::Overflows]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the server is on this host, and its accept queue is full: SYNs get no answer",
            meaning: "The address that was called belongs to this host, and the listener there does not \
                      accept(): the kernel drops SYNs silently and the client waits in SYN_SENT. \
                      From another host this looks like filtered.",
            detection: "The listener's accept queue seen to be full in sock_diag while the client waited. \
                      With SYNs retransmitted, and ListenOverflows of its namespace risen by at least \
                      as many as got no answer: certain; else likely. It is not this where overflows \
                      explain less than half of them. Likely, too, is a queue that was full for a moment only: packets \
                      discarded at the listener and ListenOverflows counted in this run.",
            remedy: "The server's side has the reason: accept-queue-full.\n    synprobe listeners\n    \
                     cat /proc/<pid>/stack",
            reproduce: "synprobe lab accept-queue-full",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        model::{Confidence, ListenCounters, Outcome, OwnerState},
        verdict::{
            context::{DroppedPacket, Packet},
            fixtures::*,
        },
    };

    fn calling(full: bool, overflows: u64) -> Context {
        let mut context = looked(&listener(if full { 129 } else { 3 }, 0), overflows, 0);
        context.has_addresses(NETNS, vec!["10.0.0.9".parse().unwrap()]);
        context
    }

    fn waiting(outcome: Outcome) -> Handshake {
        let mut h = active(outcome);
        h.connection.peer_port = Some(8080);
        h.retransmits = 2;
        h
    }

    #[test]
    fn a_full_queue_on_this_host_makes_it() {
        for outcome in [
            Outcome::TimedOut,
            Outcome::Open,
            Outcome::Established,
            Outcome::Abandoned,
        ] {
            let got = verdict_of(&waiting(outcome), calling(true, 9));
            assert_eq!(
                got,
                (Some(VerdictKind::ServerQueueFull), Confidence::Certain),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn overflows_must_explain_the_syns() {
        // Three SYNs got no answer: a full queue counts each of them.
        for (overflows, got) in [
            (0, (Some(VerdictKind::Filtered), Confidence::Likely)),
            (1, (Some(VerdictKind::Filtered), Confidence::Likely)),
            (2, (Some(VerdictKind::ServerQueueFull), Confidence::Likely)),
            (3, (Some(VerdictKind::ServerQueueFull), Confidence::Certain)),
        ] {
            let context = calling(true, overflows);
            assert_eq!(verdict_of(&waiting(Outcome::TimedOut), context), got);
        }
        let judged = judged(&waiting(Outcome::TimedOut), calling(true, 2));
        let contra: Vec<_> = judged.evidence.iter().filter(|e| !e.supports).collect();
        assert_eq!(
            contra[0].fact,
            "3 SYNs to it got no answer: 1 of them are not explained by overflows"
        );
    }

    #[test]
    fn syns_that_were_dropped_on_their_way_are_no_overflows() {
        let dropped = |h: &Handshake, count| DroppedPacket {
            netns: NETNS + 1,
            incoming: true,
            reason: "IP_INADDRERRORS".into(),
            ..discard(h, Packet::Syn, count)
        };
        // All three died on the node: the one overflow is another client's.
        let mut context = calling(true, 1);
        context.note_drop(dropped(&waiting(Outcome::Open), 3));
        let (verdict, _) = verdict_of(&waiting(Outcome::Open), context);
        assert_ne!(verdict, Some(VerdictKind::ServerQueueFull));
        let mut context = calling(true, 1);
        let mut died = waiting(Outcome::Open);
        died.connection.local_port = Some(7);
        context.note_drop(dropped(&died, 3));
        context.note(&line(died));
        let mut other = waiting(Outcome::Abandoned);
        other.retransmits = 0;
        let got = verdict_of(&other, context);
        assert_eq!(
            got,
            (Some(VerdictKind::ServerQueueFull), Confidence::Likely)
        );
    }

    /// `docker pause`: no signal, and the state is `S`.
    #[test]
    fn a_frozen_cgroup_is_named() {
        let mut it = listener(129, 0);
        it.pid = Some(12);
        it.owner_state = Some(OwnerState {
            state: 'S',
            cpu_ms: 5,
            open_fds: Some(9),
            max_fds: Some(1024),
            waits_in: Some("get_signal".into()),
        });
        let mut context = Context::default();
        context.has_addresses(NETNS, vec!["10.0.0.9".parse().unwrap()]);
        for overflows in [0, 3] {
            let counters = ListenCounters {
                netns: NETNS,
                listen_overflows: Some(overflows),
                ..ListenCounters::default()
            };
            context.sample(&[it.clone()], &[counters]);
        }
        let judged = judged(&waiting(Outcome::TimedOut), context);
        let mut facts = judged.evidence.iter().map(|e| e.fact.as_str());
        assert!(facts.any(|fact| fact.starts_with("app/12 does not run: its cgroup is frozen")));
        assert!(
            judged
                .remedy
                .unwrap()
                .starts_with("docker unpause, or write 0 into")
        );
    }

    #[test]
    fn of_a_reuseport_group_the_full_socket_and_its_stopped_owner_are_named() {
        let of = |inode, pid, accept_queue| {
            let mut it = listener(accept_queue, 0);
            (it.inode, it.pid) = (Some(inode), Some(pid));
            it.owner_state = (accept_queue > 64).then_some(OwnerState {
                state: 'T',
                cpu_ms: 5,
                open_fds: Some(9),
                max_fds: Some(1024),
                waits_in: None,
            });
            it
        };
        let mut context = Context::default();
        context.has_addresses(NETNS, vec!["10.0.0.9".parse().unwrap()]);
        for overflows in [0, 3] {
            let counters = ListenCounters {
                netns: NETNS,
                listen_overflows: Some(overflows),
                ..ListenCounters::default()
            };
            context.sample(&[of(1, 11, 0), of(2, 12, 129), of(3, 13, 1)], &[counters]);
        }
        let judged = judged(&waiting(Outcome::TimedOut), context);
        assert_eq!(judged.verdict, Some(VerdictKind::ServerQueueFull));
        let facts: Vec<_> = judged.evidence.iter().map(|e| e.fact.as_str()).collect();
        for fact in [
            "listener 0.0.0.0:8080 (app/12): accept queue full in 2 of 2 checks, up to 129 of 128",
            "app/12 does not run: a signal has stopped it (state T)",
            "the other 2 sockets of its SO_REUSEPORT group had room, accept queues: app/11 up to 0 of 128, \
             app/13 up to 1 of 128",
        ] {
            assert!(facts.contains(&fact), "{facts:#?}");
        }
        let remedy = judged.remedy.unwrap();
        assert!(
            remedy.starts_with("let app run again: kill -CONT 12"),
            "{remedy}"
        );
    }

    #[test]
    fn a_queue_that_was_full_between_two_looks_is_detection_its_counters() {
        let other = verdict_of(&waiting(Outcome::Established), calling(false, 9));
        assert_eq!(
            other.0,
            Some(VerdictKind::SynLostThenOk),
            "another listener of the namespace may have overflowed"
        );
        let mut context = calling(false, 9);
        for drops in [2, 12] {
            let mut it = listener(3, 0);
            it.local_addr = "10.0.0.9".parse().unwrap();
            it.drops = Some(drops);
            context.sample(&[it], &[]);
        }
        let got = verdict_of(&waiting(Outcome::Established), context);
        assert_eq!(
            got,
            (Some(VerdictKind::ServerQueueFull), Confidence::Likely)
        );
    }

    #[test]
    fn a_listener_opened_in_the_run_began_without_drops() {
        let mut it = listener(3, 0);
        it.local_addr = "10.0.0.9".parse().unwrap();
        it.drops = Some(70);
        let overflows = |n| {
            [ListenCounters {
                netns: NETNS,
                listen_overflows: Some(n),
                ..ListenCounters::default()
            }]
        };
        let mut context = Context::default();
        context.has_addresses(NETNS, vec![it.local_addr]);
        context.sample(&[], &overflows(0));
        context.sample(&[it], &overflows(70));
        let got = verdict_of(&waiting(Outcome::Established), context);
        assert_eq!(
            got,
            (Some(VerdictKind::ServerQueueFull), Confidence::Likely)
        );
    }

    #[test]
    fn of_two_namespaces_with_the_address_the_one_that_dropped_the_syn_is_meant() {
        let called: IpAddr = "10.0.0.9".parse().unwrap();
        let of_both = || {
            let mut context = Context::default();
            for full in [false, true] {
                let netns = NETNS + 1 + u32::from(full);
                let mut it = listener(if full { 129 } else { 0 }, 0);
                it.netns = netns;
                context.has_addresses(netns, vec![called]);
                for overflows in [0, 9] {
                    let counters = ListenCounters {
                        netns,
                        listen_overflows: Some(overflows),
                        ..ListenCounters::default()
                    };
                    context.sample(std::slice::from_ref(&it), &[counters]);
                }
            }
            context
        };
        let h = waiting(Outcome::TimedOut);
        let (verdict, _) = verdict_of(&h, of_both());
        assert_ne!(verdict, Some(VerdictKind::ServerQueueFull));
        let mut context = of_both();
        context.note_drop(DroppedPacket {
            netns: NETNS + 2,
            incoming: true,
            reason: "TCP_LISTEN_OVERFLOW".into(),
            ..discard(&h, Packet::Syn, 3)
        });
        let called = context.called_listener(&h.connection);
        assert_eq!(called.map(|l| l.last.netns), Some(NETNS + 2));
    }

    #[test]
    fn a_queue_with_room_or_a_server_elsewhere_is_filtered() {
        let (verdict, _) = verdict_of(&waiting(Outcome::TimedOut), calling(false, 0));
        assert_eq!(verdict, Some(VerdictKind::Filtered));
        let elsewhere = looked(&listener(129, 0), 9, 0);
        let (verdict, _) = verdict_of(&waiting(Outcome::TimedOut), elsewhere);
        assert_eq!(verdict, Some(VerdictKind::Filtered));
    }
}
