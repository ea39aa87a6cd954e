//! No local port is left.

use crate::{
    model::{Handshake, Outcome, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict, enter_of},
};

/// `ports-exhausted`
pub(in crate::verdict) struct PortsExhausted;

impl Verdict for PortsExhausted {
    fn kind(&self) -> VerdictKind {
        VerdictKind::PortsExhausted
    }

    fn check(&self, h: &Handshake, _: &Context) -> Option<Finding> {
        let it = super::failed(h)
            && h.outcome == Outcome::Unreachable
            && h.facts.unbound
            && h.error.as_deref() == Some("EADDRNOTAVAIL");
        it.then(|| {
            Finding::certain()
                .accounts_for_outcome()
                .pro(format!(
                    "connect() failed after {} without a SYN: the kernel found no local port for {} \
                     (EADDRNOTAVAIL)",
                    super::took(h),
                    super::peer(h)
                ))
                .remedy(format!(
                    "{run}sysctl net.ipv4.ip_local_port_range net.ipv4.tcp_tw_reuse; {run}ss -tan dst {} | awk \
                     '{{print $1}}' | sort | uniq -c; widen the range where it is narrower: {run}sysctl -w \
                     net.ipv4.ip_local_port_range='10240 65535'; keep connections open (a pool), or give \
                     the client more source addresses",
                    super::peer(h),
                    run = enter_of(&h.connection)
                ))
        })
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "no local port is left for this destination: connect() fails at once",
            meaning: "Every port of net.ipv4.ip_local_port_range is taken for this pair of addresses and \
                      this destination port, mostly by connections in TIME_WAIT. Nothing was sent.",
            detection: "CLOSE→SYN_SENT→CLOSE within microseconds with no local port chosen: the only way \
                      for tcp_v4_connect() to fail before a port is chosen is \
                      inet_hash_connect(): certain.",
            remedy: "Fewer, longer connections; a wider range; more addresses.\n    sysctl \
                     net.ipv4.ip_local_port_range\n    ss -tan state time-wait dst <peer> | wc -l",
            reproduce: "synprobe lab ports-exhausted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    #[test]
    fn no_port_makes_it() {
        let mut h = active(Outcome::Unreachable);
        h.error = Some("EADDRNOTAVAIL".into());
        h.facts.unbound = true;
        assert_eq!(
            verdict_of(&h, Context::default()),
            (Some(VerdictKind::PortsExhausted), Confidence::Certain)
        );
    }

    #[test]
    fn another_error_or_a_port_that_was_chosen_is_not_it() {
        let mut h = active(Outcome::Unreachable);
        h.error = Some("EADDRNOTAVAIL".into());
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Unreachable)
        );
        h.error = Some("EHOSTUNREACH".into());
        h.facts.unbound = true;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Unreachable)
        );
    }
}
