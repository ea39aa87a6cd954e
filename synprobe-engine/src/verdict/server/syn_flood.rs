//! Many silent sources against one listener.

use crate::{
    model::{Handshake, VerdictKind},
    verdict::{
        Context, CounterRise, Explanation, Finding, Verdict,
        context::{PortStats, sent_only_syns},
        enter_of,
    },
};

/// Fewer silent half-opens are no flood.
const SILENT: u64 = 50;
/// Nor are fewer sources.
const SOURCES: u64 = 20;
/// A SYN queue filled to this part is under pressure.
const PRESSED: f64 = 0.5;
/// At most one in this many of a flood's sources completes a handshake.
const RETURN: u64 = 10;

/// `syn-flood`
pub(in crate::verdict) struct SynFlood;

/// The facts that make the traffic of a port a flood; `None`: it is none.
fn flood(
    port_stats: &PortStats,
    fill: Option<f64>,
    cookies: u64,
    full_drops: u64,
    during: &str,
) -> Option<Vec<String>> {
    let (silent, sources) = (port_stats.silent(), port_stats.silent_sources());
    let pressed = cookies > 0 || full_drops > 0 || fill.is_some_and(|fill| fill >= PRESSED);
    if silent < SILENT || sources < SOURCES || !pressed || port_stats.returned() * RETURN > sources
    {
        return None;
    }
    let mut facts = vec![
        format!(
            "{silent} half-opens at this port whose peer never answered, from {}{sources} addresses",
            if port_stats.sources_are_cut() {
                "at least "
            } else {
                ""
            }
        ),
        format!(
            "{} of these addresses ever completed a handshake {during}",
            port_stats.returned()
        ),
    ];
    if cookies > 0 {
        facts.push(format!(
            "the kernel sent {cookies} SYN cookies {during}: the SYN queue was full"
        ));
    }
    if full_drops > 0 {
        facts.push(format!(
            "{full_drops} SYNs were dropped at a full SYN queue (TCPReqQFullDrop)"
        ));
    }
    if let Some(fill) = fill.filter(|fill| *fill >= PRESSED) {
        facts.push(format!(
            "the SYN queue was {:.0} % full at its fullest",
            fill * 100.0
        ));
    }
    Some(facts)
}

