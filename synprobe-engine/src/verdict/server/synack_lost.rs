//! The peer lives and does not get our SYN-ACK.

use crate::{
    model::{Handshake, VerdictKind},
    verdict::{
        Context, CounterRise, Explanation, Finding, Verdict, context::Packet, enter_of, tcp_flags,
        times,
    },
};

/// As long as a client repeats its SYN, seconds.
const ONE_CONNECT_S: u32 = 140;

/// `synack-lost`
pub(in crate::verdict) struct SynackLost;

impl Verdict for SynackLost {
    fn kind(&self) -> VerdictKind {
        VerdictKind::SynackLost
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let half_opens = context.failed_half_opens(h);
        let errors = context.icmp(h);
        // A SYN needs no answer of ours. Only a completed handshake shows that the address is somebody's.
        let lives = context.accepted_before(&h.connection);
        let reported: u64 = errors
            .iter()
            .filter(|e| e.fits(h) == Some(true))
            .map(|e| e.count)
            .sum();
        // An answer to an address that nobody has is reported too.
        let told = lives && reported > 0;
        if !super::unfinished(h)
            || h.repeated_syns() == 0 && half_opens < 2 && !told
            || h.facts.acked
            || h.facts.reset_seen
        {
            return None;
        }
        // Without an event of its own, only the kernel's count of SYN-ACKs shows that the peer repeated its SYN.
        let unwatched = h.facts.preexisting && !h.facts.history_known;
        if !lives && super::SynFlood.check(h, context).is_some() {
            return None;
        }
        // Two half-opens of one port are an inference: their beginnings may be estimates of sock_diag.
        let seen = h.repeated_syns() > 0 && !unwatched;
        // A peer that gets them from another address, or by a way that has not seen its SYN, repeats its SYN too.
        let way_back_is_open = context.way_back_is_open(&h.connection);
        let mut finding = match lives && way_back_is_open.is_none() {
            true if seen => Finding::certain().accounts_for_outcome(),
            true if told => Finding::certain().accounts_for(reported),
            _ => Finding::likely(),
        };
        if unwatched && h.repeated_syns() > 0 {
            finding = finding.pro(format!(
                "the kernel's timer alone sends fewer SYN-ACKs (tcp_synack_retries): the peer repeated its SYN at \
                 least {}",
                times(h.repeated_syns())
            ));
        } else if h.repeated_syns() > 0 {
            finding = finding.pro(format!(
                "the peer repeated its SYN {}: it has taken no SYN-ACK",
                times(h.repeated_syns())
            ));
        }
        finding = match lives {
            true => finding.pro("the peer is alive: it has completed another handshake in this run"),
            false => finding.contra(
                "the peer has completed no handshake in this run: its address may be forged, and a forger can \
                 repeat a SYN too",
            ),
        };
        if half_opens >= 2 {
            finding = finding.pro(format!(
                "the same port of the peer made {half_opens} half-opens within {} s: it repeated its SYN after the previous \
                 one had ended",
                ONE_CONNECT_S
            ));
        }
        finding = finding.pro(format!(
            "the SYN-ACK was sent {}, and no ACK came",
            times(h.retransmits.saturating_add(1))
        ));
        for fact in super::icmp_facts(&errors, h) {
            finding = finding.pro(fact);
        }
        finding = finding.maybe_contra(way_back_is_open);
        let mut drops = context.drops_of_handshake(h).into_iter();
        let dropped = drops.find(|d| d.packet == Packet::SynAck);
        finding = if let Some(dropped) = dropped {
            finding.pro(context.fact_of_drop(dropped, h))
        } else if unwatched {
            finding.contra(
                "they were sent before the run: whether this host dropped them is not known",
            )
        } else if context.sees_drops && !context.losses.of_drops(h) {
            finding.pro("during the run this host was not seen to drop any of them, and a drop without a reason is not seen")
        } else {
            finding.contra("whether this host dropped them itself cannot be seen here")
        };
        let (peer, run) = (h.connection.peer_addr, enter_of(&h.connection));
        let ask = super::ask_router(&errors, h);
        Some(finding.remedy(ask + &format!(
            "the way back is broken: {run}ip route get {peer}; {run}tcpdump -ni any 'host {peer} and tcp and \
             {} & (tcp-syn|tcp-ack) != 0'; the same as near to the peer as you can; look for a firewall between",
            tcp_flags(peer)
        )))
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[CounterRise::IcmpErrors]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the peer repeats its SYN: it does not get our SYN-ACK",
            meaning: "The peer is alive and wants the connection; its SYNs arrive here. Our answers do \
                      not arrive there: the return path is broken, a firewall between the two drops \
                      SYN-ACKs, or they take another route than the SYNs and die there.",
            detection: "The kernel sent the SYN-ACK again because the SYN came again, not because its timer \
                      fired (request_sock: num_retrans above num_timeout; the timer not running when it \
                      was sent): certain where the same address completed another handshake in this run, \
                      else likely, because a forged SYN can be repeated too. Repeats of before the run are seen too, with the next \
                      retransmission. An ICMP error that quotes the SYN-ACK tells it too, and who sent it. A peer whose round trip is longer than its own SYN time-out (1 s) \
                      looks the same until it completes.",
            remedy: "Follow the SYN-ACK: which interface, which router, where does it end?\n    ip route \
                     get <peer>\n    tcpdump -ni any 'host <peer> and tcp[tcpflags] & tcp-syn != 0'",
            reproduce: "synprobe lab synack-lost\nsynprobe lab incident-synack-lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Missed, OpenReason, Outcome},
        verdict::{
            context::{Ends, IcmpReport},
            fixtures::*,
        },
    };

