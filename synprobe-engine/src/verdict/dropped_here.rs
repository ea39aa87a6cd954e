//! This host dropped the packet itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    Context, CounterRise, Explanation, Finding, Verdict,
    context::{DropIsOf, DroppedPacket, Packet, SynOption, connections as counted},
    enter_of,
    parts::no_address::{NOBODYS, deliver, is_of_no_address, no_address},
    server::ListenerClosed,
};
use crate::model::{Confidence, Evidence, Handshake, Outcome, Role, VerdictKind};

/// Routes that the sum of many handshakes quotes.
const ROUTES: usize = 4;

/// Whether a router dropped it for want of a route or a neighbour, or by a route of type prohibit (`ip_error()`), in
/// another namespace of this host. It answers with an ICMP error, which is the client's evidence.
pub(super) fn is_of_a_router(d: &DroppedPacket, h: &Handshake) -> bool {
    let no_route = NOBODYS.contains(&&*d.reason) || d.place.as_deref() == Some("ip_error");
    d.netns != h.connection.netns && (no_route || d.is_of_neighbour())
}

/// Whether a RST of the peer ended a half-open, and the packet has only its addresses and ports: whoever has a
/// namespace can drop such packets.
fn is_beside_a_reset(d: &DroppedPacket, h: &Handshake) -> bool {
    let was_reset = h.outcome == Outcome::Reset && h.facts.reset_seen;
    was_reset && d.netns != h.connection.netns && d.is_of(h) != DropIsOf::This
}

/// Packets of a handshake that this host dropped, and that held it up.
fn decisive<'s>(h: &Handshake, context: &'s Context) -> Vec<&'s DroppedPacket> {
    let answered = h.outcome == Outcome::Unreachable;
    context
        .drops_of_handshake(h)
        .into_iter()
        // A dropped RST holds nothing up, nor does a dropped repetition of a SYN whose half-open exists.
        .filter(|d| d.packet != Packet::Rst)
        .filter(|d| !(h.connection.role == Role::Server && d.packet == Packet::Syn))
        .filter(|d| {
            // The SYN that its own next hop does not take is another matter.
            let is_own_syn = h.connection.role == Role::Client && d.packet == Packet::Syn;
            // A client of this host is a socket of its kernel: its answers belong to an address. A peer may be forged, or
            // have a TCP of its own beside the kernel's.
            let c = &h.connection;
            let is_its_own = c.role == Role::Client && d.is_of(h) == DropIsOf::This;
            d.netns == c.netns || is_own_syn || is_its_own || !NOBODYS.contains(&&*d.reason)
        })
        .filter(|d| !is_beside_a_reset(d, h))
        // ICMP and errno report an unanswered neighbour query too.
        .filter(|d| !(answered && (d.is_of_neighbour() || is_of_a_router(d, h))))
        .collect()
}

/// Whether a RST or an ICMP error ended it.
fn answered(h: &Handshake) -> bool {
    h.connection.role == Role::Client
        && matches!(h.outcome, Outcome::Refused | Outcome::Unreachable)
}

/// Whether this host dropped every SYN of it: then no answer to it can be the peer's.
fn none_got_further(h: &Handshake, drops: &[&DroppedPacket]) -> bool {
    let syns = drops.iter().filter(|d| d.packet == Packet::Syn);
    let dropped: u64 = syns.map(|d| d.count).sum();
    dropped > u64::from(h.retransmits)
}

/// Says that more of its SYNs were dropped on their way than it has sent: each is dropped once, so some were copies (a
/// bridge floods, a mirror copies), and the SYN itself may have got further.
fn copies(h: &Handshake, drops: &[&DroppedPacket]) -> Option<String> {
    let c = &h.connection;
    let on_its_way = |d: &&&DroppedPacket| {
        let has_left = d.incoming || d.netns != c.netns;
        d.packet == Packet::Syn && has_left && d.is_of(h) == DropIsOf::This
    };
    let dropped: u64 = drops.iter().filter(on_its_way).map(|d| d.count).sum();
    let sent = u64::from(h.retransmits) + 1;
    (c.role == Role::Client && dropped > sent).then(|| {
        format!(
            "{dropped} SYNs were dropped and {sent} were sent: some were copies, and whether one of each got further \
             is not known"
        )
    })
}

