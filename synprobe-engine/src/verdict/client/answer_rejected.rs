//! An answer came, and TCP refused it.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    util::format,
    verdict::{
        Context, Explanation, Finding, Verdict,
        context::{Packet, RefusedAnswer, times},
    },
};

/// `answer-rejected`
pub(in crate::verdict) struct AnswerRejected;

/// What came.
fn name(answer: &RefusedAnswer) -> &'static str {
    match (answer.packet, &*answer.reason) {
        (Packet::Rst, "TCP_RESET") => "RST without an ACK",
        (packet, _) => packet.name(),
    }
}

/// Why TCP refused it (`tcp_rcv_synsent_state_process()`).
fn why(answer: &RefusedAnswer) -> &'static str {
    match (&*answer.reason, answer.packet) {
        ("TCP_INVALID_ACK_SEQUENCE", _) => "it acknowledges something else than this SYN",
        ("TCP_RFC7323_PAWS" | "TCP_RFC7323_TSECR", _) => {
            "it echoes a timestamp that this socket did not send"
        }
        ("TCP_RESET", _) => "in SYN_SENT only a RST that acknowledges the SYN counts (RFC 9293)",
        ("TCP_FLAGS", Packet::Ack) => "it acknowledges the SYN, but is no SYN-ACK",
        _ => "the kernel gives no better reason",
    }
}

/// What that means.
fn meaning(answer: &RefusedAnswer) -> &'static str {
    match (&*answer.reason, answer.packet) {
        ("TCP_INVALID_ACK_SEQUENCE", Packet::Ack) => {
            "such an ACK is the answer of an end that still has a connection of these addresses and ports \
             (challenge ACK, RFC 5961; TIME_WAIT answers so too): the peer, or a device in between that keeps \
             state for it"
        }
        ("TCP_INVALID_ACK_SEQUENCE", Packet::SynAck) => {
            "it answers an earlier SYN of this port, or a device in between changes sequence numbers"
        }
        ("TCP_INVALID_ACK_SEQUENCE", _) => {
            "a device in between changes sequence numbers, or resets a connection that it does not know"
        }
        ("TCP_RESET", _) => {
            "a device in between sent it without having seen the SYN, or it is forged"
        }
        ("TCP_RFC7323_PAWS" | "TCP_RFC7323_TSECR", _) => {
            "a device in between changes timestamps, or it answers an earlier connection of this port"
        }
        _ => "no useful answer came with it",
    }
}