    fn repeating(outcome: Outcome) -> Handshake {
        let mut h = half_open(outcome);
        h.retransmits_by_peer = 1;
        h
    }

    /// The peer has completed another handshake.
    fn alive() -> Context {
        let mut context = Context::default();
        let mut fine = half_open(Outcome::Established);
        (fine.connection.peer_port, fine.retransmits) = (Some(1), 0);
        context.note(&line(fine));
        context
    }

    /// A router says that the SYN-ACK did not pass it: that, and not silence, is the cause. One about another SYN-ACK
    /// says nothing.
    #[test]
    fn an_icmp_error_about_the_syn_ack_makes_it() {
        let mut h = half_open(Outcome::Dropped);
        h.facts.syn_ack_seq = Some(70);
        let silent = h.clone();
        let judged_with = |h: &Handshake, seq, mut context: Context| {
            let report = IcmpReport {
                from: "10.0.0.254".parse().unwrap(),
                what: "time exceeded (a routing loop, or too far) (type 11 code 0)".into(),
                count: u64::from(h.retransmits) + 1,
                netns: Some(NETNS),
                seq: Some(seq),
                last_ns: Some(T0 + SEC),
                local_port: 8080,
            };
            context.note_icmp(Ends::of(&h.connection).unwrap(), report);
            judged(h, context)
        };
        let said = |seq, context| judged_with(&silent, seq, context);
        let j = said(70, alive());
        assert_eq!(
            (j.verdict, j.confidence),
            (Some(VerdictKind::SynackLost), Confidence::Certain)
        );
        let has = |words: &str| {
            j.evidence
                .iter()
                .any(|e| e.supports && e.fact.contains(words))
        };
        assert!(has("ICMP from 10.0.0.254: time exceeded") && has("it did not reach the peer"));
        assert!(j.remedy.unwrap().starts_with("ask the router 10.0.0.254; "));
        // The address may be nobody's: then an error is due, and the error is told.
        let unknown = said(70, Context::default());
        assert_eq!(unknown.verdict, Some(VerdictKind::PeerSilent));
        assert!(
            unknown
                .evidence
                .iter()
                .any(|e| e.fact.starts_with("ICMP from 10.0.0.254"))
        );
        h.retransmits_by_peer = 1;
        let repeats = judged_with(&h, 70, Context::default());
        assert_eq!(
            (repeats.verdict, repeats.confidence),
            (Some(VerdictKind::SynackLost), Confidence::Likely)
        );
        assert_eq!(said(71, alive()).verdict, Some(VerdictKind::PeerSilent));
        // Where the SYN-ACK's number is not known, anybody may have sent the error.
        let mut untold = silent.clone();
        untold.facts.syn_ack_seq = None;
        let j = judged_with(&untold, 70, alive());
        assert_eq!(j.verdict, Some(VerdictKind::PeerSilent));
        assert!(!j.remedy.unwrap().contains("10.0.0.254"));
    }

