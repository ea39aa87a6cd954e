//! The text and the JSON, character by character.

use super::*;
use crate::model::*;

const WALL_NS: i128 = 1_767_323_045_000_000_000; // 2026-01-02T03:04:05Z

fn clock() -> WallClock {
    WallClock::new(WALL_NS, 0)
}

fn connection(role: Role) -> Connection {
    Connection {
        id: 7,
        role,
        family: Family::Ipv4,
        v4_mapped: false,
        local_addr: "10.0.0.1".parse().unwrap(),
        local_port: Some(8080),
        peer_addr: "10.0.0.5".parse().unwrap(),
        peer_port: Some(40000),
        netns: 4_026_531_833,
        netns_name: Some("blue".into()),
        pid: Some(99),
        comm: Some("ngi\u{1b}nx".into()),
        cgroup: None,
        workload: Default::default(),
    }
}

fn at(mono_ns: u64, body: Body) -> Line {
    Line { mono_ns, body }
}

fn synack() -> Line {
    at(
        1_012_345_678,
        Body::Retransmit(Retransmit {
            connection: connection(Role::Server),
            kind: RetransmitKind::Synack,
            trigger: Some(Trigger::Timer),
            attempt: Some(1),
            gap_us: Some(1_012_000),
            expected_gap_us: Some(1_000_000),
            next_us: Some(2_000_000),
            gives_up_us: Some(62_000_000),
            segs: 1,
            failed: false,
            error: None,
        }),
    )
}

fn half_open() -> Line {
    let connection = connection(Role::Server);
    let state = State {
        connection,
        old: TcpState::Listen,
        new: TcpState::SynRecv,
        dwell_us: None,
    };
    at(0, Body::State(state))
}

fn expired() -> Line {
    at(
        63_500_000_000,
        Body::Handshake(Box::new(Handshake {
            connection: connection(Role::Server),
            outcome: Outcome::Expired,
            open_reason: None,
            dwell_us: Some(63_500_000),
            dwell_source: Some(DwellSource::SockDiag),
            dwell_error_us: Some(500_000),
            dwell_at_least_us: None,
            retransmits: 5,
            retransmits_by_peer: 2,
            error: None,
            verdict: None,
            confidence: Confidence::Insufficient,
            evidence: Vec::new(),
            remedy: None,
            gaps_us: vec![1_012_000, 2_020_000, 4_100_000],
            facts: Facts::default(),
        })),
    )
}

fn text(lines: &[Line], colour: bool, namespaces: bool) -> String {
    let style = Style {
        colour,
        ..Style::plain(200)
    };
    text_of(
        lines,
        TextOptions {
            style,
            namespaces,
            ..TextOptions::default()
        },
    )
}

fn text_of(lines: &[Line], options: TextOptions) -> String {
    let mut view = TextView::new(Vec::new(), options);
    view.show(lines, clock()).unwrap();
    view.rest().unwrap();
    String::from_utf8(view.into_inner()).unwrap()
}

fn narrow(lines: &[Line], fold: bool) -> String {
    let options = TextOptions {
        style: Style::plain(80),
        fold,
        ..TextOptions::default()
    };
    text_of(lines, options)
}

/// Where there is room, every detail is there.
#[test]
fn one_aligned_line_an_event() {
    let peer = "10.0.0.5:40000                                 ";
    assert_eq!(
        text(&[half_open(), synack()], false, true),
        format!(
            "03:04:05.000 #7    <8080  {peer} SYN_RECV            \"ngi\\u{{1b}}nx\"/99, netns blue, at 10.0.0.1:8080\n\
             03:04:06.012 #7    <8080  {peer} SYN-ACK+1   +1.01 s timer, next 2s, end 62s, due after 1.00 s, netns blue, at 10.0.0.1:8080\n"
        )
    );
    assert_eq!(
        text(&[expired()], false, false),
        format!(
            "03:05:08.500 #7    <8080  {peer} expired     ~63.5 s again ×5 (2 by peer), ▁▂▃ 1.0 2.0 4.1 s, ± 500 ms, \"ngi\\u{{1b}}nx\"/99, at 10.0.0.1:8080\n"
        )
    );
}

