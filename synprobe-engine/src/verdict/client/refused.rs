//! RST in answer to our SYN.

use crate::{
    model::{Confidence, Handshake, Outcome, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict, who_listens},
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
        // Where this host's own drops are not seen, a rule of its own that rejects looks the same.
        let unseen = (!context.sees_drops || context.losses.of_drops(h)).then(|| {
            let why = match context.sees_drops {
                true => "drop records were lost",
                false => "this kernel does not report the packets that it drops",
            };
            format!("{why}: a REJECT rule of this host itself cannot be excluded")
        });
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
        let no_socket = context.found_no_socket(h);
        finding = finding.maybe_pro(no_socket.map(|syn| {
            format!(
                "its SYN came to {} in namespace {} of this host and found no listening socket (NO_SOCKET): the kernel \
                 answered with the RST",
                syn.local,
                context.name_of(syn.netns)
            )
        }));
        finding = match context.called_listener(&h.connection) {
            Some(l) if l.closed_ns.is_some() => finding.pro(l.how_closed()),
            // `[::]` serves IPv4 too, unless IPV6_V6ONLY is set.
            Some(l) if l.last.local_addr.is_ipv6() && h.connection.peer_addr.is_ipv4() => finding
                .pro(format!(
                    "{} listens on this host: with IPV6_V6ONLY it does not serve IPv4",
                    l.name()
                )),
            Some(l) => finding.contra(format!(
                "a listener is on this host at that address: {}; one that is bound to another device, a BPF program \
                 that chooses no socket, or one that was opened since, gives such a RST",
                l.name()
            )),
            None => finding.maybe_pro(context.listener_elsewhere(&h.connection).map(|l| {
                format!(
                    "this host has that address, and {} listens on the port: it is bound to another address",
                    l.name()
                )
            })),
        };
        if unseen.is_some() {
            finding.confidence = Confidence::Likely;
        }
        finding = finding.maybe_contra(unseen);
        if let Some(syn) = no_socket {
            return Some(finding.remedy(format!(
                "see who listens, and on which address: {}",
                context.each_in(syn.netns, &who_listens(syn.local.port()))
            )));
        }
        let port = h.connection.peer_port.unwrap_or(0);
        let peer = super::peer(h);
        Some(finding.remedy(format!(
            "on the peer, see whether anything listens on that very address: ss -ltn 'sport = :{port}'; else a \
             firewall answers with RST for {peer}"
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "RST in answer to our SYN: nothing listens there, or a firewall rejects it",
            meaning: "The peer's host, or a device in its name, refused the connection at once. Mostly \
                      nothing listens on that port and address (a service that is down, or bound to \
                      another address), sometimes a firewall that rejects with RST. At a server: SYNs came \
                      for which this host has no listening socket.",
            detection: "tcp:tcp_receive_reset on a socket in SYN_SENT, then ECONNREFUSED, and no SYN of it dropped by this \
                      host (Linux 5.17; else likely): certain. A RST to SYNs that this host dropped is its \
                      own, and reported as dropped-here. An ICMP \
                      port-unreachable gives the same errno without a RST and is reported as unreachable. At a server: \
                      skb:kfree_skb of a SYN with NO_SOCKET (Linux 5.17), where the port was asked for, \
                      has a listener at another address or had one, or a peer called it three times; \
                      other ports are called by scans.",
            remedy: "On the host that was called, see who listens.\n    ss -ltnp",
            reproduce: "synprobe lab refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ListenCounters, Role},
        verdict::fixtures::*,
    };

    fn refused() -> Handshake {
        let mut h = active(Outcome::Refused);
        h.error = Some("ECONNREFUSED".into());
        h.facts.reset_seen = true;
        h
    }

    fn seeing_drops() -> Context {
        let mut context = Context::default();
        context.sees_drops = true;
        context
    }

    #[test]
    fn a_rst_makes_it() {
        assert_eq!(
            verdict_of(&refused(), seeing_drops()),
            (Some(VerdictKind::Refused), Confidence::Certain)
        );
    }

    #[test]
    fn a_listener_at_another_address_of_this_host_is_named() {
        let h = refused();
        let c = &h.connection;
        let here = || ListenCounters {
            netns: NETNS,
            ..ListenCounters::default()
        };
        let said = |at: &str, closes: bool| {
            let mut context = seeing_drops();
            context.has_addresses(c.netns, vec![c.peer_addr]);
            let mut there = listener(0, 0);
            there.local_addr = at.parse().unwrap();
            there.local_port = c.peer_port.unwrap();
            context.sample(std::slice::from_ref(&there), &[here()]);
            if closes {
                context.sample_at((T0, T0 + 1), &[], &[here()]);
            }
            let found = judged(&h, context);
            assert_eq!(found.verdict, Some(VerdictKind::Refused));
            let mut facts = found.evidence.into_iter();
            let about = facts.find(|e| e.fact.contains("listen")).unwrap();
            (about.fact, about.supports)
        };
        let (fact, supports) = said("127.0.0.1", false);
        assert!(
            supports && fact.ends_with("it is bound to another address"),
            "{fact}"
        );
        let (fact, supports) = said("::", false);
        assert!(supports && fact.contains("IPV6_V6ONLY"), "{fact}");
        let (fact, supports) = said("0.0.0.0", true);
        assert!(
            supports && fact.contains("was closed in this run"),
            "{fact}"
        );
        let (fact, supports) = said("0.0.0.0", false);
        assert!(!supports && fact.contains("at that address"), "{fact}");
    }

    #[test]
    fn without_drop_records_a_rule_of_this_host_is_not_excluded() {
        let mut missed = seeing_drops();
        lose(&mut missed, 1, crate::model::Missed::Drops);
        for context in [Context::default(), missed] {
            let found = judged(&refused(), context);
            assert_eq!(found.verdict, Some(VerdictKind::Refused));
            assert_eq!(found.confidence, Confidence::Likely);
            assert!(
                found
                    .evidence
                    .iter()
                    .any(|e| e.fact.contains("REJECT rule"))
            );
        }
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
