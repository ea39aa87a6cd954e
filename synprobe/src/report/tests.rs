//! The whole file: what is in it, that nothing in it is markup of somebody else, and that it stays small.

use std::collections::BTreeMap;

use super::{HtmlReport, page::SECTIONS};
use crate::{
    model::{
        Body, Confidence, Counted, End, Evidence, Handshake, HostIdentity, Line, Listener, Lost,
        Missed, Outcome, Problem, QueueSample, Retransmit, RetransmitKind, Start, Trigger,
        VerdictKind, WallClock,
    },
    verdict::fixtures,
    view::View,
};

/// The file may take this, bytes.
const MOST: usize = 2 << 20;
const S: u64 = 1_000_000_000;
/// What a process may call itself.
const HOSTILE: &str = "</td></svg><script>alert(\"1\")</script>'\u{1b}[2J\u{202e}&amp;";

fn clock() -> WallClock {
    WallClock::from_offset(1_700_000_000 * i128::from(S))
}

fn show(report: &mut HtmlReport, mono_ns: u64, body: Body) {
    let line = Line { mono_ns, body };
    report.show(&[line], clock()).unwrap();
}

fn begin(report: &mut HtmlReport, start: Start) {
    show(report, S, Body::Start(start));
}

fn end(report: &mut HtmlReport, handshakes: u64, after_ns: u64) {
    let end = End {
        handshakes,
        duration_us: after_ns / 1000,
        ..End::default()
    };
    show(report, S + after_ns, Body::End(end));
}

/// A half-open that is retransmitted as the kernel does, and expires.
fn expires(report: &mut HtmlReport, id: u64, peer: &str, began_ns: u64, verdict: VerdictKind) {
    let mut h = fixtures::half_open_of(peer, Outcome::Expired);
    h.connection.id = id;
    h.facts.began_ns = Some(began_ns);
    h.facts.ended_ns = began_ns + 7 * S;
    h.dwell_us = Some(7_000_000);
    h.retransmits = 2;
    h.retransmits_by_peer = 1;
    h.verdict = Some(verdict);
    h.confidence = Confidence::Likely;
    h.evidence = vec![Evidence {
        fact: format!("fact {id}"),
        supports: true,
    }];
    for (attempt, (at, gap, expected)) in [(1, 1_010_000, Some(1_000_000)), (3, 2_020_000, None)]
        .into_iter()
        .enumerate()
    {
        let again = Retransmit {
            connection: h.connection.clone(),
            kind: RetransmitKind::Synack,
            trigger: Some(match expected {
                Some(_) => Trigger::Timer,
                None => Trigger::Peer,
            }),
            attempt: Some(attempt as u32 + 1),
            gap_us: Some(gap),
            expected_gap_us: expected,
            next_us: None,
            gives_up_us: None,
            segs: 1,
            failed: false,
            error: None,
        };
        show(report, began_ns + at * S, Body::Retransmit(again));
    }
    show(report, h.facts.ended_ns, Body::Handshake(Box::new(h)));
}

fn html(report: &HtmlReport) -> String {
    let html = report.html(&Counted::default());
    for (id, heading) in SECTIONS {
        assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
        assert!(html.contains(&format!(">{heading}</h2>")), "{heading}");
    }
    html
}

#[test]
fn a_run_without_a_handshake_has_every_section_and_says_so() {
    let html = html(&HtmlReport::default());
    assert!(html.contains("The run did not begin"), "{html}");
    let mut report = HtmlReport::default();
    begin(&mut report, Start::default());
    end(&mut report, 0, S);
    let html = self::html(&report);
    assert!(html.contains("<h1>Nothing wrong was found.</h1>"));
    assert!(html.contains("No handshake was seen."));
    assert!(html.contains("No handshake was in trouble."));
    assert!(html.contains("Nothing was lost."));
}

#[test]
fn names_from_outside_are_no_markup() {
    let hostile = || Some(HOSTILE.into());
    let start = Start {
        version: HOSTILE.to_owned(),
        kernel: HOSTILE.to_owned(),
        mode: HOSTILE.to_owned(),
        mode_why: Some(HOSTILE.to_owned()),
        missing: vec![HOSTILE.to_owned()],
        filters: BTreeMap::from([(HOSTILE.to_owned(), HOSTILE.to_owned())]),
        host: HostIdentity {
            hostname: Some(HOSTILE.to_owned()),
            machine_id: Some(HOSTILE.to_owned()),
            boot_id: Some(HOSTILE.to_owned()),
        },
        replayed_from: Some(HOSTILE.to_owned()),
        ..Start::default()
    };
    let mut report = HtmlReport::default();
    begin(&mut report, start);
    let mut h = Handshake {
        error: Some(HOSTILE.to_owned()),
        verdict: Some(VerdictKind::SynackLost),
        ..fixtures::half_open(Outcome::Expired)
    };
    h.connection.comm = hostile();
    h.connection.netns_name = hostile();
    h.connection.pid = Some(7);
    h.facts.began_ns = Some(S);
    h.facts.ended_ns = 2 * S;
    for supports in [true, false] {
        h.evidence.push(Evidence {
            fact: HOSTILE.to_owned(),
            supports,
        });
    }
    let problem = Problem {
        comm: hostile(),
        netns_name: hostile(),
        evidence: h.evidence.clone(),
        remedy: Some(format!("{HOSTILE}: ss -K {HOSTILE}; {HOSTILE} # {HOSTILE}")),
        ..fixtures::problem()
    };
    show(&mut report, 2 * S, Body::Handshake(Box::new(h)));
    let lost = Lost {
        events: 1,
        reason: HOSTILE.to_owned(),
        of: Missed::Others,
    };
    show(&mut report, 2 * S, Body::Lost(lost));
    report.queues(&QueueSample {
        at_ns: 2 * S,
        listeners: vec![Listener {
            comm: hostile(),
            netns_name: hostile(),
            pid: Some(8),
            ..fixtures::listener(3, 4)
        }],
        listen_overflows: Some(1),
        listen_drops: None,
        syn_cookies: None,
    });
    show(&mut report, 2 * S, Body::Problem(Box::new(problem)));
    report.add_blind_spot(HOSTILE.to_owned());
    end(&mut report, 1, 2 * S);
    let html = html(&report);
    assert!(html.matches("&lt;script&gt;alert(&quot;1&quot;)").count() > 20);
    for effective in ["<script", "</td></svg>", "\u{1b}", "\u{202e}", "'\\u{1b}"] {
        assert!(!html.contains(effective), "{effective:?}");
    }
}

