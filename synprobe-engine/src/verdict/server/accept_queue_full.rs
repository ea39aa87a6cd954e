//! The application does not accept().

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    verdict::{Context, CounterRise, Explanation, Finding, Verdict, context::ListenerHistory},
};

/// `accept-queue-full`
pub(in crate::verdict) struct AcceptQueueFull;

impl Verdict for AcceptQueueFull {
    fn kind(&self) -> VerdictKind {
        VerdictKind::AcceptQueueFull
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let f = &h.facts;
        if h.connection.role != Role::Server
            || h.outcome == Outcome::Established && h.retransmits == 0 && !f.acked && !f.ack_untold
        {
            return None;
        }
        let listener = context.listener(&h.connection);
        let seen_full = listener.is_some_and(|l| l.was_full());
        let full = f.queue_was_full || seen_full;
        // Its own final ACK was refused: a full queue or TCP_DEFER_ACCEPT does that, and rarely a child that could
        // not be made (tcp_v4_syn_recv_sock()).
        let refused = f.acked && (f.queue_was_full || f.defer_accept == Some(false));
        // An ACK was discarded at a full queue, and this kernel does not tell why.
        let untold = f.ack_untold && !f.acked && f.queue_was_full;
        // The queue is full and nothing else is wrong: the final ACK came before the run, or comes after
        // the next SYN-ACK.
        let waiting = !f.acked
            && !untold
            && full
            && h.outcome == Outcome::Open
            && !f.history_known
            && !f.reset_seen;
        if !refused && !untold && !waiting {
            return None;
        }
        let mut finding = match (refused, full) {
            (true, true) => Finding::certain()
                .accounts_for_outcome()
                .pro("the final ACK arrived and was discarded: the accept queue was full"),
            (true, false) => Finding::likely()
                .pro("the final ACK arrived, and no connection was made of it")
                .contra("the accept queue was not seen to be full"),
            (false, _) if untold => Finding::likely()
                .pro("an ACK arrived while the accept queue was full, and was discarded")
                .contra(super::ACK_UNTOLD),
            (false, _) => Finding::likely(),
        };
        if let Some(queue) = f.queue.filter(|_| f.queue_was_full) {
            finding = finding.pro(format!(
                "accept queue {} of {} at its last event",
                queue.accept_queue, queue.max
            ));
        }
        if let Some(l) = listener {
            finding = if l.was_full() {
                finding
                    .pro(l.how_full())
                    .maybe_pro(l.why_not_accepted())
                    .maybe_pro(l.others_of(&context.group(&h.connection)))
            } else {
                finding.contra(format!(
                    "listener {}: accept queue not full in any of {} checks",
                    l.name(),
                    l.samples
                ))
            };
        }
        let overflows = context.moved(h.connection.netns, |c| c.listen_overflows);
        finding = finding.maybe_pro(overflows.filter(|n| *n > 0).map(|n| {
            format!(
                "ListenOverflows of its namespace rose by {n} {}",
                context.during()
            )
        }));
        if waiting {
            finding = finding.contra(format!(
                "its own final ACK was not seen to be refused {}",
                context.during()
            ));
        }
        let who = listener
            .filter(|l| l.was_full())
            .and_then(|l| l.owner_remedy());
        Some(finding.remedy(remedy(h, who, listener)))
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[CounterRise::Overflows, CounterRise::Cookies]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the application does not accept(): final ACKs and SYNs are dropped at a full queue",
            meaning: "The handshake is complete as far as the client knows, but the listener's accept \
                      queue is full, so the kernel drops the final ACK and goes on sending \
                      SYN-ACKs; new SYNs are not answered at all. Clients that are in work on. The \
                      application is too slow, stuck, or out of threads or descriptors; a longer \
                      backlog only buys time.",
            detection: "inet_request_sock.acked, or the ACK itself discarded with TCP_LISTEN_OVERFLOW \
                      (Linux 6.15), and the queue seen to be full: certain. An ACK for another reason, such as \
                      one outside of the window, is none. From Linux 6.11 to 6.14 the reason is not told: likely \
                      until the next SYN-ACK shows the request. The queue seen to be full in sock_diag \
                      (sk_ack_backlog > sk_max_ack_backlog) while a half-open of before the run waits: \
                      likely. The limit is the lesser of listen()'s backlog and net.core.somaxconn. \
                      ListenOverflows counts a whole namespace.",
            remedy: "See what the application does, then which limit binds.\n    synprobe listeners\n    \
                     ss -ltnp\n    cat /proc/<pid>/stack; gdb -p <pid>\n    sysctl net.core.somaxconn",
            reproduce: "synprobe lab accept-queue-full\nsynprobe lab incident-accept-queue",
        }
    }
}