fn failed(id: u64, peer: &str, verdict: VerdictKind, confidence: Confidence) -> Line {
    let mut line = expired();
    if let Body::Handshake(h) = &mut line.body {
        h.connection.id = id;
        h.connection.peer_addr = peer.parse().unwrap();
        (h.verdict, h.confidence) = (Some(verdict), confidence);
        h.dwell_source = Some(DwellSource::Events);
    }
    line
}

/// Details go where they do not fit, and the cause never does.
#[test]
fn eighty_columns_hold_the_cause() {
    let lines = [
        synack(),
        failed(8, "10.0.0.5", VerdictKind::SynackLost, Confidence::Likely),
        failed(9, "10.0.0.5", VerdictKind::PeerSilent, Confidence::Certain),
        failed(
            123_456,
            "fd00:5950:f:0:1::1e",
            VerdictKind::SpuriousRetransmit,
            Confidence::Likely,
        ),
    ];
    let shown = narrow(&lines, false);
    assert_eq!(
        shown,
        "\
03:04:06.012 #7    <8080  10.0.0.5        SYN-ACK+1   +1.01 s timer, end 62s
03:05:08.500 #8    <8080  10.0.0.5        expired      63.5 s synack-lost?
03:05:08.500 #9    <8080  10.0.0.5        expired      63.5 s peer-silent
03:05:08.500 #123456 <8080  fd00:59…0:1::1e expired      63.5 s
             spurious-retransmit?
"
    );
    assert!(shown.lines().all(|line| line.chars().count() <= 80));
}

/// Forty have no room for the columns: the event is in a second line, and no line is empty.
#[test]
fn forty_columns_take_two_lines_an_event() {
    let lines = [
        half_open(),
        synack(),
        failed(
            9,
            "203.0.113.115",
            VerdictKind::PeerSilent,
            Confidence::Certain,
        ),
        failed(
            8,
            "10.0.0.5",
            VerdictKind::SpuriousRetransmit,
            Confidence::Likely,
        ),
    ];
    let options = TextOptions {
        style: Style::plain(40),
        ..TextOptions::default()
    };
    let shown = text_of(&lines, options);
    assert_eq!(
        shown,
        "\
03:04:05.000 #7    <8080  10.0.0.5
  SYN_RECV            \"ngi\\u{1b}nx\"/99
03:04:06.012 #7    <8080  10.0.0.5
  SYN-ACK+1   +1.01 s timer, end 62s
03:05:08.500 #9    <8080  203.0.113.115
  expired      63.5 s peer-silent
03:05:08.500 #8    <8080  10.0.0.5
  expired      63.5 s
          spurious-retransmit?
"
    );
}

/// Rows of one kind, listener and second become one, the first three excepted; of others each is there.
#[test]
fn repeats_of_a_second_are_one_row() {
    let mut lines: Vec<Line> = (0..100)
        .map(|n| {
            let peer = format!("10.0.{}.{}", n / 50, n % 50);
            let mut line = failed(n, &peer, VerdictKind::SynackLost, Confidence::Certain);
            line.mono_ns += n * 1_000_000;
            line
        })
        .collect();
    lines.push(failed(
        200,
        "10.0.0.5",
        VerdictKind::PeerSilent,
        Confidence::Certain,
    ));
    let mut later = failed(
        300,
        "10.0.0.5",
        VerdictKind::SynackLost,
        Confidence::Certain,
    );
    later.mono_ns += 2_000_000_000;
    lines.push(later);
    let shown = narrow(&lines, true);
    let ends: Vec<&str> = shown.lines().skip(4).collect();
    assert_eq!(
        ends,
        [
            "03:05:08           <8080  97 peers        expired         ×97 synack-lost",
            "03:05:10.500 #300  <8080  10.0.0.5        expired      63.5 s synack-lost",
        ],
        "{shown}"
    );
    assert!(shown.contains("#200  <8080  10.0.0.5        expired      63.5 s peer-silent\n"));
    assert_eq!(narrow(&lines, false).lines().count(), lines.len());
    // JSON has every line.
    let mut view = JsonView::new(Vec::new());
    view.show(&lines, clock()).unwrap();
    let json = String::from_utf8(view.into_inner()).unwrap();
    assert_eq!(json.lines().count(), lines.len());
}

