//! No answer of any kind.

use crate::{
    model::{Confidence, Handshake, Outcome, VerdictKind},
    util::format,
    verdict::{Context, Explanation, Finding, Verdict, enter_of, times},
};

/// Retransmissions without an answer after which an open handshake gets this verdict.
const ENOUGH: u32 = 2;

/// `filtered`
pub(in crate::verdict) struct Filtered;

impl Verdict for Filtered {
    fn kind(&self) -> VerdictKind {
        VerdictKind::Filtered
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let so_far = h.is_still_open() && h.retransmits >= ENOUGH;
        let gave_up = h.outcome == Outcome::Abandoned && super::answer_was_due(h);
        if !super::failed(h) || h.outcome != Outcome::TimedOut && !so_far && !gave_up {
            return None;
        }
        let mut finding = Finding::likely()
            .by_absence()
            .pro(super::no_answer(h, context));
        finding = match (h.outcome, h.facts.would_give_up_us) {
            (Outcome::TimedOut, _) => finding.pro("the kernel gave up: ETIMEDOUT"),
            (Outcome::Abandoned, us) => finding.pro(match us {
                Some(us) => format!(
                    "{}; the kernel would have tried for {}",
                    super::closed_by(h),
                    format::duration(us)
                ),
                None => super::closed_by(h),
            }),
            (_, Some(us)) => finding.pro(format!(
                "the kernel retries until {} after the first SYN",
                format::duration(us)
            )),
            _ => finding,
        };
        let by_kernel = h.outcome == Outcome::TimedOut;
        finding = finding.maybe_pro(own_limit(h).filter(|_| by_kernel));
        let typical = context.typical_us(&h.connection);
        if gave_up && typical.is_some() && h.retransmits < ENOUGH {
            // One or two packets were lost, on a path that otherwise works.
            finding.confidence = Confidence::Insufficient;
        }
        finding = finding.maybe_contra(stopped_repeating(h));
        if h.retransmits == 0 && failed_repetitions(h) > 0 {
            // Each try to repeat it failed here. Mostly the first one still waits in this host.
            finding.confidence = Confidence::Insufficient;
        }
        if let Some(not_repeated) = not_repeated(h, context) {
            finding.confidence = Confidence::Insufficient;
            finding = finding.contra(not_repeated);
        }
        finding = finding.maybe_contra(typical.map(|(us, n)| {
            format!(
                "{n} other handshakes with this peer completed lately, usually in {}",
                format::duration(us)
            )
        }));
        finding = finding.maybe_contra(context.ignored_icmp(h).map(|word| {
            format!(
                "ICMP from {} came, {}, about a segment that it never sent: the kernel ignored it",
                word.from, word.what
            )
        }));
        finding = finding.maybe_contra(context.freed_syns(h));
        finding = finding
            .maybe_contra(super::not_looked_at(h, context))
            .contra(match h.facts.peer_called_too {
                false => {
                    "a firewall that drops, a dead host and a server that drops SYNs at a full queue look the \
                     same from here"
                }
                true => {
                    "a firewall that drops what we send and a peer that has closed its socket look the same from here"
                }
            });
        let peer = h.connection.peer_addr;
        let port = h.connection.peer_port.unwrap_or(0);
        let run = enter_of(&h.connection);
        Some(finding.remedy(format!(
            "{run}ping -c 3 {peer}; {run}traceroute -T -p {port} {peer}; on the peer, see whether the SYN \
             arrives: tcpdump -ni any 'tcp port {port}'; on the peer, see whether its queue is full: nstat -az \
             TcpExtListenOverflows"
        )))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "no answer of any kind to our SYNs",
            meaning: "Nothing came back: no SYN-ACK, no RST, no ICMP error, until the retries ran out or \
                      so far. Mostly a firewall that drops silently or a host that is down; also a \
                      server whose accept queue is full, for it drops SYNs silently.",
            detection: "ETIMEDOUT, or at least two retransmissions of the SYN so far, or an application that \
                      gave up after an answer was due (1 s), without a RST, an ICMP error or a packet dropped by this host. It rests on silence and so is likely at \
                      the most. Where the server is on this host too, its queue is looked at: \
                      server-queue-full.",
            remedy: "Find where the SYN ends.\n    traceroute -T -p <port> <peer>\n    tcpdump -ni any \
                     'tcp port <port>'   (on the peer)",
            reproduce: "synprobe lab syn-lost\nsynprobe lab synack-lost",
        }
    }
}

