//! Connected, but not with the first SYN.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    util::format,
    verdict::{Context, Explanation, Finding, Verdict, context::SynOption, enter_of},
};

/// `syn-lost-then-ok`
pub(in crate::verdict) struct SynLostThenOk;

impl Verdict for SynLostThenOk {
    fn kind(&self) -> VerdictKind {
        VerdictKind::SynLostThenOk
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let c = &h.connection;
        if c.role != Role::Client || h.outcome != Outcome::Established || h.unanswered() == 0 {
            return None;
        }
        let mut finding = Finding::likely().pro(format!(
            "connected on SYN {}; it took {}",
            h.retransmits.saturating_add(1),
            super::took(h)
        ));
        finding = finding.maybe_pro(context.typical_us(c).map(|(us, n)| {
            format!(
                "this peer usually takes {} (median of the last {n})",
                format::duration(us)
            )
        }));
        if let Some(n @ 1..) = context.peer_overflows(c) {
            // Its queue may have been full between two samples.
            finding = finding.contra(format!(
                "the peer is this host, and ListenOverflows there rose by {n}: its own queue may have \
                 dropped the SYN"
            ));
        }
        if let Some(option) = SynOption::of(h) {
            finding = finding.contra(format!(
                "the first SYN {}, the repetition did not: a device that drops such SYNs looks the same",
                option.words()
            ));
        }
        finding =
            finding.contra("whether the SYN or its SYN-ACK was lost cannot be seen from this end");
        let (peer, port) = (c.peer_addr, c.peer_port.unwrap_or(0));
        Some(finding.remedy(format!(
            "see loss on the path: {}mtr -rn -T -P {port} {peer}; on the peer, see whether a queue is full at \
             times: nstat -az TcpExtListenOverflows TcpExtListenDrops",
            enter_of(c)
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "connected, but only on a later SYN: each one lost costs a second or more",
            meaning: "The first SYN, or the answer to it, was lost; the kernel retransmitted it \
                      after a second, and then it worked. The application sees a connect that takes 1, 2 or more \
                      seconds. Loss on the path, or a server that drops SYNs at a full accept queue now \
                      and then.",
            detection: "SYN retransmissions before SYN_SENT→ESTABLISHED. Likely at most: the loss itself is \
                      not seen from this end, nor which of the two packets was lost. The server's \
                      end can see it.",
            remedy: "Look for loss on the path and overflows on the server.\n    mtr -T -P <port> <peer>\n    \
                     nstat -az TcpExtListenOverflows   (on the peer)",
            reproduce: "synprobe lab syn-lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    #[test]
    fn a_second_syn_makes_it() {
        let mut h = active(Outcome::Established);
        (h.retransmits, h.dwell_us) = (2, Some(2_040_000));
        let judgement = judged(&h, Context::default());
        assert_eq!(judgement.verdict, Some(VerdictKind::SynLostThenOk));
        assert_eq!(judgement.confidence, Confidence::Likely);
        assert_eq!(
            judgement.evidence[0].fact,
            "connected on SYN 3; it took 2.04 s"
        );
    }

    #[test]
    fn a_syn_that_was_too_large_for_the_path_is_not_it() {
        let mut h = active(Outcome::Established);
        (h.retransmits, h.dwell_us) = (1, Some(260));
        (h.facts.syn_too_large, h.facts.first_syn_had_fast_open) = (true, true);
        assert_eq!(verdict_of(&h, Context::default()).0, None);
        // Another one was lost too.
        (h.retransmits, h.dwell_us) = (2, Some(1_000_000));
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::SynLostThenOk)
        );
    }

    #[test]
    fn a_queue_of_this_host_that_overflowed_is_said() {
        let mut h = active(Outcome::Established);
        (h.retransmits, h.connection.peer_port) = (1, Some(8080));
        for (overflows, said) in [(0, false), (9, true)] {
            let mut context = looked(&listener(3, 0), overflows, 0);
            context.has_addresses(NETNS, vec![h.connection.peer_addr]);
            let got = judged(&h, context);
            assert_eq!(got.verdict, Some(VerdictKind::SynLostThenOk));
            let fact = |e: &crate::model::Evidence| e.fact.contains("ListenOverflows");
            assert_eq!(got.evidence.iter().any(fact), said);
        }
    }

    #[test]
    fn the_first_syn_is_nothing_to_speak_of() {
        let h = active(Outcome::Established);
        assert_eq!(verdict_of(&h, Context::default()).0, None);
    }

    #[test]
    fn a_server_that_was_late_is_a_slow_peer_for_itself() {
        let h = half_open(Outcome::Established);
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::SlowPeer)
        );
    }
}
