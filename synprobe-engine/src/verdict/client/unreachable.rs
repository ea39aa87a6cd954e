//! An ICMP error, or no route.

use crate::{
    model::{Handshake, Outcome, VerdictKind},
    verdict::{
        Context, Explanation, Finding, Verdict,
        context::{IcmpReport, OwnIcmp},
        dropped_here::is_of_a_router,
        enter_of,
    },
};

/// `unreachable`
pub(in crate::verdict) struct Unreachable;

/// What an error means that this host sent to itself.
fn own_words(own: OwnIcmp, h: &Handshake, context: &Context) -> Option<String> {
    let drops = context.drops_of_handshake(h);
    let neighbour = drops.iter().find(|d| d.is_of_neighbour());
    match (own, neighbour) {
        (OwnIcmp::LinkFailure, Some(drop)) => {
            Some(format!("this host sent the error itself: {}", drop.words))
        }
        (OwnIcmp::LinkFailure, None) => Some(
            "this host sent the error itself, as it does when the next hop does not answer ARP or neighbour \
             discovery"
                .to_owned(),
        ),
        (OwnIcmp::Rule, _) => Some(
            "this host sent the error itself, as a rule of its own packet filter that rejects does"
                .to_owned(),
        ),
        (OwnIcmp::Other, _) => Some("this host sent the error itself".to_owned()),
    }
}

/// Who sent them: `10.0.0.254, 10.6.6.6`
fn senders(words: &[&IcmpReport]) -> String {
    let from: Vec<_> = words.iter().map(|word| word.from.to_string()).collect();
    from.join(", ")
}

