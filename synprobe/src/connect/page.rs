//! The page: one block for each address, then the result that an application would get.

use std::{fmt::Write as _, time::Duration};

use super::{
    attempt::AttemptEnd,
    report::{AttemptDetail, ConnectReport},
};
use crate::{
    model::{Confidence, Handshake, Outcome, RedirectedBy, VerdictKind},
    util::format::{duration, ladder, name, safe},
};

/// The first line: what will be tried.
pub fn heading(host: &str, port: u16, addresses: usize, resolve_us: Option<u64>) -> String {
    let count = match addresses {
        1 => "1 address".to_owned(),
        n => format!("{n} addresses, in the order of an application"),
    };
    let resolved = resolve_us.map_or(String::new(), |us| {
        format!(", resolved in {}", duration(us))
    });
    format!("{}, port {port}: {count}{resolved}\n", safe(host))
}

/// The rest of the page. `timeout`: `--timeout`. `lost`: kernel records that were lost.
pub fn page(report: &ConnectReport, timeout: Duration, lost: u64) -> String {
    let mut text = String::new();
    for attempt in &report.attempts {
        block(&mut text, attempt, report.connect.connected_us, timeout);
    }
    text.push('\n');
    let chosen = report.attempts.iter().find(|a| a.attempt.chosen);
    let _ = match (chosen, report.connect.connected_us) {
        (Some(chosen), Some(us)) => writeln!(
            text,
            "connected: {}, {} after the first attempt began",
            address(chosen),
            duration(us)
        ),
        _ => writeln!(
            text,
            "not connected: {} tried",
            match report.attempts.len() {
                1 => "1 address".to_owned(),
                n => format!("{n} addresses"),
            }
        ),
    };
    if lost > 0 {
        let _ = writeln!(
            text,
            "{lost} kernel records were lost: times and counts above may be missing or too low"
        );
    }
    text
}

fn address(of: &AttemptDetail) -> String {
    let (attempt, port) = (&of.attempt, of.tried.peer.port());
    match (&attempt.scope, attempt.address.is_ipv6()) {
        (Some(scope), true) => format!("[{}%{}]:{port}", attempt.address, safe(scope)),
        (None, true) => format!("[{}]:{port}", attempt.address),
        (_, false) => format!("{}:{port}", attempt.address),
    }
}

fn block(text: &mut String, of: &AttemptDetail, connected_us: Option<u64>, timeout: Duration) {
    let a = &of.attempt;
    let begun = match (a.started_us, connected_us) {
        (0, _) => "started at once".to_owned(),
        (at, Some(us)) if at > us => format!(
            "started after {}, when an application would already be connected",
            duration(at)
        ),
        (at, _) => format!("started after {}", duration(at)),
    };
    let _ = writeln!(text, "\n{}  {}  {begun}", a.order, address(of));
    let mut say = |line: String| {
        let _ = writeln!(text, "   {line}");
    };
    say(outcome(of, timeout));
    if let Some(icmp) = &a.icmp {
        let from = match a.icmp_from {
            Some(from) if Some(from) == a.local_addr => {
                format!(" from {from}, this host{}", own_icmp(icmp, a.verdict))
            }
            Some(from) => format!(" from {from}"),
            None => String::new(),
        };
        say(format!("ICMP {icmp}{from}"));
    }
    say(way(of));
    for line in redirected(of) {
        say(line);
    }
    // That --timeout passed is no verdict on the connection.
    let own_doing = matches!(of.tried.end, AttemptEnd::TimedOut | AttemptEnd::Interrupted)
        && a.outcome == Outcome::Abandoned
        && a.verdict == Some(VerdictKind::Abandoned);
    if let Some(h) = of.handshake.as_ref().filter(|_| !own_doing) {
        if let Some(verdict) = h.verdict {
            let sure = match h.confidence {
                Confidence::Certain => "certain",
                Confidence::Likely => "likely",
                Confidence::Insufficient => "not enough evidence",
            };
            say(format!("why: {verdict} ({sure})"));
        }
        for evidence in &h.evidence {
            let sign = if evidence.supports { "for" } else { "against" };
            say(format!("  {sign}: {}", safe(&evidence.fact)));
        }
        if let Some(remedy) = &h.remedy {
            say(format!("try: {}", safe(remedy)));
        }
    }
}

