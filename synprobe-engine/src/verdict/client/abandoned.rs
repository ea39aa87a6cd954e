//! The application's own time-out.

use crate::{
    model::{Handshake, Outcome, VerdictKind},
    util::format,
    verdict::{Context, Explanation, Finding, Verdict, enter_of},
};

/// `abandoned`
pub(in crate::verdict) struct Abandoned;

impl Verdict for Abandoned {
    fn kind(&self) -> VerdictKind {
        VerdictKind::Abandoned
    }

    fn check(&self, h: &Handshake, _: &Context) -> Option<Finding> {
        if !super::failed(h) || h.outcome != Outcome::Abandoned || super::answer_was_due(h) {
            return None;
        }
        let mut finding = Finding::certain()
            .accounts_for_outcome()
            .pro(super::closed_by(h));
        if h.facts.peer_called_too {
            // Closed in SYN_RECV: a FIN follows the SYN-ACK, and both may still arrive.
            return Some(
                finding
                    .pro(
                        "the peer's own SYN had come, from the port that was called: both ends connected to each other \
                         at the same time (simultaneous open)",
                    )
                    .pro("nothing had acknowledged our SYN yet, which takes up to one round trip more")
                    .remedy("let one of the two ends listen and the other connect, or keep the socket open for longer"),
            );
        }
        finding = finding.pro(format!(
            "{} sent. An answer may take up to {}, and the kernel had not retransmitted yet",
            super::syns(h),
            format::duration(super::ANSWER_DUE_US)
        ));
        finding = match h.facts.would_give_up_us {
            Some(us) => finding.pro(format!(
                "the kernel would have tried for {}: the application gave up first",
                format::duration(us)
            )),
            None => finding.contra("when the kernel would have given up is not known"),
        };
        Some(finding.remedy(format!(
            "where the application tries several addresses at once (Happy Eyeballs, RFC 8305) and another one was \
             faster, this is no fault; else raise its connect time-out: below 1 s one lost packet makes it fail; see \
             how long an answer takes: {}synprobe connect {}",
            enter_of(&h.connection),
            super::peer(h)
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the application gave up before an answer was due",
            meaning: "The application's own connect time-out ran out, or it was ended, before the kernel \
                      had reason to send a second SYN. No packet tells the peer. The losing attempts of \
                      happy eyeballs look the same. Where the application waited longer, the verdict \
                      says why no answer came, and its time-out is a fact beside it.",
            detection: "SYN_SENT→CLOSE with no error, in the process's own context, after one SYN and less \
                      than 1 s: certain. An ICMP error that was noted meanwhile, a full queue on this \
                      host or a packet dropped here is reported instead.",
            remedy: "Compare the two time-outs.\n    synprobe connect \
                     <host>:<port>\n    sysctl net.ipv4.tcp_syn_retries",
            reproduce: "synprobe lab impatient\nsynprobe lab abandoned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    fn abandoned() -> Handshake {
        let mut h = active(Outcome::Abandoned);
        (h.dwell_us, h.retransmits) = (Some(300_000), 0);
        h.facts.would_give_up_us = Some(131_000_000);
        h
    }

    #[test]
    fn both_time_outs_are_said() {
        let judgement = judged(&abandoned(), Context::default());
        assert_eq!(judgement.verdict, Some(VerdictKind::Abandoned));
        assert_eq!(judgement.confidence, Confidence::Certain);
        let facts: Vec<_> = judgement.evidence.iter().map(|e| e.fact.as_str()).collect();
        assert_eq!(facts[0], "app closed it after 300 ms, while it was open");
        assert!(facts[2].contains("131 s"), "{facts:?}");
    }

    #[test]
    fn the_peers_own_syn_was_an_answer() {
        let mut h = abandoned();
        h.facts.peer_called_too = true;
        let judgement = judged(&h, Context::default());
        assert_eq!(judgement.verdict, Some(VerdictKind::Abandoned));
        let facts: Vec<_> = judgement.evidence.iter().map(|e| e.fact.as_str()).collect();
        assert!(
            facts[1].starts_with("the peer's own SYN had come"),
            "{facts:?}"
        );
        assert!(
            !facts.iter().any(|fact| fact.contains("1 SYN sent")),
            "{facts:?}"
        );
        // The same when an answer was due: what came is said, and never that nothing came.
        (h.dwell_us, h.retransmits) = (Some(5_000_000), 2);
        for outcome in [Outcome::Abandoned, Outcome::TimedOut] {
            h.outcome = outcome;
            let judgement = judged(&h, Context::default());
            assert_eq!(judgement.verdict, Some(VerdictKind::Filtered));
            let fact = &judgement.evidence[0].fact;
            assert!(fact.contains("the peer's own SYN had come"), "{fact}");
            assert!(!fact.contains("no answer"), "{fact}");
        }
    }

    #[test]
    fn the_kernels_own_end_is_not_it() {
        let h = active(Outcome::TimedOut);
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Filtered)
        );
    }

    #[test]
    fn once_an_answer_was_due_its_absence_is_the_cause() {
        for (dwell_us, retransmits) in [(1_200_000, 0), (1_050_000, 1)] {
            let mut h = abandoned();
            (h.dwell_us, h.retransmits) = (Some(dwell_us), retransmits);
            let judgement = judged(&h, Context::default());
            assert_eq!(judgement.verdict, Some(VerdictKind::Filtered));
            assert_eq!(judgement.confidence, Confidence::Likely);
            assert!(
                judgement.evidence[1]
                    .fact
                    .starts_with("app closed it after")
            );
        }
    }

    #[test]
    fn a_reason_that_is_known_comes_first() {
        let mut h = abandoned();
        h.facts.soft_error = Some("ENETUNREACH".into());
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Unreachable)
        );
    }
}
