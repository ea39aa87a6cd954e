//! The server is on this host too, and has no route back to the client: it refuses the SYN without a trace.

use crate::{
    model::{Handshake, VerdictKind},
    verdict::{Context, CounterRise, Explanation, Finding, Verdict},
};

/// Fewer may be equal by chance: other packets without a route are counted together with these.
pub(in crate::verdict) const FEW: u64 = 3;

/// `no-route-back`
pub(in crate::verdict) struct NoRouteBack;

impl Verdict for NoRouteBack {
    fn kind(&self) -> VerdictKind {
        VerdictKind::NoRouteBack
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::waited_for_an_answer(h, context) {
            return None;
        }
        let listener = context.called_listener(&h.connection)?;
        let netns = listener.last.netns;
        let refused = context.refused_without_trace(netns)?;
        let no_routes = context.moved(netns, |c| c.out_no_routes)?;
        let unanswered = context.unanswered_syns(&h.connection, listener);
        // Each SYN is a drop of the listener, and a packet without a route. The first reading of `sk_drops` comes
        // a moment after that of the counters: its rise tells whether, and not how often.
        let explained = refused.min(no_routes);
        if unanswered == 0 || listener.dropped()? == 0 || explained * 2 < unanswered {
            return None;
        }
        let adds_up = no_routes == refused && refused >= FEW;
        let mut finding = if explained >= unanswered && adds_up {
            Finding::certain().accounts_for(explained)
        } else {
            Finding::likely()
        };
        finding = finding
            .pro(format!(
                "the server is on this host: listener {}",
                listener.name()
            ))
            .pro(refused_fact(refused))
            .pro(no_routes_fact(no_routes));
        if explained < unanswered {
            finding = finding.contra(format!(
                "{unanswered} SYNs to it got no answer: {} of them are not explained by this",
                unanswered - explained
            ));
        }
        if no_routes > refused {
            finding = finding.contra(other_packets(no_routes - refused));
        }
        let c = &h.connection;
        Some(
            finding
                .pro(format!("{} in {}", super::syns(h), super::took(h)))
                .remedy(format!(
                    "see that no route leads back: {}ip route get {} from {}; add one, or a default route",
                    listener.in_its_netns(),
                    c.local_addr,
                    c.peer_addr
                )),
        )
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[CounterRise::Refusals]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the server has no route back to the client: the listener refuses the SYN without a trace",
            meaning: "The SYN reached a listener of this host. Before it makes a half-open, the kernel looks \
                      for the route of the SYN-ACK. There is none, or the route is blackhole, unreachable or \
                      prohibit: the SYN is discarded. No packet answers, and no event tells: \
                      the client waits in SYN_SENT.",
            detection: "ListenDrops of the namespace rose by more than ListenOverflows and TCPReqQFullDrop: \
                      a listener refused SYNs though no queue was full. IPv4's OutNoRoutes, or \
                      Ip6OutNoRoutes, rose too (inet_csk_route_req()): by exactly as many: certain; \
                      else likely, because other packets without a route count there too. IPv6 does not \
                      count blackhole and prohibit routes: then only the refused SYNs are shown.",
            remedy: "Give the server a route to the client's network.\n    ip route get CLIENT from SERVER\n    \
                     ip route show table all | grep -E 'blackhole|unreachable|prohibit'\n    ip rule",
            reproduce: "synprobe lab no-route-back",
        }
    }
}

/// What the counters of the listeners say.
pub(in crate::verdict) fn refused_fact(refused: u64) -> String {
    format!(
        "ListenDrops of its namespace rose by {refused} more than ListenOverflows and TCPReqQFullDrop in this \
         run: SYNs were refused for another reason than a full queue"
    )
}

/// What the counters of routing say.
pub(in crate::verdict) fn no_routes_fact(no_routes: u64) -> String {
    format!(
        "{no_routes} packets of its namespace had no route (OutNoRoutes of IPv4 and IPv6): the SYN-ACK cannot \
         be sent"
    )
}

/// Why they may not be SYN-ACKs.
pub(in crate::verdict) fn other_packets(n: u64) -> String {
    format!("{n} packets without a route were none of these SYN-ACKs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, ListenCounters, Outcome},
        verdict::fixtures::*,
    };

    /// A listener on this host, and how its namespace's counters rose.
    fn context(drops: u64, overflows: u64, no_routes: u64) -> Context {
        let mut context = Context::default();
        context.has_addresses(NETNS, vec!["10.0.0.9".parse().unwrap()]);
        for share in [0, 1, 1] {
            let mut it = listener(0, 0);
            it.drops = Some(drops * share);
            let counters = ListenCounters {
                netns: NETNS,
                listen_overflows: Some(overflows * share),
                listen_drops: Some(drops * share),
                req_q_full_drop: Some(0),
                out_no_routes: Some(no_routes * share),
                ..ListenCounters::default()
            };
            context.sample(&[it], &[counters]);
        }
        context
    }

    fn waiting() -> Handshake {
        let mut h = active(Outcome::Abandoned);
        h.connection.peer_port = Some(8080);
        h.retransmits = 2;
        h
    }

    #[test]
    fn numbers_that_add_up_make_it_certain() {
        let got = verdict_of(&waiting(), context(3, 0, 3));
        assert_eq!(got, (Some(VerdictKind::NoRouteBack), Confidence::Certain));
    }

    #[test]
    fn other_packets_without_a_route_take_the_certainty() {
        let judged = judged(&waiting(), context(3, 0, 9));
        assert_eq!(judged.verdict, Some(VerdictKind::NoRouteBack));
        assert_eq!(judged.confidence, Confidence::Likely);
        let contra: Vec<_> = judged.evidence.iter().filter(|e| !e.supports).collect();
        assert_eq!(
            contra[0].fact,
            "6 packets without a route were none of these SYN-ACKs"
        );
    }

    #[test]
    fn a_full_queue_and_a_loss_elsewhere_are_not_it() {
        // All drops are overflows.
        let (verdict, _) = verdict_of(&waiting(), context(3, 3, 3));
        assert_ne!(verdict, Some(VerdictKind::NoRouteBack));
        // Nothing was refused here.
        let (verdict, _) = verdict_of(&waiting(), context(0, 0, 3));
        assert_ne!(verdict, Some(VerdictKind::NoRouteBack));
        // One refusal does not explain three SYNs.
        let (verdict, _) = verdict_of(&waiting(), context(1, 0, 1));
        assert_ne!(verdict, Some(VerdictKind::NoRouteBack));
    }
}
