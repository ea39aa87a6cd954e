//! The page, character by character.

use super::*;
use crate::model::{
    ByRole, Evidence, Missed, NetnsStates, OpenOverRun, PeerShare, Role, VerdictKind,
};

fn evidence(fact: &str, supports: bool) -> Evidence {
    Evidence {
        fact: fact.to_owned(),
        supports,
    }
}

fn lines() -> Vec<Line> {
    let start = Start {
        version: "0.1.0".into(),
        kernel: "6.18.44".into(),
        features: Vec::new(),
        mode: "tracepoints".into(),
        mode_why: Some("EPERM".into()),
        missing: vec!["network namespaces".into()],
        filters: [("port".to_owned(), "8080".to_owned())].into(),
        ..Start::default()
    };
    let problem = Problem {
        rank: 1,
        verdict: Some(VerdictKind::AcceptQueueFull),
        confidence: Confidence::Certain,
        role: Role::Server.into(),
        forward: None,
        netns: 7,
        netns_name: Some("host".into()),
        local_addr: Some("0.0.0.0".parse().unwrap()),
        local_port: Some(8080),
        peer_port: None,
        pid: Some(99),
        comm: Some("ja\u{1b}va".into()),
        workload: Default::default(),
        handshakes: 307,
        open: 307,
        peers: vec![PeerShare {
            peer_addr: "10.1.2.3".parse().unwrap(),
            handshakes: 40,
        }],
        peers_more: 61,
        evidence: vec![
            evidence("307 half-opens: 307 open; the longest 48.0 s", true),
            evidence(
                "listener 0.0.0.0:8080 (java/99): accept queue full in 10 of 10 looks, up to 129 of 128",
                true,
            ),
            evidence(
                "its own final ACK was not seen to be refused in this run",
                false,
            ),
        ],
        remedy: Some(
            "ss -ltnp 'sport = :8080'; look: tcpdump -ni any \
             'host 198.18.0.1 and tcp and tcp[tcpflags] & (tcp-syn|tcp-ack) != 0'"
                .into(),
        ),
        effects: Vec::new(),
        life: Default::default(),
    };
    let lost = Lost {
        events: 5,
        reason: "state records: the ring was full (a larger --ring-size helps)".into(),
        of: Missed::States,
    };
    let end = End {
        events: 1200,
        lost: 5,
        handshakes: 907,
        duration_us: 10_000_000,
        ..End::default()
    };
    let line = |body| Line { mono_ns: 0, body };
    vec![
        line(Body::Start(start)),
        line(Body::Problem(Box::new(problem))),
        line(Body::Lost(lost)),
        line(Body::End(end)),
    ]
}

fn states() -> Counted {
    let host = NetnsStates {
        netns: 7,
        name: "host".into(),
        states: [("ESTABLISHED", 500), ("SYN_RECV", 307), ("LISTEN", 1)]
            .map(|(state, count)| (state.into(), count))
            .into(),
        listeners: Vec::new(),
    };
    Counted {
        namespaces: vec![host],
        failures: vec!["namespace web: Operation not permitted".into()],
    }
}

fn states_at_start() -> Counted {
    let mut counted = states();
    let host = &mut counted.namespaces[0].states;
    host.insert("ESTABLISHED".into(), 490);
    host.insert("TIME_WAIT".into(), 3);
    counted
}