/// Whose the answer is to SYNs that got no further.
fn own_answer(h: &Handshake, first: &DroppedPacket, context: &Context) -> String {
    let answer = match (h.outcome, context.only_icmp(h)) {
        (Outcome::Refused, _) => "the RST".to_owned(),
        (_, Some(icmp)) => format!("the ICMP error from {}, {},", icmp.from, icmp.what),
        (_, None) => format!("the error {}", h.error.as_deref().unwrap_or("")),
    };
    let further = match first.incoming {
        true => "no SYN of it got further",
        false => "no SYN of it left this host",
    };
    let rule = match &*first.reason {
        "NETFILTER_DROP" => ", as a rule that rejects makes it",
        _ => "",
    };
    format!("{further}: {answer} is this host's own{rule}")
}

/// What an ACK means that came for a SYN, and was dropped.
fn challenge_ack(h: &Handshake, drops: &[&DroppedPacket]) -> Option<String> {
    let is_client = h.connection.role == Role::Client;
    let only_acks = drops.iter().all(|d| d.incoming && d.packet == Packet::Ack);
    (is_client && only_acks).then(|| {
        "such an ACK is the answer of an end that still has a connection of these addresses and ports (challenge \
         ACK, RFC 5961)"
            .to_owned()
    })
}

/// What the one SYN that was dropped asked for, where its repetition did not and was answered.
fn dropped_option(h: &Handshake, drops: &[&DroppedPacket]) -> Option<SynOption> {
    let only_first = matches!(drops, [d] if d.packet == Packet::Syn && d.count == 1);
    let answered = h.outcome == Outcome::Established && h.retransmits == 1;
    SynOption::of(h).filter(|_| only_first && answered)
}

/// Sentences about rules that it quotes, and dropped packets whose rules are looked for.
const RULES: usize = 4;
const LOOKED_AT: usize = 64;

/// The first half-open of each connection: one with several has its packets counted once.
fn first_of_each<'h>(group: &[&'h Handshake]) -> impl Iterator<Item = &'h Handshake> {
    let mut first: BTreeMap<_, &Handshake> = BTreeMap::new();
    for h in group {
        let c = &h.connection;
        let ends = (c.local_addr, c.local_port, c.peer_addr, c.peer_port);
        let known = first.entry(ends).or_insert(h);
        if h.facts.began_ns < known.facts.began_ns {
            *known = h;
        }
    }
    first.into_values()
}

/// What was dropped: namespace, segment, way, cause and words.
type Kind<'s> = (u32, Packet, String, String, &'s str);

/// Packets of many handshakes that this host dropped.
#[derive(Default)]
struct DropSums<'s> {
    /// Packets and connections.
    kinds: BTreeMap<Kind<'s>, (u64, u64)>,
    routes: BTreeSet<String>,
    conntrack: BTreeSet<String>,
    by_rules: Vec<&'s DroppedPacket>,
}

impl<'s> DropSums<'s> {
    fn add(&mut self, h: &Handshake, context: &'s Context) {
        let mut counted = HashSet::new();
        for d in decisive(h, context) {
            self.conntrack.extend(context.conntrack_fact(d));
            if self.by_rules.len() < LOOKED_AT {
                self.by_rules.push(d);
            }
            let why = [context.route_of_drop(d), context.way_of_refused_ack(d, h)];
            self.routes.extend(why.into_iter().flatten());
            let way = context.way_of_drop(d, &h.connection);
            let key = (d.netns, d.packet, way, d.cause(), &*d.words);
            let is_first = counted.insert(key.clone());
            let (packets, connections) = self.kinds.entry(key).or_default();
            *packets += d.count;
            *connections += u64::from(is_first);
        }
    }

