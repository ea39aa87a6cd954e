//! The SYN came to one address and the SYN-ACK leaves from another.

use crate::{
    model::{Handshake, Outcome, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict, enter_of, tcp_flags},
};

/// `asymmetric-nat`
pub(in crate::verdict) struct AsymmetricNat;

impl Verdict for AsymmetricNat {
    fn kind(&self) -> VerdictKind {
        VerdictKind::AsymmetricNat
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::unfinished(h) || h.facts.acked {
            return None;
        }
        let asymmetric = context.asymmetric_path(&h.connection);
        let resets = if h.outcome == Outcome::Reset {
            context.resets(h)
        } else {
            0
        };
        let repeats = h.repeated_syns() > 0;
        let mut finding = Finding::likely();
        match (&asymmetric, resets) {
            // The peer's kernel refuses what our SYN-ACK says, and still wants the connection.
            (_, 2..) => {
                finding = finding.pro(format!(
                    "the same port of the peer repeated its SYN after its host had answered our SYN-ACK \
                     with RST: {resets} half-opens of these two ends were reset"
                ));
            }
            (Some(_), _) if repeats => {
                finding = finding.pro(format!(
                    "the peer repeated its SYN {}: it is alive, and it does not get our SYN-ACK or does not recognise it",
                    crate::verdict::times(h.repeated_syns())
                ));
            }
            _ => {
                // A stateful device on one of the two ways sees only half of the handshake.
                let elsewhere = context.answers_elsewhere(&h.connection);
                // Forged sources have any route.
                let flood = super::SynFlood.check(h, context).is_some();
                if h.retransmits == 0 || flood || context.accepted_before(&h.connection) {
                    return None;
                }
                finding = finding.pro(elsewhere?).pro(format!(
                    "the SYN-ACK was sent {}, and nothing has completed the half-open",
                    crate::verdict::times(h.retransmits.saturating_add(1))
                ));
                return Some(
                    finding
                        .by_absence()
                        .contra("by which device its SYN came was not seen")
                        .contra(
                            "a scanner, or a peer that has died, looks the same; what the peer gets cannot \
                             be seen from this host alone",
                        )
                        .remedy(context.show_way_back(&h.connection)),
                );
            }
        }
        let symmetric = asymmetric.is_none();
        finding = finding.maybe_pro(asymmetric);
        if symmetric {
            finding = finding
                .contra("no difference between the way in and the way back was seen here")
                .contra(
                    "a device on the path that changes sequence numbers or timestamps makes the peer refuse our \
                     SYN-ACK too",
                );
        }
        let mut entry = String::new();
        if context.may_be_a_wrong_neighbour(&h.connection) {
            finding = finding.contra(
                "an entry for the peer in the neighbour table that is old or wrong looks the same (a static one, or an \
                 address that has moved)",
            );
            entry = format!(
                "; see the entry, and delete it where the peer has the other address: {}ip neighbour show {}",
                enter_of(&h.connection),
                h.connection.peer_addr
            );
        }
        Some(
            finding
                .contra("what the peer gets cannot be seen from this host alone")
                .remedy(format!(
                    "see whether its SYNs come that way: {}{entry}; where a router does DNAT, it needs SNAT too, or this host \
                     needs it as its gateway; on the peer, see from which address the SYN-ACK comes: tcpdump -ni any \
                     'tcp and {} & tcp-syn != 0'",
                    context.show_way_back(&h.connection),
                    tcp_flags(h.connection.peer_addr)
                )),
        )
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the SYN came by another way than the answer goes: NAT, or a firewall, in one direction only",
            meaning: "The peer called an address that something on the way translated (DNAT, a load \
                      balancer), and this host answers past it: the SYN-ACK reaches the peer from an \
                      address that it never called, or a stateful device that has not seen the SYN. The \
                      peer resets or ignores it and repeats its SYN. Without NAT, a stateful firewall on one \
                      of the two ways sees the SYN and the ACK and never the SYN-ACK: it drops the ACK as \
                      INVALID.",
            detection: "The peer's repeated SYNs come from another neighbour (Ethernet address) or \
                      interface than the one that the route back leads to; or the same port of the peer \
                      sends its SYN again after a RST, which neither a spoofed victim nor a stale port \
                      does. Or the route to a silent peer leaves by another device than the one that has the called \
                      address (then the SYN's own device was not seen). Likely at the most: what the peer \
                      gets cannot be seen here. The neighbour \
                      is known from Linux 6.11 on, on Ethernet.",
            remedy: "Make both directions take the same way: SNAT beside DNAT, or the router as the \
                     gateway for these peers.\n    ip route get <peer>\n    ip neigh",
            reproduce: "synprobe lab dnat-without-snat\nsynprobe lab incident-asymmetric-nat",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Confidence,
        model::{Body, Hop, PathQuestion, ReturnPath, RouteAnswer, SocketDump},
        verdict::{Judge, Mode, fixtures::*},
    };