fn remedy(h: &Handshake, who: Option<String>, listener: Option<&ListenerHistory>) -> String {
    let who = match (who, &h.connection.comm, h.connection.pid) {
        (Some(who), ..) => format!("{who}; "),
        (None, Some(comm), Some(pid)) => {
            let comm = crate::util::format::name(comm);
            format!("see why {comm} does not accept(): cat /proc/{pid}/stack; ")
        }
        _ => "see why the application does not accept(); ".to_owned(),
    };
    let port = super::ss_listener(h);
    let longer = listener.and_then(ListenerHistory::longer_queue);
    let longer = longer.map_or_else(String::new, |step| format!("; {step}"));
    format!("{who}{port}{longer}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Queue},
        verdict::fixtures::*,
    };

    fn refused() -> Handshake {
        let mut h = half_open(Outcome::Open);
        h.facts.acked = true;
        h.facts.defer_accept = Some(false);
        h.facts.queue_was_full = true;
        h.facts.queue = Some(Queue {
            accept_queue: 129,
            max: 128,
            ..Queue::default()
        });
        h
    }

    #[test]
    fn a_refused_final_ack_makes_it() {
        let judgement = judged(&refused(), looked(&listener(129, 5), 40, 0));
        assert_eq!(judgement.verdict, Some(VerdictKind::AcceptQueueFull));
        assert_eq!(judgement.confidence, Confidence::Certain);
        let facts: Vec<_> = judgement.evidence.iter().map(|e| e.fact.as_str()).collect();
        assert!(
            facts.contains(&"ListenOverflows of its namespace rose by 40 in this run"),
            "{facts:?}"
        );
        assert!(facts.iter().any(|f| {
            f.contains("full in 3 of 3 checks, and at events of 1 handshakes, up to 129 of 128")
        }));
    }

    #[test]
    fn it_is_likely_where_the_kernel_does_not_tell_or_no_queue_was_full() {
        let mut h = refused();
        (h.facts.acked, h.facts.ack_untold) = (false, true);
        let got = judged(&h, looked(&listener(129, 5), 40, 0));
        let due = (Some(VerdictKind::AcceptQueueFull), Confidence::Likely);
        assert_eq!((got.verdict, got.confidence), due);
        assert!(
            got.evidence
                .iter()
                .any(|e| !e.supports && e.fact.contains("6.15"))
        );
        // The child could not be made for another reason.
        let mut h = refused();
        h.facts.queue_was_full = false;
        assert_eq!(verdict_of(&h, looked(&listener(3, 5), 0, 0)), due);
    }

    #[test]
    fn an_old_half_open_at_a_full_queue_is_likely() {
        let mut h = half_open(Outcome::Open);
        h.facts.preexisting = true;
        h.facts.history_known = false;
        let got = verdict_of(&h, looked(&listener(129, 5), 40, 0));
        assert_eq!(
            got,
            (Some(VerdictKind::AcceptQueueFull), Confidence::Likely)
        );
        // The same at a queue with room.
        let (verdict, _) = verdict_of(&h, looked(&listener(3, 5), 0, 0));
        assert_eq!(verdict, None);
    }

    #[test]
    fn it_is_not_defer_accept() {
        let mut h = refused();
        h.facts.queue_was_full = false;
        h.facts.defer_accept = Some(true);
        let (verdict, _) = verdict_of(&h, looked(&listener(0, 5), 0, 0));
        assert_eq!(verdict, Some(VerdictKind::DeferAccept));
    }

    #[test]
    fn it_is_not_peer_silent_and_not_synack_lost() {
        let mut h = half_open(Outcome::Expired);
        assert_eq!(
            verdict_of(&h, looked(&listener(129, 5), 9, 0)).0,
            Some(VerdictKind::PeerSilent)
        );
        h.retransmits_by_peer = 1;
        assert_eq!(
            verdict_of(&h, looked(&listener(129, 5), 9, 0)).0,
            Some(VerdictKind::SynackLost)
        );
    }
}