    /// The sentences, most packets first. `own`: the handshakes' namespace.
    fn facts(self, own: u32, context: &Context) -> Vec<String> {
        let mut kinds: Vec<_> = self.kinds.into_iter().collect();
        kinds.sort_by_key(|(_, (packets, _))| std::cmp::Reverse(*packets));
        let fact = |((netns, packet, way, cause, words), (packets, connections)): (
            Kind<'_>,
            (u64, u64),
        )| {
            let elsewhere = match netns == own {
                true => String::new(),
                false => format!("; in namespace {}", context.name_of(netns)),
            };
            format!(
                "this host dropped {} {way}, of {}: {words} ({cause}){elsewhere}",
                packet.counted(packets),
                counted(connections)
            )
        };
        let mut facts: Vec<String> = kinds.into_iter().map(fact).collect();
        facts.extend(self.routes.into_iter().take(ROUTES));
        facts.extend(context.rules_of_drops(self.by_rules, RULES));
        facts.extend(self.conntrack);
        facts
    }
}

/// The one thing that dropped the packets of these handshakes; `None`: several did, or it is not known.
pub(super) fn cause_of(group: &[&Handshake], context: &Context) -> Option<(u32, String)> {
    let some = group.iter().take(LOOKED_AT);
    context.cause_of_drops(some.flat_map(|h| decisive(h, context)))
}

/// `dropped-here`
pub(super) struct DroppedHere;

impl Verdict for DroppedHere {
    fn kind(&self) -> VerdictKind {
        VerdictKind::DroppedHere
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        // Once the final ACK has arrived, earlier drops do not matter.
        let arrived = h.facts.acked && h.facts.queue_was_full;
        let well = h.outcome == Outcome::Established && h.retransmits == 0;
        if arrived || well {
            return None;
        }
        let of_handshake = decisive(h, context);
        let first = of_handshake.first()?;
        // A final ACK that is lost holds a half-open up: what ends it is the loss of its listener.
        if of_handshake.iter().all(|d| d.packet == Packet::Ack)
            && ListenerClosed.check(h, context).is_some()
        {
            return None;
        }
        // One dropped packet does not explain why ten got no answer.
        let lost: u64 = of_handshake.iter().map(|d| d.count).sum();
        let sent = u64::from(h.retransmits).min(h.gaps_us.len() as u64) + 1;
        if lost * 2 < sent || answered(h) && !none_got_further(h, &of_handshake) {
            return None;
        }
        let is_its_own = |d: &&&DroppedPacket| d.is_of(h) == DropIsOf::This;
        let shown: u64 = of_handshake
            .iter()
            .filter(is_its_own)
            .map(|d| d.count)
            .sum();
        let mut finding = match shown {
            0 => Finding::likely(),
            shown => Finding::certain().accounts_for(shown),
        };
        for drop in &of_handshake {
            finding = finding.pro(context.fact_of_drop(drop, h));
            finding = finding.maybe_pro(context.rule_of_drop(drop).map(|rule| rule.fact));
            finding = finding.maybe_pro(context.route_of_drop(drop));
            finding = finding.maybe_pro(context.way_of_refused_ack(drop, h));
        }
        if shown < lost {
            finding = finding.contra(
                "in another namespace, only addresses and ports show that it is of this handshake: its sequence \
                 number is not known",
            );
        }
        if let Some(copies) = copies(h, &of_handshake) {
            finding.confidence = Confidence::Likely;
            finding = finding.contra(copies);
        }
        if of_handshake.iter().all(|d| d.may_be_a_copy()) {
            finding.confidence = Confidence::Likely;
            finding = finding.contra(match first.is_for_other_station() {
                true => {
                    "a switch that floods the frames of another host makes such copies: the packet itself may have got \
                     further"
                }
                false => {
                    "a bridge discards copies that a switch sends back in the same way: the packet itself may have got \
                     further"
                }
            });
        }
        if h.facts.began_ns.is_none() {
            finding.confidence = Confidence::Likely;
            finding = finding.contra(
                "when the handshake began is not known: the packet may be of an earlier one of the same port",
            );
        }
        finding = finding.maybe_pro(context.conntrack_fact(first));
        if answered(h) {
            finding = finding.pro(own_answer(h, first, context));
        }
        finding = finding.maybe_pro(challenge_ack(h, &of_handshake));
        finding = finding.maybe_pro(no_address(h, &of_handshake, context));
        let mut remedy = match is_of_no_address(first, h, context) {
            // To forward the answer would send it away.
            true => deliver(h),
            false => context.remedy_of_drop(first),
        };
        if let Some(option) = dropped_option(h, &of_handshake) {
            finding = finding.pro(format!(
                "the SYN that was dropped {}; its repetition did not, and was answered",
                option.words()
            ));
            let run = enter_of(&h.connection);
            remedy += &format!("; or go without it: {run}{}", option.remedy());
        }
        Some(finding.remedy(remedy))
    }