impl Verdict for SynFlood {
    fn kind(&self) -> VerdictKind {
        VerdictKind::SynFlood
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::unfinished(h) || !sent_only_syns(h) {
            return None;
        }
        let repeats = h.repeated_syns() > 0;
        // An address that completed a handshake lives, and may well repeat its SYN.
        if repeats && context.accepted_before(&h.connection) {
            return None;
        }
        let netns = h.connection.netns;
        let port_stats = context.port_stats(&h.connection)?;
        let looked = context.listener(&h.connection).and_then(|l| l.syn_fill());
        let fill = [looked, port_stats.fullest].into_iter().flatten();
        let facts = flood(
            port_stats,
            fill.reduce(f64::max),
            context.moved(netns, |c| c.syncookies_sent).unwrap_or(0),
            context.moved(netns, |c| c.req_q_full_drop).unwrap_or(0),
            context.during(),
        )?;
        let mut finding = Finding::likely().by_absence();
        for fact in facts {
            finding = finding.pro(fact);
        }
        finding = finding.contra(
            "whether an address is forged, or its ACK is lost on the way here, one host cannot tell",
        );
        finding = finding.maybe_contra(repeats.then(|| {
            format!(
                "it repeated its SYN {}, as a client does that gets no SYN-ACK; whoever forges one SYN can forge more",
                crate::verdict::times(h.repeated_syns())
            )
        }));
        let port = h.connection.local_port.unwrap_or(0);
        let run = enter_of(&h.connection);
        Some(finding.remedy(format!(
            "keep SYN cookies on: {run}sysctl -w net.ipv4.tcp_syncookies=1; shed half-opens after 7 s: \
             {run}sysctl -w net.ipv4.tcp_synack_retries=2; limit SYNs to port {port} before they reach the listener (nftables synproxy, the \
             provider's filter); a longer backlog alone only feeds it"
        )))
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[
            CounterRise::Overflows,
            CounterRise::FullSynQueue,
            CounterRise::Cookies,
        ]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "many addresses send one SYN each and nothing more: the SYN queue is under pressure",
            meaning: "One listener is given SYNs from many addresses that never answer the SYN-ACK. Each \
                      takes a place in the SYN queue for up to a minute; once it is full the kernel \
                      answers with SYN cookies, or drops SYNs where they are off. Real clients get in \
                      through cookies, with fewer TCP options.",
            detection: "At least 50 half-opens that got nothing but SYNs from at least 20 addresses at one port, of which at \
                      most one in ten ever completed a handshake in this run, and a SYN queue under \
                      pressure: cookies sent, SYNs dropped, or half full. Likely at the most: a path \
                      that loses every ACK looks the same from here. A flash crowd has the rate and \
                      completes.",
            remedy: "Keep SYN cookies on, shorten the half-opens' life, limit SYNs in front.\n    sysctl \
                     net.ipv4.tcp_syncookies=1\n    sysctl net.ipv4.tcp_synack_retries=2\n    nstat -az \
                     TcpExtSyncookiesSent TcpExtTCPReqQFullDrop",
            reproduce: "synprobe lab syn-flood\nsynprobe lab incident-flood",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Outcome, Queue},
        verdict::fixtures::*,
    };

    /// A port with `silent` silent sources, `returned` of which completed a handshake too.
    fn flooded(silent: u32, returned: u32, cookies: u64) -> Context {
        let mut context = looked(&listener(0, 10), 0, cookies);
        for n in 0..silent {
            let peer = format!("198.18.{}.{}", n / 250, n % 250);
            context.note(&line(half_open_of(&peer, Outcome::Expired)));
            if n < returned {
                let mut fine = half_open_of(&peer, Outcome::Established);
                fine.retransmits = 0;
                context.note(&line(fine));
            }
        }
        context
    }

    #[test]
    fn many_silent_sources_and_cookies_make_it() {
        let got = verdict_of(&half_open(Outcome::Expired), flooded(200, 0, 30));
        assert_eq!(got, (Some(VerdictKind::SynFlood), Confidence::Likely));
    }

    #[test]
    fn a_few_silent_peers_are_just_that() {
        let (verdict, _) = verdict_of(&half_open(Outcome::Expired), flooded(30, 0, 30));
        assert_eq!(verdict, Some(VerdictKind::PeerSilent));
    }

    #[test]
    fn without_pressure_on_the_queue_it_is_not_said() {
        let (verdict, _) = verdict_of(&half_open(Outcome::Expired), flooded(200, 0, 0));
        assert_eq!(verdict, Some(VerdictKind::PeerSilent));
    }

    #[test]
    fn events_tell_of_the_pressure_before_a_look_does() {
        let mut h = half_open(Outcome::Expired);
        let queue = |qlen| {
            Some(Queue {
                qlen,
                max: 128,
                ..Queue::default()
            })
        };
        h.facts.queue = queue(30);
        let (verdict, _) = verdict_of(&h, flooded(200, 0, 0));
        assert_eq!(verdict, Some(VerdictKind::PeerSilent));
        let mut context = flooded(200, 0, 0);
        let mut earlier = half_open(Outcome::Expired);
        earlier.facts.queue = queue(129);
        context.note(&line(earlier));
        let (verdict, _) = verdict_of(&h, context);
        assert_eq!(verdict, Some(VerdictKind::SynFlood));
    }

    #[test]
    fn sources_that_come_in_are_a_crowd() {
        let (verdict, _) = verdict_of(&half_open(Outcome::Expired), flooded(200, 100, 30));
        assert_eq!(verdict, Some(VerdictKind::PeerSilent));
    }

    #[test]
    fn a_repeated_syn_is_part_of_it_unless_its_address_is_known_to_live() {
        let mut h = half_open(Outcome::Expired);
        h.retransmits_by_peer = 1;
        let got = judged(&h, flooded(200, 0, 30));
        let due = (Some(VerdictKind::SynFlood), Confidence::Likely);
        assert_eq!((got.verdict, got.confidence), due);
        assert!(
            got.evidence
                .iter()
                .any(|e| !e.supports && e.fact.starts_with("it repeated its SYN once"))
        );
        let mut context = flooded(200, 0, 30);
        let mut fine = half_open(Outcome::Established);
        fine.retransmits = 0;
        context.note(&line(fine));
        assert_eq!(verdict_of(&h, context).0, Some(VerdictKind::SynackLost));
    }

    #[test]
    fn a_flood_may_send_each_syn_twice() {
        let mut context = looked(&listener(0, 10), 0, 30);
        for n in 0..200 {
            let mut h = half_open_of(&format!("198.18.1.{n}"), Outcome::Expired);
            h.retransmits_by_peer = 1;
            context.note(&line(h));
        }
        let got = verdict_of(&half_open(Outcome::Expired), context);
        assert_eq!(got.0, Some(VerdictKind::SynFlood));
    }
}