    const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn path(h: &Handshake, back: [u8; 6]) -> Context {
        let mut context = Context::default();
        let c = &h.connection;
        context.note_syn_path(c.netns, c.peer_addr, c.local_addr, (2, ROUTER), T0);
        let wanted: Vec<PathQuestion> = context.wanted_paths();
        assert_eq!(wanted.len(), 1);
        assert!(context.wanted_paths().is_empty(), "asked for once");
        let back = ReturnPath {
            ifindex: 2,
            interface: "eth0".into(),
            gateway: None,
            mac: Some(back),
        };
        context.path(&wanted[0], back);
        context
    }

    fn repeating() -> Handshake {
        let mut h = half_open(Outcome::Open);
        h.retransmits_by_peer = 2;
        h
    }

    #[test]
    fn an_asymmetric_path_and_repeated_syns_make_it() {
        let judgement = judged(&repeating(), path(&repeating(), PEER));
        assert_eq!(judgement.verdict, Some(VerdictKind::AsymmetricNat));
        assert_eq!(judgement.confidence, Confidence::Likely);
        assert!(
            judgement.evidence[1].fact.contains("02:00:00:00:00:09"),
            "{judgement:?}"
        );
    }

    #[test]
    fn a_wrong_neighbour_entry_is_named_where_the_peer_is_on_the_link() {
        let j = judged(&repeating(), path(&repeating(), PEER));
        let said = |what: &str| {
            j.evidence
                .iter()
                .any(|e| !e.supports && e.fact.contains(what))
        };
        assert!(said("neighbour table that is old or wrong"), "{j:#?}");
        let remedy = j.remedy.unwrap();
        assert!(
            remedy.contains("ip neighbour show 10.0.0.9; where a router"),
            "{remedy}"
        );
    }

    #[test]
    fn a_straight_path_is_synack_lost() {
        let (verdict, _) = verdict_of(&repeating(), path(&repeating(), ROUTER));
        assert_eq!(verdict, Some(VerdictKind::SynackLost));
    }

    #[test]
    fn an_asymmetric_path_alone_is_nothing() {
        let silent = half_open(Outcome::Expired);
        let (verdict, _) = verdict_of(&silent, path(&silent, PEER));
        assert_eq!(verdict, Some(VerdictKind::PeerSilent));
    }