/// That the first SYN was not repeated when it was due: the kernel skips a repetition while the SYN before it is still
/// in a queue of this host (`skb_still_in_host_queue()`), and raises no event then.
fn not_repeated(h: &Handshake, context: &Context) -> Option<String> {
    // What one that is older than the run has sent is an estimate.
    let is_known = !h.facts.preexisting && !context.losses.touch(h);
    let due = h.dwell_us.is_some_and(|us| us >= OVERDUE_US) && h.retransmits == 0;
    let waits = due && !h.facts.peer_called_too && h.outcome != Outcome::TimedOut;
    (is_known && waits).then(|| {
        "the kernel did not repeat the SYN, which was due after 1 s: so it does while the first one still waits in \
         this host, most often for an answer to ARP or neighbour discovery"
            .to_owned()
    })
}

/// Repetitions of the SYN that this host could not send (Linux 6.17).
fn failed_repetitions(h: &Handshake) -> usize {
    h.gaps_us.len().saturating_sub(h.retransmits as usize)
}

/// That no SYN followed the last one, though one was due: the time-out after it is twice the one before, at the most.
/// From Linux 6.17 on an event shows each try that failed.
fn stopped_repeating(h: &Handshake) -> Option<String> {
    let failed = failed_repetitions(h);
    if failed > 0 {
        return Some(format!(
            "this host could not send the SYN {}, when it was due again: its link, route or address is gone, or the \
             next hop does not answer",
            times(failed as u32)
        ));
    }
    let last_us = *h.gaps_us.last()?;
    let all_known = h.gaps_us.len() == h.retransmits as usize;
    let since_us = h.dwell_us?.checked_sub(h.gaps_us.iter().sum())?;
    let due = since_us > last_us * 5 / 2 + 500_000 && h.outcome != Outcome::TimedOut;
    (all_known && due).then(|| {
        format!(
            "no SYN was sent in the last {}, though one was due: this host could not send it (its link, route or \
             address is gone, or the next hop does not answer)",
            format::duration(since_us)
        )
    })
}

/// A first time-out of the kernel (TCP_TIMEOUT_INIT), and the time that its timer may be late, µs.
const OVERDUE_US: u64 = 1_500_000;

