//! RST in answer to our SYN.

use crate::{
    model::{Handshake, Outcome, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict},
};

/// `refused`
pub(in crate::verdict) struct Refused;

impl Verdict for Refused {
    fn kind(&self) -> VerdictKind {
        VerdictKind::Refused
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::failed(h) || h.outcome != Outcome::Refused {
            return None;
        }
        let error = h.error.as_deref().unwrap_or("ECONNREFUSED");
        let mut finding = if h.facts.reset_seen {
            Finding::certain()
                .accounts_for_outcome()
                .pro(format!("RST after {}: {error}", super::took(h)))
        } else {
            Finding::likely()
                .pro(format!("{error} after {}", super::took(h)))
                .contra("the RST itself was not seen: an ICMP port-unreachable would give the same error")
        };
        finding = finding.maybe_contra(
            context
                .called_listener(&h.connection)
                .map(|l| format!("a listener is on this host at that address: {}", l.name())),
        );
        let port = h.connection.peer_port.unwrap_or(0);
        let peer = super::peer(h);
        Some(finding.remedy(format!(
            "on the peer: ss -ltn 'sport = :{port}' (does anything listen on that very address?); else a \
             firewall answers with RST for {peer}"
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "RST in answer to our SYN: nothing listens there, or a firewall rejects it",
            meaning: "The peer's host, or a device in its name, refused the connection at once. Mostly \
                      nothing listens on that port and address (a service that is down, or bound to \
                      another address), sometimes a firewall that rejects with RST.",
            detection: "tcp:tcp_receive_reset on a socket in SYN_SENT, then ECONNREFUSED: certain. An ICMP \
                      port-unreachable gives the same errno without a RST and is reported as unreachable.",
            remedy: "On the peer, see who listens.\n    ss -ltnp",
            reproduce: "synprobe lab refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Role},
        verdict::fixtures::*,
    };

    fn refused() -> Handshake {
        let mut h = active(Outcome::Refused);
        h.error = Some("ECONNREFUSED".into());
        h.facts.reset_seen = true;
        h
    }

    #[test]
    fn a_rst_makes_it() {
        assert_eq!(
            verdict_of(&refused(), Context::default()),
            (Some(VerdictKind::Refused), Confidence::Certain)
        );
    }

    #[test]
    fn an_icmp_port_unreachable_is_not_it() {
        let mut h = active(Outcome::Unreachable);
        h.error = Some("ECONNREFUSED".into());
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Unreachable)
        );
    }

    #[test]
    fn a_half_open_that_was_reset_is_not_it() {
        let h = half_open(Outcome::Reset);
        assert_eq!(h.connection.role, Role::Server);
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::PeerReset)
        );
    }
}
