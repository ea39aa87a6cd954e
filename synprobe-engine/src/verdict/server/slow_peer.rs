//! Completed, but late.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    util::format,
    verdict::{Context, Explanation, Finding, Verdict, enter_of, times},
};

/// Far over a peer's baseline: this many times the median.
const TIMES: u64 = 5;
/// And by no less than this, µs.
const OVER_US: u64 = 100_000;
/// Slow by any measure, µs.
const SLOW_US: u64 = 1_000_000;

/// `slow-peer`
pub(in crate::verdict) struct SlowPeer;

impl Verdict for SlowPeer {
    fn kind(&self) -> VerdictKind {
        VerdictKind::SlowPeer
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if h.connection.role != Role::Server || h.outcome != Outcome::Established {
            return None;
        }
        let dwell = h.dwell_us;
        // A copy of the SYN that the network made is answered too, and costs no time.
        let retransmits = h.retransmits.saturating_sub(h.copied_syns());
        // Most handshakes end here: whatever the baseline, this is not far over it.
        if retransmits == 0 && dwell.is_none_or(|us| us < OVER_US) {
            return None;
        }
        let baseline = context.typical_us(&h.connection);
        let shown = dwell.map_or_else(|| "an unknown time".to_owned(), format::duration);
        let finding = if retransmits > 0 {
            let by_peer = match h.repeated_syns() {
                0 if h.facts.history_known => "each time because our timer fired".to_owned(),
                0 => "what made this host repeat it was not seen".to_owned(),
                n => format!("{} because it repeated its SYN", times(n)),
            };
            // TCP_DEFER_ACCEPT, or a full accept queue, makes it repeat the SYN-ACK too.
            let is_seen = h.facts.history_known || h.repeated_syns() > 0;
            let finding = match is_seen {
                true => Finding::certain().accounts_for_outcome(),
                false => Finding::likely(),
            };
            finding.pro(format!(
                "completed after {shown} and {} SYN-ACKs, {by_peer}",
                retransmits.saturating_add(1)
            ))
        } else {
            let dwell = dwell?;
            let far = baseline.is_some_and(|(us, _)| dwell > us * TIMES && dwell > us + OVER_US);
            if !far && dwell < SLOW_US {
                return None;
            }
            Finding::likely().pro(format!("completed after {shown}, with one SYN-ACK"))
        };
        let finding = finding.maybe_pro(baseline.map(|(us, n)| {
            format!(
                "this peer usually takes {} (median of the last {n})",
                format::duration(us)
            )
        }));
        let peer = h.connection.peer_addr;
        Some(finding.remedy(format!(
            "see loss and delay on the path: {}mtr -rn {peer}",
            enter_of(&h.connection)
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "completed, but only after more SYN-ACKs or a round trip far over this peer's baseline",
            meaning: "The handshake came to a good end, late: a segment was lost once, or the way to this \
                      peer and back took far longer than it usually does. Each lost segment costs a second \
                      or more.",
            detection: "SYN-ACKs retransmitted before the final ACK: certain. Without one, the connection's own \
                      first round-trip sample, over a second, or over five times and 100 ms more than the \
                      median of this peer's last handshakes: likely.",
            remedy: "Look for loss and queues on the path.\n    mtr -T -P <port> <peer>\n    ss -ti dst \
                     <peer>",
            reproduce: "synprobe lab slow-peer\nsynprobe lab ack-lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    fn usually(dwell_us: u64) -> Context {
        let mut context = Context::default();
        for _ in 0..10 {
            let mut fine = half_open(Outcome::Established);
            (fine.retransmits, fine.dwell_us) = (0, Some(dwell_us));
            context.note(&line(fine));
        }
        context
    }

    fn took(dwell_us: u64) -> Handshake {
        let mut h = half_open(Outcome::Established);
        (h.retransmits, h.dwell_us) = (0, Some(dwell_us));
        h
    }

    #[test]
    fn more_than_one_syn_ack_makes_it() {
        let got = verdict_of(&half_open(Outcome::Established), Context::default());
        assert_eq!(got, (Some(VerdictKind::SlowPeer), Confidence::Certain));
    }

    /// A switch loop, a mirror port: every packet comes twice.
    #[test]
    fn copies_of_its_syn_do_not_make_a_peer_slow() {
        let mut h = took(4_500);
        (h.retransmits, h.retransmits_by_peer) = (1, 1);
        let judgement = judged(&h, Context::default());
        assert_eq!(judgement.verdict, None);
        let fact = &judgement.evidence[0].fact;
        assert!(
            fact.starts_with("its SYN came again once, sooner"),
            "{fact}"
        );
        // A copy, then our timer.
        (h.dwell_us, h.retransmits, h.gaps_us) = (Some(1_010_000), 2, vec![500, 1_000_000]);
        let judgement = judged(&h, Context::default());
        assert_eq!(judgement.verdict, Some(VerdictKind::SlowPeer));
        let fact = &judgement.evidence[0].fact;
        assert!(
            fact.ends_with("and 2 SYN-ACKs, each time because our timer fired"),
            "{fact}"
        );
        // A repetition after a second is no copy.
        (h.retransmits, h.gaps_us) = (1, vec![1_000_000]);
        let judgement = judged(&h, Context::default());
        assert!(judgement.evidence[0].fact.contains("it repeated its SYN"));
    }

    #[test]
    fn repetitions_that_were_not_seen_make_it_likely() {
        let mut h = half_open(Outcome::Established);
        h.facts.history_known = false;
        let got = judged(&h, Context::default());
        let due = (Some(VerdictKind::SlowPeer), Confidence::Likely);
        assert_eq!((got.verdict, got.confidence), due);
        let fact = &got.evidence[0].fact;
        assert!(fact.ends_with("was not seen"), "{fact}");
    }

    #[test]
    fn a_round_trip_far_over_the_usual_makes_it_likely() {
        let got = verdict_of(&took(400_000), usually(1_000));
        assert_eq!(got, (Some(VerdictKind::SlowPeer), Confidence::Likely));
    }

    #[test]
    fn a_peer_that_is_far_away_is_not_slow() {
        assert_eq!(verdict_of(&took(400_000), usually(350_000)).0, None);
        assert_eq!(verdict_of(&took(90_000), usually(1_000)).0, None);
        assert_eq!(
            verdict_of(&took(400_000), Context::default()).0,
            None,
            "nothing to compare with"
        );
    }

    #[test]
    fn it_is_not_defer_accept() {
        let mut h = took(1_500_000);
        h.facts.acked = true;
        h.facts.defer_accept = Some(true);
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::DeferAccept)
        );
    }
}