/// What the socket itself has set, which ends its retries.
fn own_limit(h: &Handshake) -> Option<String> {
    if let Some(us) = h.facts.user_timeout_us {
        let limit = format::duration(us);
        return Some(format!(
            "the application has set TCP_USER_TIMEOUT to {limit}: the kernel tries for no longer than that"
        ));
    }
    let count = h.facts.syn_count?;
    Some(format!(
        "the application has set TCP_SYNCNT to {count}: it replaces net.ipv4.tcp_syn_retries"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::fixtures::*;

    /// The quiet mode learns of it by the first try, whose gap is not known.
    #[test]
    fn where_each_repetition_failed_here_there_is_no_verdict() {
        let mut h = active(Outcome::Abandoned);
        (h.dwell_us, h.retransmits, h.gaps_us) = (Some(2_870_000), 0, vec![1_020_000]);
        h.facts.preexisting = true;
        let judgement = judged(&h, Context::default());
        assert_eq!(judgement.verdict, None);
        let mut facts = judgement.evidence.iter().map(|e| e.fact.as_str());
        assert!(facts.any(|fact| fact.starts_with("this host could not send the SYN once")));
    }

    #[test]
    fn the_sockets_own_limit_is_named() {
        let said = |change: fn(&mut Handshake)| {
            let mut h = active(Outcome::TimedOut);
            change(&mut h);
            let judgement = judged(&h, Context::default());
            let mut facts = judgement.evidence.into_iter().map(|e| e.fact);
            facts.find(|fact| fact.starts_with("the application has set"))
        };
        assert_eq!(said(|_| ()), None);
        let said_of = said(|h| h.facts.user_timeout_us = Some(2_500_000));
        assert!(said_of.unwrap().contains("TCP_USER_TIMEOUT to 2.50 s:"));
        let said_of = said(|h| h.facts.syn_count = Some(1));
        assert!(said_of.unwrap().contains("TCP_SYNCNT to 1:"));
        // Where the application closed the socket, its limit did not end it.
        let said_of = said(|h| {
            h.outcome = Outcome::Abandoned;
            h.facts.syn_count = Some(1);
        });
        assert_eq!(said_of, None);
    }

    #[test]
    fn silence_until_the_end_or_so_far_makes_it() {
        let ended = active(Outcome::TimedOut);
        let mut open = active(Outcome::Open);
        open.retransmits = 3;
        for h in [ended, open] {
            assert_eq!(
                verdict_of(&h, Context::default()),
                (Some(VerdictKind::Filtered), Confidence::Likely)
            );
        }
    }

    /// A dead neighbour, and an application that waits for less than ARP takes.
    #[test]
    fn a_syn_that_was_not_repeated_in_time_has_not_left() {
        let mut h = active(Outcome::Abandoned);
        (h.dwell_us, h.retransmits) = (Some(2_004_000), 0);
        let judgement = judged(&h, Context::default());
        assert_eq!(judgement.verdict, None);
        let mut facts = judgement.evidence.iter().map(|e| &e.fact);
        assert!(facts.any(|fact| fact.contains("still waits in this host")));
        // It was repeated: both were sent.
        h.retransmits = 1;
        let got = verdict_of(&h, Context::default());
        assert_eq!(got, (Some(VerdictKind::Filtered), Confidence::Likely));
    }

    /// The link goes down meanwhile: each repetition fails without an event.
    #[test]
    fn repetitions_that_stop_are_said() {
        let mut h = active(Outcome::Abandoned);
        (h.dwell_us, h.retransmits, h.gaps_us) = (Some(5_000_000), 1, vec![1_010_000]);
        let said = |h: &Handshake| {
            let judgement = judged(h, Context::default());
            assert_eq!(judgement.verdict, Some(VerdictKind::Filtered));
            let mut facts = judgement.evidence.into_iter();
            facts.any(|e| e.fact.starts_with("no SYN was sent in the last 3.99 s") && !e.supports)
        };
        assert!(said(&h));
        // Linux 6.17 shows the tries.
        let mut tried = h.clone();
        tried.gaps_us = vec![1_010_000, 1_020_000, 1_020_000, 1_020_000];
        let judgement = judged(&tried, Context::default());
        let mut facts = judgement.evidence.into_iter();
        assert!(facts.any(|e| {
            e.fact
                .starts_with("this host could not send the SYN 3 times")
                && !e.supports
        }));
        // The next one is due two seconds after the last.
        h.dwell_us = Some(2_900_000);
        assert!(!said(&h));
    }

    #[test]
    fn one_retransmission_is_not_enough() {
        let mut h = active(Outcome::Open);
        h.retransmits = 1;
        assert_eq!(
            verdict_of(&h, Context::default()),
            (None, Confidence::Insufficient)
        );
    }

    #[test]
    fn that_the_application_gave_up_is_a_fact_beside_it() {
        let mut h = active(Outcome::Abandoned);
        h.retransmits = 3;
        let judgement = judged(&h, Context::default());
        assert_eq!(judgement.verdict, Some(VerdictKind::Filtered));
        assert!(
            judgement.evidence[1]
                .fact
                .starts_with("app closed it after")
        );
        h.outcome = Outcome::Established;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::SynLostThenOk)
        );
    }
}