    /// The network makes a copy of each packet: the peer has repeated nothing.
    #[test]
    fn a_copy_of_the_syn_does_not_make_it() {
        let mut h = repeating(Outcome::Expired);
        h.gaps_us = vec![700, 1_000_000];
        let judgement = judged(&h, alive());
        assert_eq!(judgement.verdict, Some(VerdictKind::PeerSilent));
        let fact = &judgement.evidence[0].fact;
        assert!(fact.contains("nothing came but a copy of it"), "{fact}");
        // Then it does repeat it.
        h.retransmits_by_peer = 2;
        let judgement = judged(&h, alive());
        assert_eq!(judgement.verdict, Some(VerdictKind::SynackLost));
        assert!(
            judgement.evidence[0]
                .fact
                .starts_with("the peer repeated its SYN once:")
        );
    }

    #[test]
    fn a_repeated_syn_makes_it() {
        for outcome in [Outcome::Open, Outcome::Expired, Outcome::Dropped] {
            let got = verdict_of(&repeating(outcome), alive());
            assert_eq!(got, (Some(VerdictKind::SynackLost), Confidence::Certain));
            // Whoever forges one SYN can forge two.
            let got = verdict_of(&repeating(outcome), Context::default());
            assert_eq!(got, (Some(VerdictKind::SynackLost), Confidence::Likely));
        }
    }

    #[test]
    fn a_syn_that_comes_again_after_the_half_open_has_ended_makes_it() {
        let mut first = half_open(Outcome::Expired);
        first.facts.began_ns = Some(990 * SEC);
        let mut context = Context::default();
        context.note(&line(first));
        let second = half_open(Outcome::Expired);
        assert_eq!(
            verdict_of(&second, context),
            (Some(VerdictKind::SynackLost), Confidence::Likely)
        );
        // Not an hour later.
        let mut first = half_open(Outcome::Expired);
        first.facts.began_ns = Some(SEC);
        let mut context = Context::default();
        context.note(&line(first));
        assert_eq!(
            verdict_of(&second, context).0,
            Some(VerdictKind::PeerSilent)
        );
    }

    #[test]
    fn issue14_1_an_eviction_is_no_repeated_syn() {
        let mut context = Context::default();
        for began in [980, 985, 990] {
            let mut evicted = half_open(Outcome::Open);
            evicted.open_reason = Some(OpenReason::Evicted);
            evicted.facts.began_ns = Some(began * SEC);
            context.note(&line(evicted));
        }
        let got = verdict_of(&half_open(Outcome::Expired), context);
        assert_eq!(got, (Some(VerdictKind::PeerSilent), Confidence::Likely));
    }

    #[test]
    fn issue14_1_an_evicted_half_open_gets_no_verdict() {
        let mut evicted = repeating(Outcome::Open);
        evicted.open_reason = Some(OpenReason::Evicted);
        evicted.evidence.push(crate::model::Evidence {
            fact: "evicted: the table holds 10 handshakes (--max-handshakes)".to_owned(),
            supports: true,
        });
        let got = judged(&evicted, Context::default());
        assert_eq!(
            (got.verdict, got.confidence),
            (None, Confidence::Insufficient)
        );
        assert_eq!(got.evidence, evicted.evidence, "one fact says it");
    }

    #[test]
    fn a_silent_peer_is_not_it() {
        let h = half_open(Outcome::Expired);
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::PeerSilent)
        );
    }

    #[test]
    fn one_that_completes_is_a_slow_peer() {
        let h = repeating(Outcome::Established);
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::SlowPeer)
        );
    }

    #[test]
    fn a_final_ack_that_came_is_another_story() {
        let mut h = repeating(Outcome::Open);
        h.facts.acked = true;
        h.facts.queue_was_full = true;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::AcceptQueueFull)
        );
    }

    #[test]
    fn lost_records_take_the_certainty() {
        let mut context = alive();
        lose(&mut context, 5, Missed::Any);
        let judgement = judged(&repeating(Outcome::Open), context);
        assert_eq!(judgement.confidence, Confidence::Likely);
        assert!(
            judgement
                .evidence
                .iter()
                .any(|e| !e.supports && e.fact.starts_with("records were lost"))
        );
    }
}
