//! One SYN, then nothing.

use crate::{
    model::{Handshake, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict, context, enter_of, times},
};

/// `peer-silent`
pub(in crate::verdict) struct PeerSilent;

impl Verdict for PeerSilent {
    fn kind(&self) -> VerdictKind {
        VerdictKind::PeerSilent
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::unfinished(h) || !context::silent(h) {
            return None;
        }
        let baseline = context.typical_us(&h.connection);
        let sent = times(h.retransmits.saturating_add(1));
        let f = &h.facts;
        let nothing = match (f.ignored_segment, f.ack_untold || f.reset_untold) {
            (false, false) if h.copied_syns() > 0 => {
                "since its SYN nothing came but a copy of it, sooner than TCP repeats a SYN: no ACK of the SYN-ACK, no RST"
            }
            (false, false) => {
                "since its SYN nothing came that fits: no ACK of the SYN-ACK, no second SYN, no RST"
            }
            (true, _) => {
                "since its SYN nothing came that fits: only segments outside of its window, or with an old timestamp"
            }
            (false, true) => {
                "since its SYN nothing came that ended it, though an ACK or a RST did: before Linux 6.15 the kernel \
                 does not tell whether it fitted"
            }
        };
        let finding = Finding::likely()
            .by_absence()
            .pro(format!("the SYN-ACK was sent {sent}; {nothing}"))
            .contra(
                "a scanner, a dead path there, or an ACK that is lost on its way here: one host cannot \
                 tell these apart; the peer's earlier successes and the other host's view would",
            );
        let errors = context.icmp(h);
        let facts = super::icmp_facts(&errors, h).into_iter();
        let finding = facts.fold(finding, |finding, fact| finding.pro(fact));
        let finding = finding.maybe_contra(context.way_back_is_open(&h.connection));
        let finding = match baseline {
            Some((us, n)) => finding.contra(format!(
                "the peer has completed {n} other handshakes lately, usually in {}: it is no scanner",
                crate::util::format::duration(us)
            )),
            None => finding,
        };
        let (peer, run) = (h.connection.peer_addr, enter_of(&h.connection));
        let ask = super::ask_router(&errors, h);
        Some(finding.remedy(format!(
            "{ask}{run}ping -c 3 {peer}; {run}tcpdump -ni any 'host {peer} and tcp'; the same on the peer if it is \
             yours"
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "one SYN, then nothing from this peer",
            meaning: "The peer sent a SYN and has been silent since: a scanner that does not care for the \
                      answer, a forged address, a host that died, or a path that loses every packet \
                      towards it or from it after the first. A living client whose SYN-ACK is lost would \
                      have repeated its SYN after a second.",
            detection: "The SYN-ACK timer fired and no SYN came again (num_retrans equals the time-outs), no \
                      final ACK was discarded, no RST seen. Likely at the most: it rests on silence. One \
                      host cannot tell a scanner from a dead path or from an ACK that is lost on its way \
                      here; whether this peer completed a handshake before, and a capture on the other host, can. A \
                      client that gives up before its first SYN time-out looks the same.",
            remedy: "If the peer is yours, look from there. If many at once: see syn-flood.\n    ping \
                     <peer>\n    tcpdump -ni any 'host <peer> and tcp'",
            reproduce: "synprobe lab peer-silent\nsynprobe lab ack-lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Missed, Outcome},
        verdict::fixtures::*,
    };

    #[test]
    fn silence_makes_it_and_no_more_than_likely() {
        let got = verdict_of(&half_open(Outcome::Expired), Context::default());
        assert_eq!(got, (Some(VerdictKind::PeerSilent), Confidence::Likely));
    }

    #[test]
    fn earlier_successes_speak_against_a_scanner() {
        let mut context = Context::default();
        for _ in 0..9 {
            let mut fine = half_open(Outcome::Established);
            fine.retransmits = 0;
            fine.dwell_us = Some(20_000);
            context.note(&line(fine));
        }
        let judgement = judged(&half_open(Outcome::Expired), context);
        assert!(
            judgement.evidence.iter().any(|e| !e.supports
                && e.fact
                    .contains("9 other handshakes lately, usually in 20.0 ms")),
            "{:?}",
            judgement.evidence
        );
    }

    #[test]
    fn too_young_or_unwatched_is_not_enough() {
        let mut young = half_open(Outcome::Open);
        young.retransmits = 0;
        let mut unwatched = half_open(Outcome::Open);
        unwatched.facts.history_known = false;
        unwatched.facts.preexisting = true;
        for h in [young, unwatched] {
            let judgement = judged(&h, Context::default());
            assert_eq!(
                (judgement.verdict, judgement.confidence),
                (None, Confidence::Insufficient)
            );
            assert_eq!(judgement.evidence.len(), 1);
        }
    }

    #[test]
    fn silence_is_no_evidence_where_records_were_lost() {
        let mut context = Context::default();
        lose(&mut context, 1, Missed::Any);
        let got = verdict_of(&half_open(Outcome::Expired), context);
        assert_eq!(got, (None, Confidence::Insufficient));
    }
}
