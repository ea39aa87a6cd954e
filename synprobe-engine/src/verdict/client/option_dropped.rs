//! The first SYN is lost for an option that it has.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    util::format,
    verdict::{Context, Explanation, Finding, Verdict, context::SynOption, enter_of},
};

/// `option-dropped`
pub(in crate::verdict) struct OptionDropped;

/// Handshakes in a row whose first SYN was lost, with the option: fewer may be chance.
const ENOUGH: u64 = 3;
/// The same for Fast Open: after two the kernel itself goes without for a while (`tcp_fastopen_cache_get()`,
/// `syn_loss`).
const ENOUGH_FAST_OPEN: u64 = 2;

impl Verdict for OptionDropped {
    fn kind(&self) -> VerdictKind {
        VerdictKind::OptionDropped
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let c = &h.connection;
        if c.role != Role::Client || h.outcome != Outcome::Established || h.unanswered() == 0 {
            return None;
        }
        let option = SynOption::of(h)?;
        let seen = context.syn_options(c, option);
        // One that got through shows that the path takes the option.
        let enough = match option {
            SynOption::FastOpen => ENOUGH_FAST_OPEN,
            SynOption::Ecn => ENOUGH,
        };
        if seen.lost < enough || seen.passed > 0 {
            return None;
        }
        let mut finding = Finding::likely().pro(format!(
            "its first SYN {}, the repetition without it was answered{}",
            option.words(),
            match h.facts.since_last_syn_us {
                Some(us) => format!(" after {}", format::duration(us)),
                None => String::new(),
            }
        ));
        finding = finding
            .pro(format!(
                "so it was in each of {} handshakes with this end in which the first SYN {}; none is known in which \
                 such a SYN was answered",
                seen.lost,
                option.words()
            ))
            .contra("the path itself was not seen: which device drops such SYNs is not known");
        Some(finding.remedy(enter_of(&h.connection) + option.remedy()))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the path drops SYNs with an option: each first one is lost, the plain second one answered",
            meaning: "TCP Fast Open and ECN change the first SYN; its repetitions go without. A firewall that \
                      drops what it does not know lets only the second one pass: every connect takes a second \
                      more, though the path and the server are well.",
            detection: "The socket's own record of what its first SYN had (tcp_sock.syn_fastopen, ecn_flags), at \
                      the retransmission. In three handshakes with the same end, and none in which such a SYN was \
                      answered: likely. A single one may be chance: syn-lost-then-ok.",
            remedy: "Switch the option off, or mend the firewall.\n    sysctl -w net.ipv4.tcp_fastopen=0\n    \
                     sysctl -w net.ipv4.tcp_ecn=2",
            reproduce: "synprobe lab option-dropped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Confidence,
        verdict::fixtures::{active, judged, line, verdict_of},
    };

    fn second_syn(ecn: bool, fast_open: bool) -> Handshake {
        let mut h = active(Outcome::Established);
        (h.retransmits, h.dwell_us) = (1, Some(1_010_000));
        h.facts.since_last_syn_us = Some(300);
        h.facts.first_syn_had_ecn = ecn;
        h.facts.first_syn_had_fast_open = fast_open;
        h
    }

    /// After `n` such handshakes; the one that is judged is one more.
    fn after(n: usize, h: &Handshake) -> Context {
        let mut context = Context::default();
        (0..n).for_each(|_| context.note(&line(h.clone())));
        context
    }

    #[test]
    fn every_first_syn_lost_with_the_option_makes_it() {
        let h = second_syn(true, false);
        let got = judged(&h, after(2, &h));
        assert_eq!(
            (got.verdict, got.confidence),
            (Some(VerdictKind::OptionDropped), Confidence::Likely)
        );
        assert_eq!(got.remedy.as_deref(), Some("sysctl -w net.ipv4.tcp_ecn=2"));
        let h = second_syn(false, true);
        let got = judged(&h, after(1, &h));
        assert_eq!(
            got.remedy.as_deref(),
            Some("sysctl -w net.ipv4.tcp_fastopen=0")
        );
    }

    #[test]
    fn one_or_two_or_one_that_got_through_are_chance() {
        let h = second_syn(true, false);
        let got = judged(&h, after(1, &h));
        assert_eq!(got.verdict, Some(VerdictKind::SynLostThenOk));
        assert!(
            got.evidence
                .iter()
                .any(|e| e.fact.contains("asked for ECN"))
        );
        let mut context = after(4, &h);
        context.note(&line(active(Outcome::Established)));
        assert_eq!(verdict_of(&h, context).0, Some(VerdictKind::SynLostThenOk));
    }

    #[test]
    fn a_plain_first_syn_is_lost_for_another_reason() {
        let h = second_syn(false, false);
        assert_eq!(
            verdict_of(&h, after(5, &h)).0,
            Some(VerdictKind::SynLostThenOk)
        );
    }
}
