use super::*;
use crate::{
    model::{Counted, Outcome, Problem, ProblemLife, ProblemState, VerdictKind},
    status::fixtures::{problem, status},
    verdict::fixtures,
};

const S: u64 = 1_000_000_000;
/// Of which a page takes a quarter each for its reports.
const MEMORY: u64 = 32 << 20;

fn show(live: &mut LiveReport, mono_ns: u64, body: Body) {
    let line = Line { mono_ns, body };
    live.line(&line, WallClock::default()).unwrap();
}

fn begun() -> LiveReport {
    let mut live = LiveReport::within(MEMORY, Lang::En);
    show(&mut live, S, Body::Start(Start::default()));
    live
}

fn expired(id: u64, ended_ns: u64) -> Body {
    let mut h = fixtures::half_open_of("192.0.2.7", Outcome::Expired);
    h.connection.id = id;
    h.facts.began_ns = Some(ended_ns - 7 * S);
    h.facts.ended_ns = ended_ns;
    h.verdict = Some(VerdictKind::PeerSilent);
    Body::Handshake(Box::new(h))
}

fn html(live: &LiveReport, status: &RunStatus) -> String {
    let report = live.at(status, None).unwrap();
    report.html(&Counted::default())
}

fn at(at_ns: u64) -> RunStatus {
    RunStatus { at_ns, ..status() }
}

fn in_trouble(page: &str) -> u64 {
    let (_, rest) = page.split_once("<dt>in trouble</dt><dd>").unwrap();
    rest.split('<')
        .next()
        .unwrap()
        .replace(',', "")
        .parse()
        .unwrap()
}

#[test]
fn it_shows_ten_to_twenty_minutes_and_forgets_the_rest() {
    let mut live = begun();
    // One a second for an hour.
    for second in 10..3600 {
        show(&mut live, second * S, expired(second, second * S));
        if second % 37 == 0 {
            let shown = in_trouble(&html(&live, &at(second * S)));
            let least = 600.min(second - 9);
            assert!((least..=1200).contains(&shown), "{shown} after {second} s");
        }
    }
    assert!(live.parts.len() <= 2);
    // Then nothing for a day: what is shown ends with it.
    let later = at(3600 * S + 86_400 * S);
    live.observe(&later);
    let page = html(&live, &later);
    assert_eq!(in_trouble(&page), 0);
    let shown = crate::util::format::duration(SHOWN_NS / 1000);
    assert!(page.contains(&format!(" UTC, {shown}</dd>")), "{page}");
}

#[test]
fn what_is_wrong_is_what_is_open_and_what_has_closed_is_listed() {
    let mut live = begun();
    let closed = |name: &str| {
        Body::Problem(Box::new(Problem {
            life: ProblemLife {
                state: ProblemState::Closed,
                until_ns: Some(9 * S),
                ..ProblemLife::default()
            },
            ..problem(name)
        }))
    };
    show(&mut live, 2 * S, Body::Problem(Box::new(problem("opened"))));
    for n in 0..50 {
        show(&mut live, 10 * S, closed(&format!("closed-{n}")));
    }
    let mut now = at(20 * S);
    now.snapshot.problems = vec![problem("</p><script>now")];
    let page = html(&live, &now);
    assert!(page.contains("<h1>1 problem. "), "{page}");
    assert!(page.contains("&lt;/p&gt;&lt;script&gt;now") && !page.contains("<script"));
    assert!(page.contains("closed-49") && !page.contains("closed-29"));
    assert!(!page.contains("opened"), "{page}");
    now.snapshot.problems.clear();
    let page = html(&live, &now);
    assert!(page.contains("<h1>No problem is open.</h1>"), "{page}");
    assert!(!page.contains("longer --duration"), "{page}");
}

#[test]
fn those_in_progress_are_there_as_they_stand_and_change_nothing() {
    let mut live = begun();
    show(&mut live, 9 * S, expired(1, 9 * S));
    let before = html(&live, &at(10 * S));
    let mut now = at(10 * S);
    let mut open = fixtures::half_open_of("192.0.2.9", Outcome::Open);
    open.open_reason = Some(crate::model::OpenReason::RunEnded);
    open.facts.began_ns = Some(8 * S);
    open.facts.ended_ns = 10 * S;
    open.retransmits = 1;
    let young = Handshake {
        retransmits: 0,
        ..open.clone()
    };
    now.snapshot.open_total = 3;
    now.judged = Some(vec![open, young]);
    let page = html(&live, &now);
    assert_eq!(in_trouble(&page), in_trouble(&before) + 1);
    assert!(
        page.contains("<dd>3, 1 of them in the pictures</dd>"),
        "{page}"
    );
    assert_eq!(html(&live, &at(10 * S)), before);
}

#[test]
fn a_flood_stays_within_the_memory() {
    let mut live = begun();
    for n in 0..200_000_u64 {
        let mut h = fixtures::half_open_of("192.0.2.7", Outcome::Expired);
        h.connection.id = n;
        h.connection.peer_addr = std::net::Ipv4Addr::from(n as u32 * 251).into();
        h.facts.began_ns = Some(n * 5_000_000 + 2 * S);
        h.facts.ended_ns = n * 5_000_000 + 9 * S;
        h.verdict = Some(VerdictKind::SynFlood);
        show(
            &mut live,
            n * 5_000_000 + 9 * S,
            Body::Handshake(Box::new(h)),
        );
    }
    let now = at(1_100 * S);
    let page = html(&live, &now);
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
    // The sums are complete all the same.
    assert!(in_trouble(&page) > 100_000, "{}", in_trouble(&page));
    for part in &live.parts {
        let rows = part.report.worst.rows(usize::MAX).len();
        assert!(rows <= 2 * part.report.worst.most_rows(), "{rows} rows");
    }
}