/// Why this host sent an ICMP error to itself, by what the error says.
fn own_icmp(icmp: &str, verdict: Option<VerdictKind>) -> &'static str {
    match icmp {
        _ if verdict == Some(VerdictKind::DroppedHere) => ": it drops the SYN itself",
        "host unreachable" | "address unreachable" => {
            ": as when the next hop does not answer ARP or neighbour discovery"
        }
        _ => "",
    }
}

fn outcome(of: &AttemptDetail, timeout: Duration) -> String {
    let a = &of.attempt;
    let took = match a.dwell_us {
        Some(us) => format!(" after {}", duration(us)),
        None => String::new(),
    };
    let error = a
        .error
        .as_ref()
        .map_or(String::new(), |e| format!(" ({e})"));
    let what = match (of.tried.end, a.outcome) {
        (AttemptEnd::TimedOut, Outcome::Abandoned) => {
            let kernel = match of.left_us {
                Some(us) => format!(
                    "; the kernel would have retried for another {}",
                    duration(us)
                ),
                None => String::new(),
            };
            let limit = duration(timeout.as_micros() as u64);
            format!("NO ANSWER within {limit} (synprobe's --timeout{kernel})")
        }
        (AttemptEnd::Interrupted, Outcome::Abandoned) => {
            format!("interrupted{took}, no answer so far")
        }
        (AttemptEnd::Connected, _) => format!(
            "CONNECTED{took}{}{}",
            match &of.tried.redirect {
                Some(redirect) => format!(" to {}, not to the address itself", redirect.to),
                None => String::new(),
            },
            if a.chosen {
                ": the connection that an application gets"
            } else {
                ""
            }
        ),
        (_, Outcome::Refused) if a.verdict == Some(VerdictKind::DroppedHere) => {
            format!("REFUSED by a RST of this host itself{took}{error}")
        }
        (_, Outcome::Refused) => format!("REFUSED by a RST{took}{error}"),
        (_, Outcome::TimedOut) => format!("NO ANSWER: the kernel gave up{took}{error}"),
        (_, Outcome::Established) => format!("connected{took}, and closed at once{error}"),
        (_, other) => format!("{}{took}{error}", other.name().to_uppercase()),
    };
    let gaps = of.handshake.as_ref().map_or(&[][..], |h| &h.gaps_us);
    let syns = match (a.syns, &of.handshake) {
        (None, _) => "SYNs not known".to_owned(),
        (Some(0), Some(_)) => "no SYN was sent".to_owned(),
        (Some(0), None) => {
            let why = of
                .tried
                .path
                .nowhere
                .map_or(String::new(), |w| format!(": {w}"));
            format!("refused by this host's kernel before a SYN was sent{why}")
        }
        // Every SYN is accounted for: none got beyond this host.
        (Some(_), Some(h))
            if a.verdict == Some(VerdictKind::DroppedHere) && is_certain(of) && only_syns(h) =>
        {
            "every SYN dropped by this host".to_owned()
        }
        (Some(1), _) => "1 SYN".to_owned(),
        (Some(n), _) => format!("{n} SYNs {}", ladder(gaps)),
    };
    format!("{what}, {}", syns.trim_end())
}

/// Whether what this host dropped of it were SYNs alone, and no answer to one.
fn only_syns(h: &Handshake) -> bool {
    let dropped = h.evidence.iter().filter(|e| e.supports);
    let mut dropped = dropped.filter_map(|e| e.fact.strip_prefix("this host dropped the "));
    dropped.all(|packet| packet.starts_with("SYN "))
}

fn is_certain(of: &AttemptDetail) -> bool {
    of.attempt.confidence == Confidence::Certain
}