/// What is held back is written when nothing comes for a second.
#[test]
fn what_waits_is_written_in_a_pause() {
    let line = || failed(1, "10.0.0.5", VerdictKind::SynackLost, Confidence::Certain);
    let options = TextOptions {
        fold: true,
        ..TextOptions::default()
    };
    let mut view = TextView::new(Vec::new(), options);
    view.show(&[line(), line(), line()], clock()).unwrap();
    assert!(!view.waits());
    view.show(&[line(), line()], clock()).unwrap();
    assert!(view.waits());
    view.rest().unwrap();
    assert!(!view.waits());
    let shown = String::from_utf8(view.into_inner()).unwrap();
    assert_eq!(shown.lines().count(), 4);
    // One peer keeps its address.
    let last = "03:05:08           <8080  10.0.0.5";
    assert!(shown.lines().last().unwrap().starts_with(last), "{shown}");
}

#[test]
fn the_heading_has_the_date_and_a_new_day_a_line() {
    let start = at(0, Body::Start(Start::default()));
    let mut late = half_open();
    late.mono_ns = 86_400_000_000_000;
    let lines = [start, half_open(), late];
    let shown = narrow(&lines, false);
    assert!(shown.starts_with("2026-01-02 UTC  synprobe"), "{shown}");
    assert!(
        shown.contains("\nTIME         #     PORT   PEER "),
        "{shown}"
    );
    assert!(
        shown.contains("\n2026-01-03 UTC\n03:04:05.000 #7"),
        "{shown}"
    );
    let options = TextOptions {
        zone: jiff::tz::TimeZone::fixed(jiff::tz::offset(-4)),
        ..TextOptions::default()
    };
    let shown = text_of(&lines, options);
    assert!(shown.starts_with("2026-01-01 -04  synprobe"), "{shown}");
    assert!(shown.contains("\n23:04:05.000 #7"), "{shown}");
}

/// What was found late stands where it belongs, as far as it came with what it belongs to.
#[test]
fn rows_of_one_moment_are_in_the_order_of_their_time() {
    let mut found_late = half_open();
    if let Body::State(state) = &mut found_late.body {
        state.connection.id = 8;
    }
    let shown = narrow(&[synack(), found_late], false);
    let times: Vec<&str> = shown.lines().map(|line| &line[..12]).collect();
    assert_eq!(times, ["03:04:05.000", "03:04:06.012"]);
}

/// A run ends when so many have ended, and others end at the same moment.
#[test]
fn a_count_shows_exactly_so_many() {
    let lines: Vec<Line> = (0..5)
        .map(|n| failed(n, "10.0.0.5", VerdictKind::SynackLost, Confidence::Certain))
        .chain([half_open(), end(0)])
        .collect();
    for most in [1, 3] {
        let json = JsonView::new(Vec::new());
        let mut view = FirstHandshakes::new(json, Some(most));
        view.show(&lines[..2], clock()).unwrap();
        view.show(&lines[2..], clock()).unwrap();
        let out = String::from_utf8(view.into_inner().into_inner()).unwrap();
        let lines: Vec<serde_json::Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len() as u64, most + 1, "{out}");
        assert_eq!(lines.last().unwrap()["handshakes"], most);
    }
}

#[test]
fn a_handshake_that_is_over_at_once_is_one_line() {
    assert_eq!(
        text(&[half_open(), expired()], false, false)
            .lines()
            .count(),
        1
    );
}

#[test]
fn no_colour_and_no_escape_unless_asked_for() {
    let lines = [half_open(), synack(), expired()];
    assert!(!text(&lines, false, true).contains('\u{1b}'));
    let coloured = text(&lines, true, true);
    assert!(coloured.contains("\u{1b}[33mSYN-ACK+1\u{1b}[0m"));
    assert!(
        !coloured.contains("ngi\u{1b}"),
        "a process does not get to paint"
    );
}

