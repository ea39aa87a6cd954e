//! More clients at once than the queues were made for, and they complete.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    verdict::{Context, CounterRise, Explanation, Finding, Verdict},
};

/// Fewer completed handshakes are no crowd.
const CROWD: u64 = 100;

/// `flash-crowd`
pub(in crate::verdict) struct FlashCrowd;

impl Verdict for FlashCrowd {
    fn kind(&self) -> VerdictKind {
        VerdictKind::FlashCrowd
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let late = h.retransmits > 0 || h.facts.cookie && h.dwell_us.is_none();
        if h.connection.role != Role::Server || h.outcome != Outcome::Established || !late {
            return None;
        }
        let port_stats = context.port_stats(&h.connection)?;
        let netns = h.connection.netns;
        let cookies = context.moved(netns, |c| c.syncookies_sent).unwrap_or(0);
        let overflows = context.moved(netns, |c| c.listen_overflows).unwrap_or(0);
        let pressed = cookies > 0 || overflows > 0;
        if port_stats.established < CROWD
            || !pressed
            || port_stats.silent() * 4 > port_stats.established
        {
            return None;
        }
        Some(
            Finding::likely()
                .pro(format!(
                    "{} handshakes completed at this port, {:.0} a second, and {} did not",
                    port_stats.established,
                    port_stats.rate(),
                    port_stats.silent()
                ))
                .pro(format!(
                    "the queues overflowed meanwhile: {cookies} SYN cookies, {overflows} ListenOverflows"
                ))
                .remedy(format!(
                    "{}; raise listen()'s backlog and net.core.somaxconn to the size of the burst, and \
                     see that the application accepts fast enough",
                    super::ss_listener(h)
                )),
        )
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[CounterRise::Overflows, CounterRise::Cookies]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "more real clients at once than the queues take: late, but they complete",
            meaning: "A burst of real clients: reconnects after a failover, a cache that expired, a \
                      launch. The queues overflow for a moment, some handshakes need a second SYN-ACK or \
                      a SYN cookie, but they complete. The same rate without completions is a flood.",
            detection: "A late handshake at a port where at least 100 completed in this run, at most one \
                      silent half-open for every four of them, and cookies or overflows counted.",
            remedy: "Queues as long as the burst, and an application that accepts as fast as it comes.\n    \
                     synprobe listeners\n    sysctl net.core.somaxconn",
            reproduce: "synprobe lab flash-crowd",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    fn crowd(completed: u32, cookies: u64) -> Context {
        let mut context = looked(&listener(0, 10), 0, cookies);
        for n in 0..completed {
            let mut h = half_open_of(
                &format!("198.18.{}.{}", n / 250, n % 250),
                Outcome::Established,
            );
            h.retransmits = 0;
            context.note(&line(h));
        }
        context
    }

    #[test]
    fn a_late_one_among_many_that_complete_makes_it() {
        let got = verdict_of(&half_open(Outcome::Established), crowd(300, 9));
        assert_eq!(got, (Some(VerdictKind::FlashCrowd), Confidence::Likely));
    }

    #[test]
    fn alone_it_is_a_slow_peer_and_silent_it_is_not_a_crowd() {
        let late = half_open(Outcome::Established);
        assert_eq!(
            verdict_of(&late, crowd(5, 9)).0,
            Some(VerdictKind::SlowPeer)
        );
        assert_eq!(
            verdict_of(&late, crowd(300, 0)).0,
            Some(VerdictKind::SlowPeer)
        );
        let silent = half_open(Outcome::Expired);
        assert_eq!(
            verdict_of(&silent, crowd(300, 9)).0,
            Some(VerdictKind::PeerSilent)
        );
    }
}