    fn sums_handshakes(&self) -> bool {
        true
    }

    fn facts_of_many(&self, group: &[&Handshake], context: &Context) -> Option<Vec<Evidence>> {
        let own = group.first()?.connection.netns;
        let mut sums = DropSums::default();
        for h in first_of_each(group) {
            sums.add(h, context);
        }
        let mut facts = sums.facts(own, context);
        for option in [SynOption::Ecn, SynOption::FastOpen] {
            let has = |h: &&&Handshake| dropped_option(h, &decisive(h, context)) == Some(option);
            let count = group.iter().take(LOOKED_AT).filter(has).count();
            if count > 0 {
                facts.push(format!(
                    "{count} of them: the SYN that was dropped {}; its repetition did not, and was answered",
                    option.words()
                ));
            }
        }
        let ack = |h: &&Handshake| challenge_ack(h, &decisive(h, context));
        facts.extend(group.first().and_then(ack));
        let unbound = |h: &&Handshake| no_address(h, &decisive(h, context), context);
        facts.extend(group.first().and_then(unbound));
        // What drops it may answer for another reason than a rule: a hop limit that ran out, a missing route.
        let by_rule = |h: &&&Handshake| -> bool {
            let drops = decisive(h, context);
            drops
                .first()
                .is_some_and(|d| &*d.reason == "NETFILTER_DROP")
        };
        let rejected: Vec<_> = group.iter().filter(|h| answered(h)).collect();
        let by_rules = rejected.iter().take(LOOKED_AT).all(by_rule);
        if !rejected.is_empty() {
            let rejected = rejected.len();
            facts.push(match by_rules {
                true => format!(
                    "{rejected} of them were answered with a RST or an ICMP error. No SYN got further, so the answer is \
                     this host's own: a rule rejects"
                ),
                false => format!(
                    "{rejected} of them were answered with a RST or an ICMP error. No SYN got further, so the answer is \
                     this host's own"
                ),
            });
        }
        let supporting = |fact| Evidence {
            fact,
            supports: true,
        };
        Some(facts.into_iter().map(supporting).collect())
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[CounterRise::IcmpErrors]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "this host itself dropped a packet of the handshake",
            meaning: "The peer and the network are not to blame: a rule, a route or a setting of this \
                      very host discarded the SYN, the SYN-ACK or the final ACK. The kernel says which \
                      (the drop reason) and where (the function).",
            detection: "skb:kfree_skb with a reason that is this host's doing (Linux 5.17), for a packet \
                      with the addresses and ports of this handshake, while it lasted. It is the \
                      strongest evidence there is. A drop in another network namespace of this host \
                      counts too, and is named. After a drop by netfilter the rules are read \
                      (CAP_NET_ADMIN): the rule that alone can have done it is named, otherwise those \
                      that fit the packet are listed.",
            remedy: "NETFILTER_DROP: find the rule, where the evidence does not name it. A RST or an ICMP error may come with it: a rule that rejects. Connection tracking drops too, when its table is full or NAT finds no free \
                     tuple: its counters tell.\n    nft list ruleset\n    iptables-save -c\n    conntrack -S\n    sysctl \
                     net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max\n\
                     IP_RPFILTER: the route back to the sender does not use the interface that the \
                     packet came in on.\n    ip route get <peer>\n    sysctl net.ipv4.conf.all.rp_filter\n\
                     IP_INNOROUTES, IP_OUTNOROUTES: there is no route.\n    ip route get <peer>\n\
                     TC_INGRESS, TC_EGRESS, XDP, BPF_CGROUP_EGRESS: a BPF program or tc filter.\n    \
                     tc filter show dev <interface> ingress\n    bpftool net",
            reproduce: "synprobe lab own-firewall\nsynprobe lab own-reject\nsynprobe lab tcp-md5\nsynprobe lab snat-exhausted\nsynprobe lab rp-filter",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::fixtures::*;

    fn dropping(h: &Handshake, packet: Packet) -> Context {
        let mut context = Context::default();
        context.note_drop(discard(h, packet, 3));
        context
    }

    #[test]
    fn a_drop_of_its_own_packets_makes_it() {
        let h = half_open(Outcome::Expired);
        let unnamed = judged(&h, dropping(&h, Packet::SynAck));
        let remedy = unnamed.remedy.as_deref();
        assert_eq!(remedy, Some("in netns:[4026531833]: nft list ruleset"));
        let mut context = dropping(&h, Packet::SynAck);
        context.set_netns_name(NETNS, Some("host".into()));
        let judgement = judged(&h, context);
        assert_eq!(judgement.verdict, Some(VerdictKind::DroppedHere));
        assert_eq!(judgement.confidence, Confidence::Certain);
        assert_eq!(
            judgement.evidence[0].fact,
            "this host dropped the SYN-ACK on its way out, from 10.0.0.1:8080 to 10.0.0.9:55555, \
             3 times: this host's netfilter rules (NETFILTER_DROP at nft_do_chain)"
        );
        assert_eq!(judgement.remedy.as_deref(), Some("nft list ruleset"));
    }

    /// `ip_error()` frees what a route of type prohibit refuses, after its ICMP error, and what one of type blackhole
    /// discards in silence.
    #[test]
    fn a_prohibiting_router_says_it_by_icmp_and_a_blackhole_does_not() {
        let verdict = |outcome| {
            let mut h = active(outcome);
            h.error = Some("EACCES".into());
            let mut drop = discard(&h, Packet::Syn, 1);
            drop.netns += 1;
            (drop.incoming, drop.syn_seq) = (true, h.facts.syn_seq);
            (drop.reason, drop.place) = ("NOT_SPECIFIED".into(), Some("ip_error".into()));
            let mut context = Context::default();
            context.note_drop(drop);
            judged(&h, context).verdict
        };
        assert_eq!(
            verdict(Outcome::Unreachable),
            Some(VerdictKind::Unreachable)
        );
        assert_eq!(verdict(Outcome::TimedOut), Some(VerdictKind::DroppedHere));
    }

    #[test]
    fn issue20_a_reset_half_open_is_not_explained_by_packets_that_only_look_alike() {
        let mut h = half_open(Outcome::Reset);
        let elsewhere = |h: &Handshake| {
            let mut context = Context::default();
            let mut drop = discard(h, Packet::SynAck, 4);
            drop.netns += 1;
            context.note_drop(drop);
            judged(h, context).verdict
        };
        assert_eq!(elsewhere(&h), Some(VerdictKind::DroppedHere));
        h.facts.reset_seen = true;
        assert_eq!(elsewhere(&h), Some(VerdictKind::PeerReset));
        // In its own namespace the packet was its own.
        let own = judged(&h, dropping(&h, Packet::SynAck));
        assert_eq!(own.verdict, Some(VerdictKind::DroppedHere));
    }

    #[test]
    fn an_answer_to_an_address_that_is_nobodys_is_not_to_be_forwarded() {
        let h = active(Outcome::TimedOut);
        let c = &h.connection;
        for (addresses, is_told) in [
            (Vec::new(), false),
            (vec![c.peer_addr], true),
            (vec![c.local_addr], false),
        ] {
            let mut context = Context::default();
            if !addresses.is_empty() {
                context.has_addresses(c.netns, addresses);
            }
            let mut drop = discard(&h, Packet::SynAck, 3);
            (drop.reason, drop.incoming) = ("IP_INADDRERRORS".into(), true);
            (drop.from, drop.to) = (drop.to, drop.from);
            context.note_drop(drop);
            let judgement = judged(&h, context);
            assert_eq!(judgement.verdict, Some(VerdictKind::DroppedHere));
            let mut facts = judgement.evidence.iter().map(|e| e.fact.as_str());
            let said = facts.any(|fact| fact.starts_with("the client's socket is bound to"));
            let forwards = judgement.remedy.unwrap().contains("ip_forward");
            assert_eq!((said, forwards), (is_told, false), "{facts:?}");
        }
    }

    #[test]
    fn a_rule_that_drops_an_option_is_told_from_one_that_drops_every_syn() {
        let mut h = active(Outcome::Established);
        (h.retransmits, h.dwell_us) = (1, Some(1_010_000));
        h.gaps_us = vec![1_000_000];
        h.facts.first_syn_had_ecn = true;
        let dropping = |count| {
            let mut context = Context::default();
            context.note_drop(discard(&h, Packet::Syn, count));
            context
        };
        let judgement = judged(&h, dropping(1));
        assert_eq!(judgement.verdict, Some(VerdictKind::DroppedHere));
        let said =
            "the SYN that was dropped asked for ECN; its repetition did not, and was answered";
        assert!(judgement.evidence.iter().any(|e| e.fact == said));
        let remedy = judgement.remedy.unwrap();
        assert!(
            remedy.ends_with("; or go without it: sysctl -w net.ipv4.tcp_ecn=2"),
            "{remedy}"
        );
        let of_two = judged(&h, dropping(2));
        assert!(of_two.evidence.iter().all(|e| e.fact != said));
    }

    #[test]
    fn an_ack_that_was_dropped_on_its_way_to_a_syn_is_an_old_connections() {
        let mut h = active(Outcome::Abandoned);
        h.retransmits = 2;
        let mut context = Context::default();
        context.note_drop(DroppedPacket {
            incoming: true,
            ..discard(&h, Packet::Ack, 3)
        });
        let judgement = judged(&h, context);
        assert_eq!(judgement.verdict, Some(VerdictKind::DroppedHere));
        let facts: Vec<_> = judgement.evidence.iter().map(|e| e.fact.as_str()).collect();
        assert!(
            facts.iter().any(|f| f.contains("challenge ACK")),
            "{facts:#?}"
        );
    }

    #[test]
    fn it_is_not_synack_lost_though_the_peer_repeats_its_syn() {
        let mut h = half_open(Outcome::Expired);
        h.retransmits_by_peer = 2;
        let (verdict, _) = verdict_of(&h, dropping(&h, Packet::SynAck));
        assert_eq!(verdict, Some(VerdictKind::DroppedHere));
    }

    #[test]
    fn a_drop_of_another_connection_or_before_it_began_is_nothing() {
        let h = half_open(Outcome::Expired);
        let other = half_open_of("10.0.0.8", Outcome::Expired);
        assert_ne!(
            verdict_of(&h, dropping(&other, Packet::SynAck)).0,
            Some(VerdictKind::DroppedHere)
        );
        let mut later = h.clone();
        later.facts.began_ns = Some(2_000 * SEC);
        assert_ne!(
            verdict_of(&later, dropping(&h, Packet::SynAck)).0,
            Some(VerdictKind::DroppedHere)
        );
    }

    #[test]
    fn a_handshake_of_unknown_beginning_does_not_reach_back_without_limit() {
        let mut h = half_open(Outcome::Reset);
        (h.facts.began_ns, h.facts.reset_seen) = (None, true);
        // The drop was at T0 + 1 s.
        h.facts.not_before_ns = T0 + 2 * SEC;
        let got = verdict_of(&h, dropping(&h, Packet::Ack));
        assert_eq!(got.0, Some(VerdictKind::PeerReset));
        h.facts.not_before_ns = T0;
        let got = verdict_of(&h, dropping(&h, Packet::Ack));
        assert_eq!(got, (Some(VerdictKind::DroppedHere), Confidence::Likely));
    }

    #[test]
    fn another_namespace_may_have_the_same_addresses_and_drop_what_it_likes() {
        let mut h = half_open(Outcome::Expired);
        let elsewhere = |syn_seq| {
            let mut context = Context::default();
            context.note_drop(DroppedPacket {
                netns: 7,
                syn_seq: Some(syn_seq),
                ..discard(&h, Packet::SynAck, 9)
            });
            context
        };
        let (one, same, other) = (elsewhere(5), elsewhere(5), elsewhere(6));
        let due = |confidence| (Some(VerdictKind::DroppedHere), confidence);
        assert_eq!(verdict_of(&h, one), due(Confidence::Likely));
        h.facts.syn_seq = Some(5);
        assert_eq!(verdict_of(&h, same), due(Confidence::Certain));
        assert_eq!(verdict_of(&h, other).0, Some(VerdictKind::PeerSilent));
    }

    #[test]
    fn more_drops_than_syns_are_of_copies() {
        let mut h = active(Outcome::TimedOut);
        (h.retransmits, h.facts.syn_seq) = (2, Some(5));
        h.gaps_us = vec![1_000_000; 2];
        for (count, confidence) in [(3, Confidence::Certain), (6, Confidence::Likely)] {
            let mut context = Context::default();
            context.note_drop(DroppedPacket {
                netns: 7,
                incoming: true,
                syn_seq: Some(5),
                reason: "TC_INGRESS".into(),
                ..discard(&h, Packet::Syn, count)
            });
            let got = judged(&h, context);
            let due = (Some(VerdictKind::DroppedHere), confidence);
            assert_eq!((got.verdict, got.confidence), due, "{count}");
            let said = |e: &Evidence| e.fact.starts_with("6 SYNs were dropped and 3 were sent");
            assert_eq!(got.evidence.iter().any(said), count == 6);
        }
    }

    #[test]
    fn what_comes_where_nobody_has_its_address_is_not_thrown_away() {
        let h = half_open(Outcome::Expired);
        for (netns, verdict) in [
            (NETNS, VerdictKind::DroppedHere),
            (7, VerdictKind::PeerSilent),
        ] {
            let mut context = Context::default();
            context.note_drop(DroppedPacket {
                netns,
                incoming: true,
                reason: "IP_INADDRERRORS".into(),
                ..discard(&h, Packet::SynAck, 2)
            });
            assert_eq!(verdict_of(&h, context).0, Some(verdict));
        }
    }

    #[test]
    fn a_router_that_does_not_forward_answers_to_a_client_throws_them_away() {
        let of_router = |h: &Handshake| DroppedPacket {
            netns: 7,
            incoming: true,
            syn_seq: Some(5),
            reason: "IP_INADDRERRORS".into(),
            ..discard(h, Packet::SynAck, 3)
        };
        let due = (Some(VerdictKind::DroppedHere), Confidence::Certain);
        // A client of this host.
        let mut h = active(Outcome::TimedOut);
        (h.retransmits, h.facts.syn_seq) = (2, Some(5));
        let mut context = Context::default();
        context.note_drop(of_router(&h));
        assert_eq!(verdict_of(&h, context), due);
        // A peer: what became of the SYN-ACKs is said all the same.
        let mut h = half_open(Outcome::Expired);
        (h.facts.syn_seq, h.retransmits_by_peer) = (Some(5), 1);
        let mut context = Context::default();
        context.sees_drops = true;
        context.note_drop(of_router(&h));
        let got = judged(&h, context);
        assert_eq!(got.verdict, Some(VerdictKind::SynackLost));
        let says = |words: &str| got.evidence.iter().any(|e| e.fact.contains(words));
        assert!(says("this host dropped the SYN-ACK") && !says("was not seen to drop"));
    }

    #[test]
    fn a_neighbour_that_does_not_answer_is_unreachable() {
        let mut h = active(Outcome::Unreachable);
        h.error = Some("EHOSTUNREACH".into());
        let mut context = Context::default();
        context.note_drop(DroppedPacket {
            reason: "NEIGH_FAILED".into(),
            ..discard(&h, Packet::Syn, 1)
        });
        assert_eq!(verdict_of(&h, context).0, Some(VerdictKind::Unreachable));
    }

    #[test]
    fn over_ipv6_the_place_shows_that_a_neighbour_does_not_answer() {
        let mut h = active(Outcome::Unreachable);
        h.error = Some("EHOSTUNREACH".into());
        for (place, verdict) in [
            ("neigh_invalidate", VerdictKind::Unreachable),
            ("xfrm_output", VerdictKind::DroppedHere),
        ] {
            let mut context = Context::default();
            context.note_drop(DroppedPacket {
                reason: "NOT_SPECIFIED".into(),
                place: Some(place.into()),
                ..discard(&h, Packet::Syn, 1)
            });
            assert_eq!(verdict_of(&h, context).0, Some(verdict), "{place}");
        }
    }

    #[test]
    fn an_answer_to_syns_that_did_not_leave_is_this_hosts_own() {
        for (outcome, error, words) in [
            (
                Outcome::Refused,
                "ECONNREFUSED",
                "the RST is this host's own",
            ),
            (
                Outcome::Unreachable,
                "EACCES",
                "the error EACCES is this host's own",
            ),
        ] {
            let mut h = active(outcome);
            (h.error, h.facts.reset_seen) = (Some(error.into()), outcome == Outcome::Refused);
            let found = judged(&h, dropping(&h, Packet::Syn));
            assert_eq!(found.verdict, Some(VerdictKind::DroppedHere));
            assert_eq!(found.confidence, Confidence::Certain);
            assert!(found.evidence[1].fact.contains(words), "{found:?}");
            assert!(found.evidence[1].fact.starts_with("no SYN of it left"));
            // One that got further may have been answered by the peer.
            h.retransmits = 3;
            let kind = verdict_of(&h, dropping(&h, Packet::Syn)).0;
            assert_ne!(kind, Some(VerdictKind::DroppedHere));
        }
    }

    #[test]
    fn a_packet_now_and_then_does_not_explain_why_none_is_answered() {
        let mut h = half_open(Outcome::Open);
        (h.retransmits, h.retransmits_by_peer) = (9, 6);
        h.gaps_us = vec![1_000_000; 9];
        let mut one = discard(&h, Packet::SynAck, 1);
        let (verdict, _) = verdict_of(&h, {
            let mut context = Context::default();
            context.note_drop(one.clone());
            context
        });
        assert_eq!(verdict, Some(VerdictKind::SynackLost));
        one.count = 9;
        let (verdict, _) = verdict_of(&h, {
            let mut context = Context::default();
            context.note_drop(one);
            context
        });
        assert_eq!(verdict, Some(VerdictKind::DroppedHere));
        // Nor does a repeated SYN that was dropped: the half-open is there.
        let (verdict, _) = verdict_of(&h, dropping(&h, Packet::Syn));
        assert_eq!(verdict, Some(VerdictKind::SynackLost));
    }

    #[test]
    fn a_rst_that_is_dropped_holds_nothing_up() {
        let h = active(Outcome::TimedOut);
        assert_ne!(
            verdict_of(&h, dropping(&h, Packet::Rst)).0,
            Some(VerdictKind::DroppedHere)
        );
    }

    #[test]
    fn a_final_ack_that_arrived_and_was_refused_is_the_later_reason() {
        let mut h = half_open(Outcome::Open);
        (h.facts.acked, h.facts.queue_was_full) = (true, true);
        let (verdict, _) = verdict_of(&h, dropping(&h, Packet::SynAck));
        assert_eq!(verdict, Some(VerdictKind::AcceptQueueFull));
    }

    #[test]
    fn a_handshake_that_went_well_is_left_alone() {
        let mut h = half_open(Outcome::Established);
        (h.retransmits, h.dwell_us) = (0, Some(200));
        assert_eq!(verdict_of(&h, dropping(&h, Packet::Ack)).0, None);
    }
}