/// Where this host sends it, and who answers there.
fn redirected(of: &AttemptDetail) -> Vec<String> {
    let Some(redirect) = &of.tried.redirect else {
        return Vec::new();
    };
    let who = match &redirect.owner {
        Some((pid, comm)) => format!(": {}/{pid} listens there", name(comm)),
        None => String::new(),
    };
    let by = match redirect.by {
        RedirectedBy::Nat => "this host's NAT",
        RedirectedBy::Tproxy => "TPROXY, or a BPF program (sk_lookup), of this host",
        RedirectedBy::Cgroup => "a BPF program of this process's cgroup (connect hook)",
    };
    let mut lines = vec![format!(
        "redirected by {by} to {}{who}; whether {} exists is not known from this",
        redirect.to,
        address(of)
    )];
    if redirect.by == RedirectedBy::Cgroup {
        lines.push(format!(
            "its records have the real address and are not in this report: synprobe connect {}; the programs: \
             bpftool cgroup tree",
            redirect.to
        ));
    }
    let failed = of.tried.end != AttemptEnd::Connected;
    if let (true, Some((waiting, max))) = (failed, redirect.accept_queue)
        && waiting > max
    {
        lines.push(format!(
            "the accept queue there is full, {waiting} of {max}: SYNs to it are dropped (synprobe listeners \
             --port {})",
            redirect.to.port()
        ));
    }
    lines
}

