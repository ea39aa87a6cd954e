//! The round trip is longer than the time-out of the SYN.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    util::format,
    verdict::{Context, Explanation, Finding, Verdict, enter_of},
};

/// `spurious-retransmit`
pub(in crate::verdict) struct SpuriousRetransmit;

/// The echoed timestamp has a resolution of a millisecond, and the timer adds some.
const SLACK_US: u64 = 20_000;
/// An answer that comes sooner after the last SYN may be the answer to that one, on a shorter path: a server
/// whose SYN-ACK was lost echoes the first SYN too (`tcp_check_req()` keeps `ts_recent`).
const LONG_WAIT_US: u64 = 200_000;

impl Verdict for SpuriousRetransmit {
    fn kind(&self) -> VerdictKind {
        VerdictKind::SpuriousRetransmit
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let c = &h.connection;
        if c.role != Role::Client || h.outcome != Outcome::Established || h.unanswered() == 0 {
            return None;
        }
        let (echo_us, since_last_us) = (h.facts.echo_us?, h.facts.since_last_syn_us?);
        // It answers a SYN before the last one, and was on its way when that was sent.
        if echo_us < since_last_us.saturating_add(SLACK_US) || since_last_us < LONG_WAIT_US {
            return None;
        }
        if context
            .typical_us(c)
            .is_some_and(|(us, _)| us < since_last_us)
        {
            return None;
        }
        let first = h.dwell_us.is_some_and(|us| us.abs_diff(echo_us) < SLACK_US);
        let answered = if first {
            "the first SYN".to_owned()
        } else {
            format!("a SYN sent {} before", format::duration(echo_us))
        };
        Some(
            Finding::likely()
                .pro(format!(
                    "the SYN-ACK echoes the timestamp of {answered}: it took {} to come back, longer than the \
                     time-out",
                    format::duration(echo_us)
                ))
                .pro(format!(
                    "it came {} after the last SYN, {} after the one that it answers: the repetition was not \
                     needed",
                    format::duration(since_last_us),
                    format::duration(echo_us)
                ))
                .contra(format!(
                    "a lost SYN-ACK that the peer sent again would echo the same, if the round trip took {}",
                    format::duration(since_last_us)
                ))
                .remedy(format!(
                    "see the round trip: {}ping -c 3 {}; where it is over a second, nothing has to be done here; \
                     look for a queue that holds packets (bufferbloat, satellite, mobile)",
                    enter_of(c),
                    c.peer_addr
                )),
        )
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "nothing was lost: the round trip is longer than the first time-out",
            meaning: "The kernel repeats a SYN after a second. A path whose round trip is longer (satellite, \
                      mobile, a queue that holds packets) makes it repeat every SYN, though the first one is \
                      answered.",
            detection: "The SYN-ACK's echoed timestamp, by the first sample of the round trip \
                      (tcp_sock.srtt_us), is that of a SYN before the last one. The kernel takes the same for \
                      proof (tcp_try_undo_spurious_syn()). Likely, for a peer whose SYN-ACK was lost echoes the \
                      same. Without TCP timestamps it cannot be told: syn-lost-then-ok.",
            remedy: "Look at the round trip.\n    ping <peer>",
            reproduce: "synprobe lab long-round-trip",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    fn late(echo_us: u64, since_last_us: u64) -> Handshake {
        let mut h = active(Outcome::Established);
        (h.retransmits, h.dwell_us) = (1, Some(1_400_000));
        (h.facts.echo_us, h.facts.since_last_syn_us) = (Some(echo_us), Some(since_last_us));
        h
    }

    #[test]
    fn an_echo_of_the_first_syn_makes_it() {
        assert_eq!(
            verdict_of(&late(1_400_000, 400_000), Context::default()),
            (Some(VerdictKind::SpuriousRetransmit), Confidence::Likely)
        );
    }

    #[test]
    fn an_echo_of_the_last_syn_or_an_answer_at_once_is_a_lost_packet() {
        for (echo, since) in [(400_000, 400_000), (1_020_000, 20_000)] {
            assert_eq!(
                verdict_of(&late(echo, since), Context::default()).0,
                Some(VerdictKind::SynLostThenOk)
            );
        }
    }
}
