//! One process calls many destinations, and few accept it.

use crate::{
    model::{Handshake, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict},
};

/// Fewer addresses, or ports, are no scan.
const SPREAD: usize = 30;
/// A scan is accepted by one destination in this many, at the most.
const LET_IN: usize = 5;
/// A scan does not come back: attempts for each destination, at the most.
const AGAIN: u64 = 3;

/// `scan-fanout`
pub(in crate::verdict) struct ScanFanout;

impl Verdict for ScanFanout {
    fn kind(&self) -> VerdictKind {
        VerdictKind::ScanFanout
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::failed(h) {
            return None;
        }
        let f = context.fanout(&h.connection)?;
        let closed = f.closed();
        let wide = closed.addresses >= SPREAD || closed.ports >= SPREAD;
        let let_in = f.destinations() - closed.destinations;
        // Which process made them is not known: as if all were its own, each to another destination.
        let counted = usize::try_from(context.counted_clients).unwrap_or(usize::MAX);
        let few = let_in.saturating_add(counted).saturating_mul(LET_IN) <= f.destinations();
        let once = closed.attempts <= AGAIN * closed.destinations as u64;
        if !wide || !few || !once {
            return None;
        }
        let who = f.comm.as_deref().map_or_else(
            || format!("process {}", f.pid),
            |comm| format!("{}/{}", crate::util::format::name(comm), f.pid),
        );
        Some(
            Finding::likely()
                .pro(format!(
                    "{who} called {}{} destinations, {:.0} a second; {let_in} of them accepted a connection",
                    if f.cut { "at least " } else { "" },
                    f.destinations(),
                    f.rate()
                ))
                .pro(format!(
                    "the others are {} addresses and {} ports, called {:.1} times each",
                    closed.addresses,
                    closed.ports,
                    closed.attempts as f64 / closed.destinations.max(1) as f64
                ))
                .contra("monitoring and service discovery call many too: look at what the process is")
                .remedy(format!(
                    "ls -l /proc/{pid}/exe; tr '\\0' ' ' </proc/{pid}/cmdline; cat /proc/{pid}/cgroup; if \
                     nobody knows it, keep it from the network before anything else",
                    pid = f.pid
                )),
        )
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "one process calls many addresses or ports and few accept it: a scanner, or a worm",
            meaning: "A process of this host opens connections to many destinations, each once or twice, \
                      and hardly any of them completes. That is what a port scan, a worm or a badly \
                      configured discovery looks like from the host that it runs on.",
            detection: "At least 30 addresses, or 30 ports, that accepted no connection of one process in this run, \
                      at most one destination in five that did, and at most three attempts for each of \
                      the others (an application that retries its dead backends is no scan). Likely at \
                      the most.",
            remedy: "See what the process is.\n    ls -l /proc/<pid>/exe\n    cat /proc/<pid>/cgroup",
            reproduce: "synprobe lab scan-horizontal\nsynprobe lab scan-vertical",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        model::{Confidence, Outcome},
        verdict::fixtures::*,
    };

    fn calling(addresses: u8, times: u32) -> Context {
        let mut context = Context::default();
        for n in 0..addresses {
            for t in 0..times {
                let at = 1_000 * SEC + u64::from(n) * SEC / 100 + u64::from(t);
                context.note(&began(Ipv4Addr::new(10, 1, 0, n).into(), 22, at));
            }
        }
        context
    }

    fn refused() -> Handshake {
        let mut h = active(Outcome::Refused);
        h.facts.reset_seen = true;
        h
    }

    #[test]
    fn many_destinations_and_few_answers_make_it() {
        let judgement = judged(&refused(), calling(60, 1));
        assert_eq!(judgement.verdict, Some(VerdictKind::ScanFanout));
        assert_eq!(judgement.confidence, Confidence::Likely);
        assert!(
            judgement.evidence[0]
                .fact
                .starts_with("app/77 called 60 destinations")
        );
    }

    #[test]
    fn a_few_destinations_are_refused_and_nothing_more() {
        assert_eq!(
            verdict_of(&refused(), calling(10, 1)).0,
            Some(VerdictKind::Refused)
        );
    }

    #[test]
    fn an_application_that_retries_its_backends_is_no_scan() {
        assert_eq!(
            verdict_of(&refused(), calling(40, 10)).0,
            Some(VerdictKind::Refused)
        );
    }

    #[test]
    fn a_crawler_that_is_let_in_is_no_scan() {
        let mut context = calling(60, 1);
        for n in 0..50 {
            let mut fine = active(Outcome::Established);
            fine.connection.peer_addr = Ipv4Addr::new(10, 1, 0, n).into();
            fine.connection.peer_port = Some(22);
            context.note(&line(fine));
        }
        assert_eq!(
            verdict_of(&refused(), context).0,
            Some(VerdictKind::Refused)
        );
    }

    #[test]
    fn one_destination_that_is_called_all_the_time_does_not_hide_it() {
        let mut context = calling(60, 1);
        for n in 0..200 {
            context.note(&began(
                Ipv4Addr::new(10, 9, 9, 9).into(),
                80,
                1_000 * SEC + n,
            ));
            let mut fine = active(Outcome::Established);
            fine.connection.peer_addr = Ipv4Addr::new(10, 9, 9, 9).into();
            fine.connection.peer_port = Some(80);
            context.note(&line(fine));
        }
        assert_eq!(
            verdict_of(&refused(), context).0,
            Some(VerdictKind::ScanFanout)
        );
    }
}
