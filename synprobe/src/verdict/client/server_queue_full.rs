//! The server is on this host too, and its accept queue is full.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict},
};

/// `server-queue-full`
pub(in crate::verdict) struct ServerQueueFull;

impl Verdict for ServerQueueFull {
    fn kind(&self) -> VerdictKind {
        VerdictKind::ServerQueueFull
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let answered = matches!(h.outcome, Outcome::Refused | Outcome::Unreachable);
        let at_once = h.outcome == Outcome::Established && h.retransmits == 0;
        if h.connection.role != Role::Client || answered || at_once {
            return None;
        }
        let listener = context.called_listener(&h.connection)?;
        let overflows = context
            .moved(listener.last.netns, |c| c.listen_overflows)
            .unwrap_or(0);
        // Counters catch a queue that is full for a moment; samples may miss it. A repeated SYN counts as a
        // drop of its listener too, and overflows are the whole namespace's: they count only where no other
        // listener can have caused them.
        let another = context
            .listeners()
            .any(|l| l.last.netns == listener.last.netns && l.was_full());
        let overflowed = overflows > 0 && !another && listener.dropped() > 0 && h.retransmits > 0;
        if !listener.was_full() && !overflowed {
            return None;
        }
        let mut finding = if listener.was_full() && overflows > 0 && h.retransmits > 0 {
            Finding::certain().accounts_for(overflows)
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
        finding = finding.maybe_pro(match listener.dropped() {
            0 => None,
            n => Some(format!(
                "{n} packets were discarded at this very listener (sk_drops)"
            )),
        });
        finding = match overflows {
            0 => finding.contra("ListenOverflows of its namespace did not rise in this run"),
            n => finding.pro(format!(
                "ListenOverflows of its namespace rose by {n} in this run: SYNs are dropped silently"
            )),
        };
        finding = finding.pro(format!("{} in {}", super::syns(h), super::took(h)));
        let who = match (&listener.last.comm, listener.last.pid) {
            (Some(comm), Some(pid)) => {
                format!(
                    "see why {} does not accept(): cat /proc/{pid}/stack; ",
                    crate::util::format::safe(comm)
                )
            }
            _ => String::new(),
        };
        let port = h.connection.peer_port.unwrap_or(0);
        Some(finding.remedy(format!("{who}synprobe listeners --port {port}")))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the server is on this host, and its accept queue is full: SYNs get no answer",
            meaning: "The address that was called belongs to this host, and the listener there does not \
                      accept(): the kernel drops SYNs silently and the client waits in SYN_SENT. \
                      From another host this looks like filtered.",
            detection: "The listener's accept queue seen to be full in sock_diag while the client waited. \
                      With ListenOverflows of its namespace rising meanwhile, and SYNs retransmitted: \
                      certain; else likely. So is a queue that was full for a moment only: packets \
                      discarded at the listener and ListenOverflows counted in this run.",
            remedy: "The server's side has the reason: accept-queue-full.\n    synprobe listeners\n    \
                     cat /proc/<pid>/stack",
            reproduce: "synprobe lab accept-queue-full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, ListenCounters},
        verdict::fixtures::*,
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
    fn without_overflows_it_is_likely() {
        let got = verdict_of(&waiting(Outcome::TimedOut), calling(true, 0));
        assert_eq!(
            got,
            (Some(VerdictKind::ServerQueueFull), Confidence::Likely)
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
    fn a_queue_with_room_or_a_server_elsewhere_is_filtered() {
        let (verdict, _) = verdict_of(&waiting(Outcome::TimedOut), calling(false, 0));
        assert_eq!(verdict, Some(VerdictKind::Filtered));
        let elsewhere = looked(&listener(129, 0), 9, 0);
        let (verdict, _) = verdict_of(&waiting(Outcome::TimedOut), elsewhere);
        assert_eq!(verdict, Some(VerdictKind::Filtered));
    }
}