    #[test]
    fn one_reset_is_the_peers_a_second_one_of_the_same_port_is_not() {
        let mut h = half_open(Outcome::Reset);
        h.facts.reset_seen = true;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::PeerReset)
        );
        let twice = |earlier_ns| {
            let mut first = h.clone();
            first.facts.ended_ns -= earlier_ns;
            let mut context = Context::default();
            context.note(&line(first));
            verdict_of(&h, context)
        };
        let due = (Some(VerdictKind::AsymmetricNat), Confidence::Likely);
        assert_eq!(twice(SEC), due);
        // A port that is used again is no repeated SYN.
        assert_eq!(twice(600 * SEC).0, Some(VerdictKind::PeerReset));
    }

    #[test]
    fn a_gateway_that_has_another_address_now_is_looked_up_anew() {
        const NEW: [u8; 6] = [2, 0, 0, 0, 0, 7];
        let h = repeating();
        let c = &h.connection;
        let mut context = path(&h, ROUTER);
        assert_eq!(
            verdict_of(&h, path(&h, ROUTER)).0,
            Some(VerdictKind::SynackLost)
        );
        context.note_syn_path(c.netns, c.peer_addr, c.local_addr, (2, NEW), T0 + SEC);
        let wanted = context.wanted_paths();
        assert_eq!(
            wanted.len(),
            1,
            "the SYN comes from another neighbour than before"
        );
        let back = ReturnPath {
            ifindex: 2,
            interface: "eth0".into(),
            gateway: None,
            mac: Some(NEW),
        };
        context.path(&wanted[0], back);
        assert_eq!(verdict_of(&h, context).0, Some(VerdictKind::SynackLost));
        // A look-up that is old says so.
        let mut context = path(&h, PEER);
        context.note_syn_path(
            c.netns,
            c.peer_addr,
            c.local_addr,
            (2, ROUTER),
            T0 + 99 * SEC,
        );
        assert_eq!(context.wanted_paths().len(), 1, "it is old");
        let said = context.asymmetric_path(c).unwrap();
        assert!(
            said.ends_with("as looked up 99 s before its last SYN"),
            "{said}"
        );
    }

    /// The called address is one of `device`; the answers leave by eth0.
    fn answering(h: &Handshake, device: &str) -> Context {
        let mut context = Context::default();
        // The event of its repeated SYN-ACK did not come; a dump shows it.
        context.repeats(&SocketDump {
            rows: vec![repeated_once(&h.connection)],
            ..SocketDump::default()
        });
        let wanted = context.wanted_routes();
        assert_eq!(wanted.len(), 1);
        let back = Hop {
            ifindex: 2,
            interface: "eth0".into(),
            gateway: None,
        };
        let answer = RouteAnswer {
            is_local: Some(true),
            address_of: Some(device.into()),
            back: Some(back),
            ..RouteAnswer::default()
        };
        context.route(wanted[0], answer);
        context
    }

    #[test]
    fn a_silent_peer_is_answered_by_another_device_than_its_address_has() {
        let silent = half_open(Outcome::Expired);
        let judgement = judged(&silent, answering(&silent, "dmz"));
        assert_eq!(judgement.verdict, Some(VerdictKind::AsymmetricNat));
        assert_eq!(judgement.confidence, Confidence::Likely);
        assert_eq!(
            judgement.remedy.as_deref(),
            Some("ip route get 10.0.0.9 from 10.0.0.1")
        );
        // Its SYN to another address, which has another device, says nothing of this one.
        let c = &silent.connection;
        let seen_to = |to: &str| {
            let mut context = answering(&silent, "dmz");
            let to = to.parse().unwrap();
            context.note_syn_path(c.netns, c.peer_addr, to, (2, ROUTER), T0);
            verdict_of(&silent, context).0
        };
        assert_eq!(seen_to("10.0.0.77"), Some(VerdictKind::AsymmetricNat));
        assert_eq!(seen_to("10.0.0.1"), Some(VerdictKind::PeerSilent));
        for device in ["eth0", "lo", "dummy0"] {
            let (verdict, _) = verdict_of(&silent, answering(&silent, device));
            assert_eq!(verdict, Some(VerdictKind::PeerSilent), "{device}");
        }
    }

    #[test]
    fn a_verdict_that_is_given_before_the_way_back_is_known_says_so() {
        let says = |h: &Handshake| {
            let facts = h.evidence.iter();
            let mut of = facts.filter(|e| !e.supports).map(|e| e.fact.as_str());
            of.any(|fact| fact.starts_with("by which way the answers leave was not known when"))
        };
        // A silent peer, whose answers' route is asked for.
        let silent = half_open(Outcome::Expired);
        let c = &silent.connection;
        let mut context = Context::default();
        context.repeats_syn_ack(&repeated_once(c).tuple);
        let judgement = judged(&silent, context);
        assert_eq!(judgement.verdict, Some(VerdictKind::PeerSilent));
        assert!(says(&judgement), "{judgement:#?}");
        assert!(!says(&judged(&silent, answering(&silent, "eth0"))));
        // A peer that repeats its SYN, and that is known to be alive.
        let mut context = Context::default();
        let mut fine = half_open(Outcome::Established);
        (fine.connection.peer_port, fine.retransmits) = (Some(1), 0);
        context.note(&line(fine));
        let repeating = repeating();
        context.note_syn_path(c.netns, c.peer_addr, c.local_addr, (2, ROUTER), T0);
        let wanted = context.wanted_paths();
        let mut judge = Judge::new(Mode::AtOnce, context);
        let judge_it = |judge: &mut Judge| {
            let lines = judge.pass(vec![line(repeating.clone())]);
            match lines.into_iter().next().map(|line| line.body) {
                Some(Body::Handshake(h)) => *h,
                other => panic!("{other:?}"),
            }
        };
        let early = judge_it(&mut judge);
        let due = (Some(VerdictKind::SynackLost), Confidence::Likely);
        assert_eq!((early.verdict, early.confidence), due);
        assert!(says(&early));
        let back = ReturnPath {
            ifindex: 2,
            interface: "eth0".into(),
            gateway: None,
            mac: Some(ROUTER),
        };
        judge.context.path(&wanted[0], back);
        let late = judge_it(&mut judge);
        let due = (Some(VerdictKind::SynackLost), Confidence::Certain);
        assert_eq!((late.verdict, late.confidence), due);
        assert!(!says(&late));
    }

    #[test]
    fn a_peer_that_got_through_before_is_not_on_an_asymmetric_path() {
        let silent = half_open(Outcome::Expired);
        let mut context = answering(&silent, "dmz");
        for _ in 0..9 {
            let mut fine = half_open(Outcome::Established);
            (fine.retransmits, fine.dwell_us) = (0, Some(20_000));
            context.note(&line(fine));
        }
        let (verdict, _) = verdict_of(&silent, context);
        assert_ne!(verdict, Some(VerdictKind::AsymmetricNat));
    }
}