fn end(peers_unlisted: u64) -> Line {
    let flood = peers_unlisted > 0;
    at(
        60_000_000_000,
        Body::End(End {
            events: 1000,
            lost: 0,
            handshakes: 900,
            listen_drops: Some(0),
            syn_cookies: None,
            syns_refused: 0,
            duration_us: 60_000_000,
            evicted: 0,
            counted: 0,
            produced: 1000,
            peers_unlisted,
            peers_distinct: ByRole {
                client: 3,
                server: if flood { 1_004_400 } else { 20 },
            },
            peers_distinct_error: ByRole {
                client: 0.0,
                server: if flood { 0.0065 } else { 0.0 },
            },
            unexplained: Vec::new(),
        }),
    )
}

#[test]
fn peers_that_made_room_are_counted_and_estimated() {
    let totals = "\n900 handshakes in 60.0 s: 1000 kernel records, 0 lost, 0 handshakes evicted\n";
    assert_eq!(text(&[end(0)], false, false), totals);
    assert_eq!(
        text(&[end(992_000)], false, false),
        "not in the table: 992000 handshakes and retransmissions of evicted peers; \
         distinct peers: 3 as client, about 1004400 as server (± 0.65 %)\n"
            .to_owned()
            + totals
    );
    let mut view = JsonView::new(Vec::new());
    view.show(&[end(992_000)], clock()).unwrap();
    let line: serde_json::Value = serde_json::from_slice(&view.into_inner()).unwrap();
    assert_eq!(
        line["peers_distinct"],
        serde_json::json!({"client": 3, "server": 1_004_400})
    );
    assert_eq!(
        line["peers_distinct_error"],
        serde_json::json!({"client": 0.0, "server": 0.0065})
    );
}

#[test]
fn json_has_the_contract_s_names_and_nulls() {
    let mut view = JsonView::new(Vec::new());
    view.show(&[synack(), expired()], clock()).unwrap();
    let out = String::from_utf8(view.into_inner()).unwrap();
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines[0],
        serde_json::json!({
            "v": 1, "type": "retransmit", "time": "2026-01-02T03:04:06.012345Z", "mono_ns": 1_012_345_678_u64,
            "id": 7, "role": "server", "family": "ipv4",
            "local_addr": "10.0.0.1", "local_port": 8080, "peer_addr": "10.0.0.5", "peer_port": 40000,
            "netns": 4_026_531_833_u32, "netns_name": "blue", "pid": 99, "comm": "ngi\u{1b}nx", "cgroup": null,
            "unit": null, "container_id": null, "pod_uid": null, "container": null, "pod": null,
            "namespace": null,
            "kind": "synack", "trigger": "timer", "attempt": 1, "gap_us": 1_012_000,
            "expected_gap_us": 1_000_000, "next_us": 2_000_000, "gives_up_us": 62_000_000,
            "segs": 1, "failed": false, "error": null,
        })
    );
    assert_eq!(lines[1]["outcome"], "expired");
    assert_eq!(lines[1]["verdict"], serde_json::Value::Null);
    assert!(lines[1].get("gaps_us").is_none());
}

#[test]
fn a_step_of_the_wall_clock_moves_times_and_not_durations() {
    let back = WallClock::new(WALL_NS - 3_600_000_000_000, 0);
    assert_eq!(rfc3339(clock(), 1_000), "2026-01-02T03:04:05.000001Z");
    assert_eq!(rfc3339(back, 1_000), "2026-01-02T02:04:05.000001Z");
}