#[test]
fn the_page_has_problems_evidence_remedies_and_blind_spots() {
    let mut page = Page::default();
    page.show(&lines(), WallClock::new(1_767_323_045_000_000_000, 0))
        .unwrap();
    let counts = PageCounts {
        in_progress: Some(OpenOverRun {
            at_start: ByRole {
                client: 0,
                server: 311,
            },
            most: ByRole {
                client: 0,
                server: 320,
            },
            at_end: ByRole {
                client: 0,
                server: 307,
            },
        }),
        at_start: Some(&states_at_start()),
        at_end: &states(),
    };
    let text = page.text(&counts, Style::plain(80));
    let wanted = "\
synprobe 0.1.0 diagnose: port 8080, Linux 6.18.44, watched for 10.0 s from
   2026-01-02 03:04:05 UTC
907 handshakes ended or were open, 0 of them with a problem; 1200 kernel records

1 problem. Cause: accept-queue-full, server 0.0.0.0:8080 (\"ja\\u{1b}va\"/99).
  open    SYN_RECV 311 at the start, 320 at most, 307 at the end
  states  ESTABLISHED 490→500  SYN_RECV 307  LISTEN 1  TIME_WAIT 3→0

1. accept-queue-full, certain: server 0.0.0.0:8080 (\"ja\\u{1b}va\"/99)
  for     307 half-opens: 307 open; the longest 48.0 s
  for     listener 0.0.0.0:8080 (java/99): accept queue full in 10 of 10 looks,
          up to 129 of 128
  against its own final ACK was not seen to be refused in this run
  peers   10.1.2.3 ×40, and 61 more
  do      ss -ltnp 'sport = :8080'
          look:
    $ tcpdump -ni any \\
        'host 198.18.0.1 and tcp and tcp[tcpflags] & (tcp-syn|tcp-ack) != 0'
  more    synprobe explain accept-queue-full

  mode    tracepoints (EPERM); it does not see: a half-open that began and ended
          between two checks of the socket table, about one a second, without a
          retransmission; the peers of SYNs that a listener refused

What could not be seen
  -       5 lost: state records: the ring was full (a larger --ring-size helps);
          verdicts are less certain for it
  -       not known on this host: network namespaces
  -       namespace web: Operation not permitted

1 problem. Cause: accept-queue-full, server 0.0.0.0:8080 (\"ja\\u{1b}va\"/99).
";
    assert_eq!(text, wanted, "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let wide = page.text(&counts, Style::plain(120));
    let facts = "looks, up to 129 of 128\n";
    assert!(wide.contains(facts) && wide.lines().count() < text.lines().count());
    let coloured = Style {
        colour: true,
        ..Style::plain(100)
    };
    let text = page.text(&(&states()).into(), coloured);
    assert!(text.contains("\x1b[1;31m1. accept"), "{text}");
    assert!(page.is_wrong());
}

#[test]
fn a_quiet_host_gets_a_quiet_page() {
    let mut page = Page::default();
    let quiet: Vec<Line> = lines()
        .into_iter()
        .filter(|l| matches!(l.body, Body::End(_)))
        .collect();
    page.show(&quiet, WallClock::default()).unwrap();
    let text = page.text(&(&Counted::default()).into(), Style::default());
    assert!(text.contains("Nothing wrong was found."), "{text}");
    assert!(text.contains("Nothing was lost."), "{text}");
    assert!(!page.is_wrong());
}

/// What was counted too little of is no all-clear, and what is meant so is no fault.
#[test]
fn what_has_no_verdict_and_what_is_no_fault_stand_apart() {
    let mut page = Page::default();
    page.show(&lines(), WallClock::default()).unwrap();
    let problem = page.problems[0].clone();
    page.problems = vec![Problem {
        verdict: None,
        confidence: Confidence::Insufficient,
        handshakes: 3,
        ..problem.clone()
    }];
    let text = page.text(&(&states()).into(), Style::default());
    let said = "No problem was found. Of 3 handshakes too little was seen.\n";
    assert!(text.ends_with(said), "{text}");
    assert!(!text.contains("Nothing wrong"), "{text}");
    let heading = "\nToo little was seen of\n\n1. no verdict, not enough evidence";
    assert!(text.contains(heading), "{text}");
    page.problems = vec![Problem {
        verdict: Some(VerdictKind::DeferAccept),
        ..problem
    }];
    let text = page.text(&(&states()).into(), Style::default());
    assert!(text.ends_with("\nNo problem was found.\n"), "{text}");
    assert!(text.contains("  note    this is no fault\n"), "{text}");
    assert!(!page.is_wrong());
}

/// A host has a hundred namespaces, and one of them the problem.
#[test]
fn namespaces_that_nothing_concerns_are_one_line() {
    let mut page = Page::default();
    page.show(&lines(), WallClock::default()).unwrap();
    let mut counted = states();
    counted.namespaces[0].name = "web".into();
    for netns in 100..200 {
        counted.namespaces.push(NetnsStates {
            netns,
            name: format!("n{netns}"),
            states: [("LISTEN".into(), 2)].into(),
            listeners: Vec::new(),
        });
    }
    let text = page.text(&(&counted).into(), Style::plain(80));
    let states: Vec<&str> = text.lines().filter(|l| l.contains("  states")).collect();
    assert_eq!(
        states,
        [
            "  states  ESTABLISHED 500  SYN_RECV 307  LISTEN 1 of netns web",
            "  states  LISTEN 200 of 100 other namespaces",
        ]
    );
    let first = text.lines().position(|l| l.starts_with("1. "));
    assert!(first.is_some_and(|line| line < 10), "{text}");
}

#[test]
fn what_is_not_explained_is_no_all_clear() {
    let mut page = Page::default();
    let end = End {
        unexplained: vec!["ListenOverflows of the host's namespace rose by 864".into()],
        ..End::default()
    };
    let line = Line {
        mono_ns: 0,
        body: Body::End(end),
    };
    page.show(&[line], WallClock::default()).unwrap();
    let text = page.text(&(&Counted::default()).into(), Style::default());
    let wanted =
        "\nNo cause was found.\n\nSeen and not explained\n  -       ListenOverflows of the host's";
    assert!(text.contains(wanted), "{text}");
    assert!(!text.contains("Nothing wrong"), "{text}");
}
