//! The application's own time-out.

use crate::{
    model::{Handshake, Outcome, VerdictKind},
    util::format,
    verdict::{Context, Explanation, Finding, Verdict},
};

/// `abandoned`
pub(in crate::verdict) struct Abandoned;

impl Verdict for Abandoned {
    fn kind(&self) -> VerdictKind {
        VerdictKind::Abandoned
    }

    fn check(&self, h: &Handshake, _: &Context) -> Option<Finding> {
        if !super::failed(h) || h.outcome != Outcome::Abandoned {
            return None;
        }
        let by_tool = h.error.as_deref() == Some("ECONNABORTED");
        let who = match &h.connection.comm {
            Some(comm) => format::safe(comm).into_owned(),
            None => "the application".to_owned(),
        };
        let mut finding = Finding::certain().pro(if by_tool {
            format!(
                "a tool closed it after {} (ECONNABORTED: ss -K, or the like)",
                super::took(h)
            )
        } else {
            format!(
                "{who} closed it after {}, while it was open",
                super::took(h)
            )
        });
        finding = finding.pro(format!("{} sent, and no answer received", super::syns(h)));
        finding = match h.facts.would_give_up_us {
            Some(us) => finding.pro(format!(
                "the kernel would have tried for {}: the application gave up first",
                format::duration(us)
            )),
            None => finding.contra("when the kernel would have given up is not known"),
        };
        Some(finding.remedy(format!(
            "the peer {} did not answer in time: see why (synprobe connect {}); a connect \
             time-out below 1 s fails on one lost packet, below 3 s on two",
            super::peer(h),
            super::peer(h)
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the application gave up before the kernel did",
            meaning: "The application's own connect time-out ran out, or it was ended, while the kernel \
                      was still trying. No packet tells the peer. The losing attempts of happy eyeballs \
                      look the same.",
            detection: "SYN_SENT→CLOSE with no error, in the process's own context: certain. Why the peer \
                      did not answer in time is another question; an ICMP error that was noted \
                      meanwhile, a full queue on this host or a packet dropped here is reported instead.",
            remedy: "See why there was no answer, and compare the two time-outs.\n    synprobe connect \
                     <host>:<port>\n    sysctl net.ipv4.tcp_syn_retries",
            reproduce: "synprobe lab abandoned\nsynprobe lab impatient",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    fn abandoned() -> Handshake {
        let mut h = active(Outcome::Abandoned);
        (h.dwell_us, h.retransmits) = (Some(1_000_000), 0);
        h.facts.would_give_up_us = Some(131_000_000);
        h
    }

    #[test]
    fn both_time_outs_are_said() {
        let judgement = judged(&abandoned(), Context::default());
        assert_eq!(judgement.verdict, Some(VerdictKind::Abandoned));
        assert_eq!(judgement.confidence, Confidence::Certain);
        let facts: Vec<_> = judgement.evidence.iter().map(|e| e.fact.as_str()).collect();
        assert_eq!(facts[0], "app closed it after 1.00 s, while it was open");
        assert!(facts[2].contains("131 s"), "{facts:?}");
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
    fn a_reason_that_is_known_comes_first() {
        let mut h = abandoned();
        h.facts.soft_error = Some("ENETUNREACH".into());
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Unreachable)
        );
    }
}
