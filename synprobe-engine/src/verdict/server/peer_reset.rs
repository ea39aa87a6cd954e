//! RST in answer to our SYN-ACK.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict},
};

/// `peer-reset`
pub(in crate::verdict) struct PeerReset;

/// Ports without a listener that one peer calls, from which it looks like a port scan.
const SCANNED: u64 = 5;

impl Verdict for PeerReset {
    fn kind(&self) -> VerdictKind {
        VerdictKind::PeerReset
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if h.connection.role != Role::Server || h.outcome != Outcome::Reset {
            return None;
        }
        let finding = if h.facts.reset_seen {
            Finding::certain()
                .accounts_for_outcome()
                .pro("a RST in the peer's name was seen, and the half-open was gone with it")
        } else if h.facts.reset_untold {
            Finding::likely()
                .pro("a RST came for the half-open, and EmbryonicRsts had risen")
                .contra(
                    "whether this RST fitted the window is not seen: before Linux 6.15 the kernel does not tell what \
                     a half-open makes of one",
                )
        } else {
            Finding::likely()
                .pro("it was gone before its schedule ended, and EmbryonicRsts had risen")
        };
        let port_stats = context.port_stats(&h.connection);
        let finding = finding.maybe_contra(port_stats.filter(|c| c.returned() > 0).map(|_| {
            "some of the peers that reset or stayed silent have also completed handshakes: not all are spoofed"
                .to_owned()
        }));
        let c = &h.connection;
        let in_vain = context.called_in_vain(c.netns, c.peer_addr);
        let finding = finding.maybe_pro((in_vain >= SCANNED).then(|| {
            format!(
                "{} also called {in_vain} ports here where nothing listens: a port scan",
                c.peer_addr
            )
        }));
        let finding = finding.contra(
            "why it was reset cannot be seen from here: a client that gave up before the SYN-ACK came, a port scan (SYN, \
             then RST), a forged address, NAT, and a device on the path that sends RSTs look the same",
        );
        let peer = h.connection.peer_addr;
        Some(finding.remedy(format!(
            "nothing on this host; ask whoever has {peer} whether it sent the SYN: if not, its address is \
             forged (a reflection attack); if it did, see whether its connect time-out is shorter than the round \
             trip; else look for NAT between the two"
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the peer answered our SYN-ACK with RST",
            meaning: "Somebody sent a SYN in the peer's name, and the peer's kernel knows nothing of it: \
                      its address is forged (it is the victim of a reflection), the application has \
                      closed its socket meanwhile (a stale port, an impatient client), or a NAT answers \
                      from another address. One RST does not show which; a peer that goes on sending its \
                      SYN does (asymmetric-nat).",
            detection: "The RST itself, seen when the kernel drops it at the half-open, with the reason of one \
                      that fitted the window (Linux 6.15): certain. One that did not is ignored, as the kernel \
                      ignores it. From 6.11 to 6.14 the two look alike: likely. Where it cannot be seen: the half-open is gone from sock_diag before \
                      its time and the namespace's EmbryonicRsts rose: likely.",
            remedy: "Nothing on this host. For many at once, from many addresses: rate-limit SYNs before \
                     they reach it.",
            reproduce: "synprobe lab half-open-reset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    #[test]
    fn the_rst_itself_is_certain_the_counter_is_likely() {
        let mut h = half_open(Outcome::Reset);
        assert_eq!(
            verdict_of(&h, Context::default()),
            (Some(VerdictKind::PeerReset), Confidence::Likely)
        );
        h.facts.reset_seen = true;
        assert_eq!(
            verdict_of(&h, Context::default()),
            (Some(VerdictKind::PeerReset), Confidence::Certain)
        );
    }

    #[test]
    fn one_that_may_have_missed_the_window_is_likely() {
        let mut h = half_open(Outcome::Reset);
        h.facts.reset_untold = true;
        let got = judged(&h, Context::default());
        let due = (Some(VerdictKind::PeerReset), Confidence::Likely);
        assert_eq!((got.verdict, got.confidence), due);
        assert!(
            got.evidence
                .iter()
                .any(|e| !e.supports && e.fact.contains("6.15"))
        );
    }

    #[test]
    fn an_expiry_is_not_it() {
        let h = half_open(Outcome::Expired);
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::PeerSilent)
        );
    }

    #[test]
    fn a_client_that_was_refused_is_not_it() {
        let mut h = active(Outcome::Refused);
        h.facts.reset_seen = true;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Refused)
        );
    }
}
