//! TCP_DEFER_ACCEPT waits for data.

use crate::{
    model::{Handshake, Role, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict},
};

/// `defer-accept`
pub(in crate::verdict) struct DeferAccept;

impl Verdict for DeferAccept {
    fn kind(&self) -> VerdictKind {
        VerdictKind::DeferAccept
    }

    fn is_fault(&self) -> bool {
        false
    }

    fn check(&self, h: &Handshake, _: &Context) -> Option<Finding> {
        let f = &h.facts;
        let waits = h.connection.role == Role::Server
            && (f.acked || f.ack_untold)
            && f.defer_accept == Some(true)
            && !f.queue_was_full;
        waits.then(|| {
            let finding = match f.acked {
                true => Finding::certain()
                    .accounts_for_outcome()
                    .pro("the listener has TCP_DEFER_ACCEPT")
                    .pro("its final ACK came without data, and the kernel waits for some"),
                false => Finding::likely()
                    .pro("the listener has TCP_DEFER_ACCEPT")
                    .pro("an ACK came without data, and the kernel discarded it")
                    .contra(super::ACK_UNTOLD),
            };
            finding
                .remedy(
                    "no action is needed; if it is not wanted, remove TCP_DEFER_ACCEPT from the listener \
                     (nginx: listen … deferred)",
                )
        })
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "TCP_DEFER_ACCEPT waits for the client's first data: not a fault",
            meaning: "The listener asked the kernel not to wake it for a connection that has \
                      sent no data yet. The client is connected; the server stays half-open until data come, or \
                      for as long as the option says. Clients that connect ahead of need, health checks \
                      and port scanners show up so.",
            detection: "The listener's own setting (icsk_accept_queue.rskq_defer_accept) together with a \
                      final ACK that was discarded (inet_request_sock.acked, or the packet itself), \
                      while the accept queue had room: certain.",
            remedy: "Nothing, unless the option was set by mistake.",
            reproduce: "synprobe lab defer-accept",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Outcome},
        verdict::fixtures::*,
    };

    fn deferred(outcome: Outcome) -> Handshake {
        let mut h = half_open(outcome);
        h.facts.acked = true;
        h.facts.defer_accept = Some(true);
        h
    }

    #[test]
    fn an_ack_that_waits_for_data_makes_it() {
        for outcome in [Outcome::Open, Outcome::Established, Outcome::Expired] {
            let got = verdict_of(&deferred(outcome), Context::default());
            assert_eq!(
                got,
                (Some(VerdictKind::DeferAccept), Confidence::Certain),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn a_full_queue_is_the_stronger_reason() {
        let mut h = deferred(Outcome::Open);
        h.facts.queue_was_full = true;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::AcceptQueueFull)
        );
    }

    #[test]
    fn without_the_ack_the_option_says_nothing() {
        let mut h = deferred(Outcome::Expired);
        h.facts.acked = false;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::PeerSilent)
        );
    }
}
