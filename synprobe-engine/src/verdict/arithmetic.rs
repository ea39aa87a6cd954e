//! The check that every verdict passes through: `certain` needs numbers that add up.

use super::Finding;
use crate::model::{Confidence, Handshake, Outcome, Role};

/// How much of a handshake the evidence of a [`Finding`] accounts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accounted {
    /// It does not show what became of the SYNs or SYN-ACKs. Such a finding is never certain.
    #[default]
    Nothing,
    /// It accounts for this many of this host's SYNs or SYN-ACKs.
    Transmissions(u64),
    /// It shows the event that decided the outcome: a RST, an ICMP error, the final ACK, an error of connect().
    Outcome,
}

/// This host's SYNs (client) or SYN-ACKs (server) that got no useful answer. In a handshake that completed,
/// one of them did.
fn unanswered(h: &Handshake) -> u64 {
    let answered = u64::from(h.outcome == Outcome::Established);
    u64::from(h.retransmits) + 1 - answered
}

/// Makes a certain finding likely where its numbers do not add up, and states the difference.
pub(super) fn add_up(h: &Handshake, mut finding: Finding) -> Finding {
    if finding.confidence != Confidence::Certain {
        return finding;
    }
    match finding.accounted {
        Accounted::Outcome => finding,
        Accounted::Nothing => {
            finding.confidence = Confidence::Likely;
            finding
        }
        Accounted::Transmissions(known) => {
            let sent = unanswered(h);
            if known >= sent {
                return finding;
            }
            let what = match h.connection.role {
                Role::Client => "SYNs",
                Role::Server => "SYN-ACKs",
            };
            finding.confidence = Confidence::Likely;
            finding.contra(format!(
                "this accounts for {known} of {sent} {what} without a useful answer"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::fixtures::*;

    fn sure(h: &Handshake, accounted: Accounted) -> Finding {
        let mut finding = Finding::certain();
        finding.accounted = accounted;
        add_up(h, finding)
    }

    #[test]
    fn one_drop_does_not_explain_21_syns() {
        let mut h = active(Outcome::TimedOut);
        h.retransmits = 20;
        let finding = sure(&h, Accounted::Transmissions(1));
        assert_eq!(finding.confidence, Confidence::Likely);
        assert_eq!(
            finding.evidence.last().unwrap().fact,
            "this accounts for 1 of 21 SYNs without a useful answer"
        );
        let finding = sure(&h, Accounted::Transmissions(21));
        assert_eq!(finding.confidence, Confidence::Certain);
        assert!(finding.evidence.is_empty());
    }

    #[test]
    fn the_transmission_that_was_answered_needs_no_explanation() {
        let mut h = half_open(Outcome::Established);
        h.retransmits = 2;
        for (known, confidence) in [(2, Confidence::Certain), (1, Confidence::Likely)] {
            let finding = sure(&h, Accounted::Transmissions(known));
            assert_eq!(finding.confidence, confidence, "{known}");
        }
    }

    #[test]
    fn a_verdict_that_accounts_for_nothing_is_never_certain() {
        let h = active(Outcome::Refused);
        assert_eq!(sure(&h, Accounted::Nothing).confidence, Confidence::Likely);
        assert_eq!(sure(&h, Accounted::Outcome).confidence, Confidence::Certain);
    }
}