fn way(of: &AttemptDetail) -> String {
    let a = &of.attempt;
    let from = match (a.local_addr, a.local_port) {
        (Some(addr), Some(port)) if addr.is_ipv6() => format!("from [{addr}]:{port}"),
        (Some(addr), Some(port)) => format!("from {addr}:{port}"),
        (Some(addr), None) => format!("from {addr}"),
        (None, _) => "no local address".to_owned(),
    };
    let by = match (&a.interface, a.gateway) {
        (Some(interface), Some(gateway)) => format!(" by {}, gateway {gateway}", safe(interface)),
        (Some(interface), None) => format!(" by {}", safe(interface)),
        (None, Some(gateway)) => format!(", gateway {gateway}"),
        (None, None) => String::new(),
    };
    from + &by
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::{
            build_report,
            tests::{ended, syn_retransmitted, tried},
        },
        *,
    };
    use crate::model::{Body, Evidence};

    const A: &str = "10.0.0.1:80";
    const B: &str = "[2001:db8::2]:80";

    #[test]
    fn a_page_to_the_letter() {
        let tries = vec![
            tried(A, Some("10.0.0.5:40000"), 0, 10_000, AttemptEnd::TimedOut),
            tried(
                B,
                Some("[2001:db8::5]:40001"),
                250,
                252,
                AttemptEnd::Connected,
            ),
        ];
        let mut silent = ended(1, A, Some(40_000), Outcome::Abandoned);
        if let Body::Handshake(h) = &mut silent.body {
            (h.retransmits, h.gaps_us) = (2, vec![1_010_000, 2_020_000]);
            h.dwell_us = Some(10_000_000);
            // The verdict for an application that closes. Here the application is synprobe.
            h.verdict = Some(VerdictKind::Abandoned);
            h.remedy = Some("see why: synprobe connect 10.0.0.1:80".to_owned());
        }
        let lines = [
            syn_retransmitted(1, A, 9_000, 58_000_000),
            silent,
            ended(2, B, Some(40_001), Outcome::Established),
        ];
        let target = "db.internal:80".parse().unwrap();
        let report = build_report(&target, Some(1_500), tries, &lines);
        assert_eq!(
            heading("db.internal", 80, 2, report.connect.resolve_us)
                + &page(&report, Duration::from_secs(10), 0),
            "db.internal, port 80: 2 addresses, in the order of an application, resolved in 1.50 ms\n\
             \n\
             1  10.0.0.1:80  started at once\n   \
                NO ANSWER within 10.0 s (synprobe's --timeout; the kernel would have retried for another 57.0 s), 3 SYNs ▁▂ 1.0 2.0 s\n   \
                from 10.0.0.5:40000 by eth0, gateway 10.0.0.254\n\
             \n\
             2  [2001:db8::2]:80  started after 250 ms\n   \
                CONNECTED after 1.23 ms: the connection that an application gets, 1 SYN\n   \
                from [2001:db8::5]:40001 by eth0, gateway 10.0.0.254\n\
             \n\
             connected: [2001:db8::2]:80, 252 ms after the first attempt began\n"
        );
    }

    #[test]
    fn only_where_every_syn_was_dropped_the_page_says_so() {
        let syns = |packet: &str| {
            let local = Some("10.0.0.5:40000");
            let tries = vec![tried(A, local, 0, 3_000, AttemptEnd::TimedOut)];
            let mut silent = ended(1, A, Some(40_000), Outcome::Abandoned);
            if let Body::Handshake(h) = &mut silent.body {
                (h.verdict, h.confidence) = (Some(VerdictKind::DroppedHere), Confidence::Certain);
                h.evidence = vec![Evidence {
                    fact: format!("this host dropped the {packet} that came in, once"),
                    supports: true,
                }];
            }
            let report = build_report(&A.parse().unwrap(), None, tries, &[silent]);
            page(&report, Duration::from_secs(3), 0)
        };
        let words = ", every SYN dropped by this host";
        assert!(syns("SYN").contains(words));
        let of_answer = syns("SYN-ACK");
        assert!(
            !of_answer.contains(words) && of_answer.contains(", 1 SYN"),
            "{of_answer}"
        );
    }

    #[test]
    fn a_verdict_has_its_evidence_and_its_remedy() {
        let tries = vec![tried(
            A,
            Some("10.0.0.5:40000"),
            0,
            5,
            AttemptEnd::Failed(libc::ECONNREFUSED),
        )];
        let mut refused = ended(1, A, Some(40_000), Outcome::Refused);
        if let Body::Handshake(h) = &mut refused.body {
            (h.verdict, h.confidence) = (Some(VerdictKind::Refused), Confidence::Certain);
            h.evidence = [("a RST came", true), ("it worked\u{1b} before", false)]
                .map(|(fact, supports)| Evidence {
                    fact: fact.to_owned(),
                    supports,
                })
                .into();
            h.remedy = Some("start the server".to_owned());
        }
        let report = build_report(&A.parse().unwrap(), None, tries, &[refused]);
        let page = page(&report, Duration::from_secs(1), 0);
        let why = "\n   why: refused (certain)\n     for: a RST came\n     \
                   against: it worked\\u{1b} before\n   try: start the server\n";
        assert!(page.contains(why), "{page}");
    }

    #[test]
    fn every_failure_is_named() {
        let says = |end, outcome, handshake: bool, words: &str| {
            // What connect() itself refuses has no local port.
            let refused = !handshake && matches!(end, AttemptEnd::Failed(_));
            let local = (!refused).then_some("10.0.0.5:40000");
            let tries = vec![tried(A, local, 0, 5, end)];
            let lines = [ended(1, A, Some(40_000), outcome)];
            let lines = if handshake { &lines[..] } else { &[] };
            let report = build_report(&A.parse().unwrap(), None, tries, lines);
            let page = page(&report, Duration::from_secs(1), 7);
            assert!(page.contains(words), "{words}: {page}");
            assert!(page.contains("not connected: 1 address tried"), "{page}");
            assert!(page.contains("7 kernel records were lost"), "{page}");
        };
        use Outcome::{Refused, TimedOut, Unreachable};
        says(
            AttemptEnd::Failed(libc::ECONNREFUSED),
            Refused,
            true,
            "REFUSED by a RST after 1.23 ms (ECONNREFUSED), 1 SYN",
        );
        says(
            AttemptEnd::Failed(libc::ETIMEDOUT),
            TimedOut,
            true,
            "NO ANSWER: the kernel gave up after 1.23 ms (ETIMEDOUT)",
        );
        says(
            AttemptEnd::Failed(libc::EHOSTUNREACH),
            Unreachable,
            true,
            "UNREACHABLE after 1.23 ms (EHOSTUNREACH), 1 SYN",
        );
        says(
            AttemptEnd::Failed(libc::ENETUNREACH),
            Unreachable,
            false,
            "UNREACHABLE (ENETUNREACH), refused by this host's kernel before a SYN was sent",
        );
        says(
            AttemptEnd::Interrupted,
            Outcome::Abandoned,
            true,
            "interrupted after 1.23 ms, no answer so far",
        );
        says(
            AttemptEnd::TimedOut,
            Outcome::Abandoned,
            false,
            "NO ANSWER within 1.00 s (synprobe's --timeout), SYNs not known",
        );
    }
}