impl Verdict for AnswerRejected {
    fn kind(&self) -> VerdictKind {
        VerdictKind::AnswerRejected
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let c = &h.connection;
        let ended_well = h.outcome == Outcome::Established;
        if c.role != Role::Client
            || h.outcome == Outcome::Refused
            || ended_well && h.retransmits == 0
        {
            return None;
        }
        let answers = context.refused_answers(h);
        let refused: u64 = answers.iter().map(|a| a.count()).sum();
        let early = u64::from(h.facts.early_repeats);
        let unanswered = u64::from(h.retransmits) + u64::from(!ended_well);
        // A SYN that follows at once may stay without an answer of its own: Linux limits such ACKs to one in
        // 500 ms (`tcp_invalid_ratelimit`).
        let known = match refused {
            0 => early,
            n => unanswered.min(n + early),
        };
        // Where refused answers cannot be seen, one that is known stands for the others.
        let is_partial = known * 2 < unanswered && (context.sees_answers || early == 0);
        if known == 0 || is_partial {
            return None;
        }
        let mut finding = Finding::certain().accounts_for(known);
        for answer in &answers {
            finding = finding.pro(format!(
                "{} from {} came, {}, and TCP refused it: {} ({})",
                article(name(answer)),
                super::peer(h),
                times(answer.count()),
                why(answer),
                answer.reason
            ));
        }
        if let Some(gap) = h.facts.early_gap_us {
            finding = finding.pro(format!(
                "the SYN was repeated after {}, long before its time-out: the kernel does that only after an \
                 ACK that does not acknowledge it",
                format::duration(gap)
            ));
        }
        if answers.is_empty() {
            finding =
                finding
                    .pro(meaning(&challenge_ack()))
                    .maybe_contra((!context.sees_answers).then(|| {
                        "the answer itself cannot be seen on this kernel (Linux 6.11 shows it)"
                            .to_owned()
                    }));
        }
        if let Some(first) = answers.first() {
            finding = finding.pro(meaning(first));
        }
        finding = match (ended_well, refused) {
            (true, _) => finding.pro(format!(
                "the RST with which this host answered ended it there: SYN {} was accepted, after {}. \
                 Nothing needs to have been lost",
                h.retransmits.saturating_add(1),
                super::took(h)
            )),
            (false, 2..) if answers.iter().any(|a| a.packet == Packet::Ack) => finding.pro(
                "this host answers each such ACK with a RST, which should end that connection: it does not \
                 arrive, or the other end ignores it",
            ),
            _ => finding,
        };
        if h.outcome == Outcome::Abandoned {
            finding = finding.pro(super::closed_by(h));
        }
        let local = match c.local_port {
            Some(port) => std::net::SocketAddr::new(c.local_addr, port).to_string(),
            None => c.local_addr.to_string(),
        };
        let peer = super::peer(h);
        Some(finding.remedy(format!(
            "on the peer, see the old connection: ss -tan src {peer} dst {local}; on the peer, end it: ss -K -t \
             state connected src {peer} dst {local}; then let RSTs pass between the two, or connect from \
             another port"
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "an answer to the SYN came, and TCP refused it",
            meaning: "The path works: something answered. But the answer does not fit this SYN, so the kernel \
                      discards it, and the application sees only a time-out. Mostly the peer still has an \
                      earlier connection with the same addresses and ports (a fixed source port, a NAT that \
                      forgot, a client host that crashed): it answers with a challenge ACK. This host \
                      answers with a RST, which ends the old connection, and sends its SYN again at once. Where a \
                      firewall drops that RST, every further SYN ends the same way.",
            detection: "skb:kfree_skb with a receiving socket in SYN_SENT (Linux 6.11): what came and why it was \
                      refused. On every kernel: a SYN repeated milliseconds after the one before it. Certain \
                      where that accounts for every SYN. A RST that acknowledges the SYN is refused.",
            remedy: "End the old connection on the peer, and let RSTs pass.\n    ss -K -t state connected src <peer>:<port> dst \
                     <this host>:<port>   (on the peer)",
            reproduce: "synprobe lab stale-established",
        }
    }
}

/// The answer that makes the kernel repeat its SYN at once.
fn challenge_ack() -> RefusedAnswer {
    RefusedAnswer {
        packet: Packet::Ack,
        reason: "TCP_INVALID_ACK_SEQUENCE".into(),
        times_ns: vec![0],
    }
}

fn article(name: &str) -> String {
    match name {
        "ACK" => "an ACK".to_owned(),
        name => format!("a {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Confidence,
        verdict::{context::Ends, fixtures::*},
    };

    fn with(h: &Handshake, packet: Packet, reason: &'static str, count: usize) -> Context {
        let mut context = Context::default();
        context.sees_answers = true;
        let began = h.facts.began_ns.unwrap();
        let answer = RefusedAnswer {
            packet,
            reason: reason.into(),
            times_ns: vec![began + 1; count],
        };
        context.note_refused_answer(NETNS, Ends::of(&h.connection).unwrap(), answer);
        context
    }

    fn stale(retransmits: u32, outcome: Outcome) -> Handshake {
        let mut h = active(outcome);
        h.retransmits = retransmits;
        h.gaps_us = vec![11_000; retransmits as usize];
        (h.facts.early_repeats, h.facts.early_gap_us) = (1, Some(11_000));
        h
    }

    #[test]
    fn challenge_acks_that_account_for_every_syn_make_it() {
        let h = stale(6, Outcome::Abandoned);
        let got = judged(&h, with(&h, Packet::Ack, "TCP_INVALID_ACK_SEQUENCE", 6));
        assert_eq!(got.verdict, Some(VerdictKind::AnswerRejected));
        assert_eq!(got.confidence, Confidence::Certain);
        assert_eq!(
            got.evidence[0].fact,
            "an ACK from 10.0.0.9:5432 came, 6 times, and TCP refused it: it acknowledges something else \
             than this SYN (TCP_INVALID_ACK_SEQUENCE)"
        );
        assert!(
            got.evidence
                .iter()
                .any(|e| e.fact.contains("RST, which should end"))
        );
        let remedy = got.remedy.unwrap();
        assert!(remedy.contains("ss -K -t state connected src 10.0.0.9:5432 dst 10.0.0.1:40000"));
    }

    #[test]
    fn a_syn_repeated_at_once_is_no_lost_one_on_any_kernel() {
        let mut h = stale(1, Outcome::Established);
        h.dwell_us = Some(12_000);
        let got = judged(&h, Context::default());
        assert_eq!(got.verdict, Some(VerdictKind::AnswerRejected));
        assert_eq!(got.confidence, Confidence::Certain);
        assert!(
            got.evidence
                .iter()
                .any(|e| !e.supports && e.fact.contains("6.11"))
        );
    }

    #[test]
    fn one_refused_answer_does_not_explain_ten_syns() {
        let mut h = active(Outcome::TimedOut);
        h.retransmits = 9;
        let got = judged(&h, with(&h, Packet::Rst, "TCP_RESET", 1));
        assert_eq!(got.verdict, Some(VerdictKind::Filtered));
        assert!(
            !got.evidence[0].fact.contains("no RST"),
            "{:?}",
            got.evidence
        );
        let got = judged(&h, with(&h, Packet::Rst, "TCP_RESET", 9));
        assert_eq!(
            (got.verdict, got.confidence),
            (Some(VerdictKind::AnswerRejected), Confidence::Likely)
        );
    }

    #[test]
    fn a_connect_that_went_well_or_was_refused_is_left_alone() {
        let h = active(Outcome::Established);
        let context = with(&h, Packet::Ack, "TCP_INVALID_ACK_SEQUENCE", 1);
        assert_eq!(verdict_of(&h, context).0, None);
        let mut h = stale(1, Outcome::Refused);
        h.facts.reset_seen = true;
        let context = with(&h, Packet::Ack, "TCP_INVALID_ACK_SEQUENCE", 1);
        assert_eq!(verdict_of(&h, context).0, Some(VerdictKind::Refused));
    }
}