#[test]
fn a_ladder_has_what_was_sent_what_was_due_and_who_triggered_it() {
    let mut report = HtmlReport::default();
    begin(&mut report, Start::default());
    expires(&mut report, 1, "10.0.0.9", 2 * S, VerdictKind::SynackLost);
    end(&mut report, 1, 10 * S);
    let html = html(&report);
    assert!(
        html.contains("<li>1.00 s: +1.01 s, by its timer, due after 1.00 s</li>"),
        "{html}"
    );
    assert!(html.contains("<li>3.00 s: +2.02 s, the peer repeated its SYN</li>"));
    // Sent after 1 s of 7; due 10 ms earlier.
    assert!(
        html.contains("<circle class=\"f c1\" cx=\"14.29%\""),
        "{html}"
    );
    assert!(
        html.contains("<circle class=\"due\" cx=\"14.14%\""),
        "{html}"
    );
    assert_eq!(html.matches("class=\"due\" cx=\"14").count(), 1);
}

#[test]
fn a_hundred_thousand_handshakes_in_trouble_stay_under_two_megabytes() {
    let mut report = HtmlReport::default();
    begin(&mut report, Start::default());
    let verdicts = [
        VerdictKind::SynackLost,
        VerdictKind::PeerSilent,
        VerdictKind::SynFlood,
        VerdictKind::DroppedHere,
    ];
    let all = 100_000_u64;
    for id in 0..all {
        let peer = format!("10.{}.{}.{}", id >> 16, id >> 8 & 255, id & 255);
        let verdict = verdicts[id as usize % verdicts.len()];
        expires(&mut report, id + 1, &peer, S + id * 1_000_000, verdict);
    }
    for rank in 1..=300 {
        let problem = Problem {
            rank,
            ..fixtures::problem()
        };
        show(&mut report, 110 * S, Body::Problem(Box::new(problem)));
    }
    end(&mut report, all, 110 * S);
    let html = html(&report);
    assert!(html.len() < MOST, "{} bytes", html.len());
    assert!(html.contains(
        "The table has 1,000 of 100,000, the worst of each cause; 99,000 are only in the sums."
    ));
    assert!(html.contains("100,000 ended or were open, 100,000 of them in trouble"));
    assert!(html.contains("280 more problems are less grave"));
    // Each of them is in progress for 7 s, and one begins every millisecond.
    assert!(html.contains("7,000 at most, 0 at the end"));
}

#[test]
fn healthy_handshakes_are_in_the_sums_and_in_no_table() {
    let mut report = HtmlReport::default();
    begin(&mut report, Start::default());
    for id in 1..=50 {
        let mut h = fixtures::active(Outcome::Established);
        h.connection.id = id;
        h.facts.began_ns = Some(2 * S);
        h.facts.ended_ns = 2 * S + 300_000;
        h.dwell_us = Some(300);
        show(&mut report, 2 * S, Body::Handshake(Box::new(h)));
    }
    end(&mut report, 50, 3 * S);
    let html = html(&report);
    assert!(html.contains("50 ended or were open, 0 of them in trouble"));
    assert!(html.contains("50 completed; half of them below"));
    assert!(html.contains("no trouble 50"));
    assert!(html.contains("<h1>Nothing wrong was found.</h1>"));
}

#[test]
fn a_handshake_that_began_nobody_knows_when_was_not_in_progress_since_then() {
    let mut report = HtmlReport::default();
    begin(&mut report, Start::default());
    for (id, preexisting) in [(1, false), (2, false), (3, true)] {
        let mut h = fixtures::half_open(Outcome::Established);
        h.connection.id = id;
        h.facts.began_ns = None;
        h.facts.cookie = !preexisting;
        h.facts.preexisting = preexisting;
        h.facts.ended_ns = 5 * S;
        show(&mut report, 5 * S, Body::Handshake(Box::new(h)));
    }
    end(&mut report, 3, 6 * S);
    let html = html(&report);
    assert!(html.contains("<figcaption>1 at most, 0 at the end.</figcaption>"));
    assert!(html.contains("Nor are 2 handshakes whose beginning is not known"));
}