#[test]
fn lines_written_by_hand_are_what_serde_writes() {
    use super::json::held_against_serde::assert_same;
    let mut lines = Vec::new();
    for (role, v4_mapped, port, text) in [
        (
            Role::Server,
            true,
            Some(65535),
            Some("a\"b\\c\u{1b}\u{e9}\u{fffd}"),
        ),
        (Role::Client, false, None, None),
    ] {
        let connection = Connection {
            id: u64::MAX,
            family: if v4_mapped {
                Family::Ipv4
            } else {
                Family::Ipv6
            },
            v4_mapped,
            peer_addr: if v4_mapped { "10.0.0.5" } else { "2001:db8::1" }
                .parse()
                .unwrap(),
            local_port: port,
            peer_port: port,
            pid: port.map(u32::from),
            comm: text.map(Into::into),
            cgroup: text.map(Into::into),
            netns_name: text.map(Into::into),
            ..connection(role)
        };
        for outcome in Outcome::ALL {
            let dwell = port.map(u64::from);
            lines.push(at(
                1_234_567,
                Body::Handshake(Box::new(Handshake {
                    connection: connection.clone(),
                    outcome,
                    open_reason: (outcome == Outcome::Open).then_some(OpenReason::EndNotSeen),
                    dwell_us: dwell,
                    dwell_source: dwell.map(|_| DwellSource::RequestSock),
                    dwell_error_us: dwell,
                    dwell_at_least_us: port.xor(Some(1)).map(u64::from),
                    retransmits: u32::MAX,
                    retransmits_by_peer: 0,
                    error: text.map(Into::into),
                    verdict: text.map(|_| VerdictKind::PeerSilent),
                    confidence: Confidence::Likely,
                    evidence: text
                        .map(|t| Evidence {
                            fact: t.into(),
                            supports: false,
                        })
                        .into_iter()
                        .collect(),
                    remedy: text.map(Into::into),
                    gaps_us: vec![1],
                    facts: Facts::default(),
                })),
            ));
        }
        let new = TcpState::Established;
        let dwell_us = port.map(u64::from);
        lines.push(at(
            0,
            Body::State(State {
                connection,
                old: TcpState::SynRecv,
                new,
                dwell_us,
            }),
        ));
    }
    assert_same(&lines);
}

#[test]
fn json_is_safe_on_a_terminal_and_parses_to_the_same() {
    let named = "\u{1b}[2J\u{9b}1m\u{7f}\n\"\\,größe \u{202e}→\u{2028}";
    let line = super::to_json(&named).unwrap();
    assert_eq!(
        line,
        r#""\u001b[2J\u009b1m\u007f\n\"\\,größe \u202e→\u2028""#
    );
    assert_eq!(serde_json::from_str::<String>(&line).unwrap(), named);
}

#[test]
fn a_refused_syn_has_a_line() {
    let refused = SynRefused {
        forward: None,
        peer_addr: Some("10.0.0.5".parse().unwrap()),
        local_addr: Some("10.0.0.1".parse().unwrap()),
        local_port: Some(179),
        netns: 4_026_531_833,
        netns_name: Some("blue".into()),
        pid: Some(99),
        comm: Some("bgpd".into()),
        workload: Default::default(),
        reason: Some("TCP_MD5FAILURE".into()),
        what: "its TCP MD5 signature is wrong".into(),
        count: 5,
        since: 1_000_000_000,
        remedy: Some("ss -tlni".into()),
    };
    let line = at(2_000_000_000, Body::SynRefused(Box::new(refused.clone())));
    assert_eq!(
        text(std::slice::from_ref(&line), false, true),
        "03:04:07.000       <179   10.0.0.5                                        SYN REFUSED      ×5 \
         its TCP MD5 signature is wrong (TCP_MD5FAILURE), at 10.0.0.1:179, bgpd/99, netns blue, see: ss -tlni\n"
    );
    let unknown = SynRefused {
        peer_addr: None,
        local_addr: None,
        local_port: None,
        reason: None,
        remedy: None,
        ..refused
    };
    let lines = [line, at(2_000_000_000, Body::SynRefused(Box::new(unknown)))];
    assert!(text(&lines, false, false).contains("<?     several peers"));
    assert!(
        narrow(&lines, false)
            .lines()
            .all(|line| line.chars().count() <= 80)
    );
    let mut view = JsonView::new(Vec::new());
    view.show(&lines, clock()).unwrap();
    let out = String::from_utf8(view.into_inner()).unwrap();
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["type"], "syn_refused");
    assert_eq!(lines[0]["reason"], "TCP_MD5FAILURE");
    assert_eq!(
        (&lines[0]["count"], &lines[0]["since"]),
        (&5.into(), &1_000_000_000.into())
    );
    assert_eq!(lines[1]["peer_addr"], serde_json::Value::Null);
    assert_eq!(lines[1]["reason"], serde_json::Value::Null);
}