impl Verdict for Unreachable {
    fn kind(&self) -> VerdictKind {
        VerdictKind::Unreachable
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::failed(h) {
            return None;
        }
        let words = context.icmp(h);
        let word = context.only_icmp(h);
        // With the sequence number of its SYN, which only those know who have seen it.
        let in_window = h.facts.syn_seq.is_some() && words.iter().any(|word| word.seq.is_some());
        let ended_by_it = h.outcome == Outcome::Unreachable;
        // Noted, and not acted on by the kernel: it is still why nothing answered.
        let noted = h.facts.soft_error.as_deref().or(match h.outcome {
            Outcome::Abandoned => h.error.as_deref().filter(|e| *e != "ECONNABORTED"),
            _ => None,
        });
        if !ended_by_it && noted.is_none() && !in_window {
            return None;
        }
        let mut finding = if ended_by_it {
            Finding::certain().accounts_for_outcome().pro(format!(
                "{} after {}",
                h.error.as_deref().unwrap_or("an ICMP error"),
                super::took(h)
            ))
        } else {
            let came = match noted {
                Some(error) => format!("an ICMP error was noted for it: {error}"),
                None => "an ICMP error came for it".to_owned(),
            };
            let open = h.is_still_open();
            Finding::likely()
                .pro(came)
                .maybe_pro((!open && h.error.is_none()).then(|| super::closed_by(h)))
                .contra("the kernel did not end it for that")
        };
        finding = match word {
            Some(word) => finding.pro(format!(
                "ICMP from {}: {}, {}",
                word.from,
                word.what,
                crate::verdict::context::times(word.count)
            )),
            None if words.is_empty() => {
                finding.contra("the ICMP packet itself was not seen: who sent it is not known")
            }
            None => finding.contra(format!(
                "{} different ICMP errors came, and which of them the kernel acted on is not known: {}",
                words.len(),
                senders(&words)
            )),
        };
        let drops = context.drops_of_handshake(h);
        let router = drops.into_iter().find(|d| is_of_a_router(d, h));
        finding = finding.maybe_pro(router.map(|drop| context.fact_of_drop(drop, h)));
        let ask_router = router.map(|drop| format!("{}; ", context.remedy_of_drop(drop)));
        let peer = h.connection.peer_addr;
        let redirected = context.redirected_to(&h.connection);
        // NAT translates the source of an ICMP error too (`nf_nat_icmp_reply_translation()`).
        let translated = word.is_some_and(|word| redirected.is_some() && word.from == peer);
        finding = finding.maybe_pro(translated.then(|| {
            "NAT gives such an error the address that was called: who sent it is not known from it"
                .to_owned()
        }));
        let own = word
            .filter(|word| word.from == h.connection.local_addr)
            .map(IcmpReport::as_own);
        finding = finding.maybe_pro(own.and_then(|own| own_words(own, h, context)));
        let filter = word.filter(|word| own.is_none() && !translated && word.is_of_a_filter());
        finding = finding.maybe_pro(filter.map(|word| {
            let of = match word.from == h.connection.peer_addr {
                true => "the address that was called".to_owned(),
                false => format!("the router {}", word.from),
            };
            format!("a packet filter of {of} rejects: a closed port answers with RST")
        }));
        let run = enter_of(&h.connection);
        let real = redirected.map_or(peer, |to| to.ip());
        let port = redirected.map_or(h.connection.peer_port, |to| Some(to.port()));
        // The next hop of the real destination did not answer, in this namespace.
        let silent = context
            .drops_of_handshake(h)
            .into_iter()
            .find(|d| translated && d.netns == h.connection.netns && d.is_of_neighbour());
        finding = finding.maybe_pro(silent.map(|drop| context.fact_of_drop(drop, h)));
        let whom = match word {
            _ if own == Some(OwnIcmp::LinkFailure) || silent.is_some() => {
                format!("{run}ip neigh show {real}; ")
            }
            _ if own == Some(OwnIcmp::Rule) => {
                format!("{run}nft list ruleset; {run}iptables-save -c; {run}ip6tables-save -c; ")
            }
            _ if own.is_some() => String::new(),
            _ if ask_router.is_some() => ask_router.unwrap_or_default(),
            Some(word) if word.from != peer => format!("ask the router {}; ", word.from),
            _ => String::new(),
        };
        Some(finding.remedy(format!(
            "{whom}{run}ip route get {real}; {run}traceroute -T -p {} {real}",
            port.unwrap_or(0)
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "an ICMP error reports that the peer cannot be reached",
            meaning: "Somebody on the way answered the SYN with an ICMP error: host or network \
                      unreachable (it does not answer ARP, or there is no route), administratively \
                      prohibited (a firewall that rejects), port unreachable (a firewall's reject, or a \
                      host without TCP on that port).",
            detection: "sk_err at SYN_SENT→CLOSE without a RST: certain. The ICMP packet itself, from the \
                      agent's own raw socket (CAP_NET_RAW), says which error and who sent it. An error \
                      that the kernel noted (sk_err_soft) and did not act on, on a connection that failed: likely.",
            remedy: "Ask whoever sent it.\n    ip route get <peer>\n    traceroute -T -p <port> <peer>",
            reproduce: "synprobe lab unreachable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Confidence,
        verdict::{
            context::{Ends, IcmpReport},
            fixtures::*,
        },
    };

    fn word() -> IcmpReport {
        IcmpReport {
            from: "10.0.0.254".parse().unwrap(),
            what: "host unreachable (type 3 code 1)".into(),
            count: 1,
            netns: Some(NETNS),
            seq: Some(77),
            last_ns: Some(T0 + SEC),
            local_port: 40_000,
        }
    }

    #[test]
    fn a_forged_error_neither_makes_it_nor_names_the_sender() {
        let forged = IcmpReport {
            from: "10.6.6.6".parse().unwrap(),
            seq: Some(78_000),
            ..word()
        };
        let both = |h: &Handshake| {
            let mut context = Context::default();
            for word in [word(), forged.clone()] {
                context.note_icmp(Ends::of(&h.connection).unwrap(), word);
            }
            context
        };
        // The kernel acted on one of them, and the SYN was sent once: its number is not known.
        let got = judged(&unreachable(), both(&unreachable()));
        assert!(got.evidence[1].fact.starts_with("2 different ICMP errors"));
        assert!(!got.evidence[1].supports);
        let mut h = unreachable();
        h.facts.syn_seq = Some(77);
        let got = judged(&h, both(&h));
        assert!(got.evidence[1].fact.starts_with("ICMP from 10.0.0.254"));
        // It acted on none: the error was about something else.
        let mut h = active(Outcome::TimedOut);
        (h.facts.syn_seq, h.retransmits) = (Some(5), 3);
        let got = judged(&h, both(&h));
        assert_eq!(got.verdict, Some(VerdictKind::Filtered));
        let said = |e: &crate::model::Evidence| e.fact.contains("the kernel ignored it");
        assert!(got.evidence.iter().any(said), "{got:?}");
        h.facts.syn_seq = None;
        assert_eq!(judged(&h, both(&h)).verdict, Some(VerdictKind::Filtered));
    }

    fn unreachable() -> Handshake {
        let mut h = active(Outcome::Unreachable);
        h.error = Some("EHOSTUNREACH".into());
        h
    }

    #[test]
    fn the_neighbour_that_a_router_of_this_host_asked_in_vain_is_named() {
        let mut h = unreachable();
        h.facts.syn_seq = Some(5);
        let mut context = Context::default();
        context.note_icmp(Ends::of(&h.connection).unwrap(), word());
        let mut drop = discard(&h, crate::verdict::context::Packet::Syn, 1);
        drop.netns = NETNS + 1;
        // After DNAT.
        drop.to = "10.0.7.7:5432".parse().unwrap();
        drop.reason = "NEIGH_FAILED".into();
        drop.words = "the next hop does not answer ARP or neighbour discovery".into();
        drop.remedy = "ip neighbour show 10.0.7.7".into();
        (drop.syn_seq, drop.incoming) = (Some(5), true);
        context.note_drop(drop);
        let got = judged(&h, context);
        assert_eq!(got.verdict, Some(VerdictKind::Unreachable));
        let named =
            |e: &crate::model::Evidence| e.fact.contains("10.0.7.7") && e.fact.contains("ARP");
        assert!(got.evidence.iter().any(named), "{:#?}", got.evidence);
        assert!(got.remedy.unwrap().contains("ip neighbour"));
    }

    #[test]
    fn the_error_makes_it_and_the_packet_says_who() {
        let mut context = Context::default();
        let word = IcmpReport {
            from: "10.0.0.254".parse().unwrap(),
            what: "host unreachable (type 3 code 1)".into(),
            ..word()
        };
        context.note_icmp(Ends::of(&unreachable().connection).unwrap(), word);
        let judgement = judged(&unreachable(), context);
        assert_eq!(judgement.verdict, Some(VerdictKind::Unreachable));
        assert_eq!(judgement.confidence, Confidence::Certain);
        assert_eq!(
            judgement.evidence[1].fact,
            "ICMP from 10.0.0.254: host unreachable (type 3 code 1), once"
        );
    }

    #[test]
    fn a_port_unreachable_is_a_packet_filters() {
        let h = unreachable();
        for (from, whose) in [
            ("10.0.0.9", "the address that was called"),
            ("10.0.0.254", "router"),
        ] {
            let mut context = Context::default();
            let word = IcmpReport {
                from: from.parse().unwrap(),
                what: "port unreachable (type 3 code 3)".into(),
                ..word()
            };
            context.note_icmp(Ends::of(&h.connection).unwrap(), word);
            let judgement = judged(&h, context);
            assert!(judgement.evidence[2].fact.contains(whose), "{judgement:?}");
        }
    }

    #[test]
    fn type_and_code_decide_what_an_error_of_this_host_means() {
        for (what, words, command) in [
            ("host unreachable (type 3 code 1)", "next hop", "ip neigh"),
            (
                "port unreachable (type 3 code 3)",
                "packet filter",
                "nft list",
            ),
            (
                "administratively prohibited (type 1 code 1)",
                "packet filter",
                "nft list",
            ),
            (
                "time exceeded (a routing loop, or too far) (type 11 code 0)",
                "itself",
                "ip route",
            ),
        ] {
            let h = unreachable();
            let mut context = Context::default();
            let word = IcmpReport {
                from: h.connection.local_addr,
                what: what.into(),
                ..word()
            };
            context.note_icmp(Ends::of(&h.connection).unwrap(), word);
            let judgement = judged(&h, context);
            assert!(judgement.evidence[2].fact.contains(words), "{judgement:?}");
            assert!(judgement.remedy.unwrap().starts_with(command), "{what}");
        }
    }

    #[test]
    fn an_impatient_application_that_was_told_is_likely() {
        let mut h = active(Outcome::Abandoned);
        h.error = Some("EHOSTUNREACH".into());
        h.facts.soft_error = Some("EHOSTUNREACH".into());
        assert_eq!(
            verdict_of(&h, Context::default()),
            (Some(VerdictKind::Unreachable), Confidence::Likely)
        );
    }

    #[test]
    fn silence_and_a_lack_of_ports_are_not_it() {
        let h = active(Outcome::TimedOut);
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Filtered)
        );
        let mut h = active(Outcome::Unreachable);
        h.error = Some("EADDRNOTAVAIL".into());
        h.facts.unbound = true;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::PortsExhausted)
        );
    }
}
