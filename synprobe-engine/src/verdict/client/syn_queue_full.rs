//! The server is on this host too, its SYN queue is full, and it sends no SYN cookies.

use crate::{
    model::{Handshake, VerdictKind},
    verdict::{Context, CounterRise, Explanation, Finding, Verdict},
};

/// `syn-queue-full`
pub(in crate::verdict) struct SynQueueFull;

impl Verdict for SynQueueFull {
    fn kind(&self) -> VerdictKind {
        VerdictKind::SynQueueFull
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::waited_for_an_answer(h, context) {
            return None;
        }
        let listener = context.called_listener(&h.connection)?;
        let refused = context.refused_by_syn_queue(listener)?;
        let unanswered = context.unanswered_syns(&h.connection, listener);
        let explained = refused;
        if unanswered == 0 || listener.dropped()? == 0 || explained * 2 < unanswered {
            return None;
        }
        let mut finding = if explained >= unanswered && context.counts_full_syn_queue(listener) {
            Finding::certain().accounts_for(explained)
        } else {
            Finding::likely()
        };
        finding = finding.pro("the server is on this host");
        for fact in listener.syn_queue_facts(refused) {
            finding = finding.pro(fact);
        }
        if explained < unanswered {
            finding = finding.contra(format!(
                "{unanswered} SYNs to it got no answer: {} of them are not explained by this",
                unanswered - explained
            ));
        }
        Some(
            finding
                .pro(format!("{} in {}", super::syns(h), super::took(h)))
                .remedy(listener.syn_queue_remedy()),
        )
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[
            CounterRise::Refusals,
            CounterRise::FullSynQueue,
            CounterRise::Cookies,
        ]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the listener's SYN queue is full and SYN cookies are off: SYNs get no answer",
            meaning: "With net.ipv4.tcp_syncookies 0 a full SYN queue refuses SYNs silently. The queue is full \
                      above the listener's limit, or above about 3/4 of net.ipv4.tcp_max_syn_backlog, \
                      for peers that this host has no metrics of. No half-open and no packet answers.",
            detection: "TCPReqQFullDrop of the namespace rose: certain, where it explains every SYN without \
                      an answer. The rule of 3/4 has no counter of its own: ListenDrops rose by more than \
                      ListenOverflows and TCPReqQFullDrop, and a check found the queue at its limit: \
                      likely.",
            remedy: "Let the kernel answer with cookies, or make room.\n    sysctl -w net.ipv4.tcp_syncookies=1\n    \
                     sysctl -w net.ipv4.tcp_max_syn_backlog=8192\n    synprobe listeners",
            reproduce: "synprobe lab syn-queue-full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, LimitedBy, ListenCounters, Outcome},
        verdict::fixtures::*,
    };

    fn context(syn_queue: u32, counted: u64, uncounted: u64) -> Context {
        let mut context = Context::default();
        context.has_addresses(NETNS, vec!["10.0.0.9".parse().unwrap()]);
        for share in [0, 1, 1] {
            let mut it = listener(0, syn_queue);
            (it.syn_queue_max, it.limited_by) = (Some(12), Some(LimitedBy::TcpMaxSynBacklog));
            it.drops = Some((counted + uncounted) * share);
            let counters = ListenCounters {
                netns: NETNS,
                listen_overflows: Some(0),
                listen_drops: Some((counted + uncounted) * share),
                req_q_full_drop: Some(counted * share),
                out_no_routes: Some(0),
                ..ListenCounters::default()
            };
            context.sample(&[it], &[counters]);
        }
        context
    }

    fn waiting() -> Handshake {
        let mut h = active(Outcome::TimedOut);
        h.connection.peer_port = Some(8080);
        h.retransmits = 2;
        h
    }

    #[test]
    fn its_own_counter_makes_it_certain_and_the_rule_of_three_quarters_likely() {
        let got = verdict_of(&waiting(), context(13, 3, 0));
        assert_eq!(got, (Some(VerdictKind::SynQueueFull), Confidence::Certain));
        let got = verdict_of(&waiting(), context(13, 0, 3));
        assert_eq!(got, (Some(VerdictKind::SynQueueFull), Confidence::Likely));
    }

    #[test]
    fn a_queue_with_room_is_not_it() {
        let (verdict, _) = verdict_of(&waiting(), context(2, 0, 3));
        assert_ne!(verdict, Some(VerdictKind::SynQueueFull));
    }
}
