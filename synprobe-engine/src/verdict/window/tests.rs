use std::time::Duration;

use super::*;
use crate::{
    model::{
        Body, Line, ListenCounters, Lost, Missed, Outcome, ProblemState, VerdictKind, WallClock,
    },
    verdict::{
        Judge, Mode,
        context::{Packet, Window},
        fixtures::{NETNS, SEC, T0, active, discard, half_open_of, listener},
    },
};

/// A judge of problems over a minute.
fn judge_of_a_minute() -> Judge {
    let mut context = Context::default();
    context.sees_drops = true;
    context.window = Some(Window::new(Duration::from_secs(60)));
    Judge::new(Mode::AtOnce, context).of_run(T0)
}

/// A half-open that a silent peer left, which ended at this second.
fn silent(peer: u8, second: u64) -> Line {
    let mut h = half_open_of(&format!("198.51.100.{peer}"), Outcome::Expired);
    h.retransmits = 5;
    h.facts.history_known = true;
    Line {
        mono_ns: T0 + second * SEC,
        body: Body::Handshake(Box::new(h)),
    }
}

/// Judges at each of these seconds; the lines that come.
fn judged(judge: &mut Judge, seconds: std::ops::RangeInclusive<u64>) -> Vec<(u64, Problem)> {
    seconds
        .flat_map(|second| {
            let lines =
                judge.judge_window(T0 + second * SEC, None, Vec::new(), WallClock::default());
            lines.into_iter().map(move |line| match line.body {
                Body::Problem(p) => (second, *p),
                other => panic!("{other:?}"),
            })
        })
        .collect()
}

#[test]
fn a_problem_lasts_as_long_as_its_facts_are_in_the_window_and_is_closed_a_window_later() {
    let mut judge = judge_of_a_minute();
    judge.pass(vec![silent(1, 5), silent(2, 6)]);
    let lines = judged(&mut judge, 7..=300);
    let states: Vec<_> = lines.iter().map(|(at, p)| (*at, p.life.state)).collect();
    // Its last fact is of second 6, so it is found until second 66.
    assert_eq!(
        states,
        [(7, ProblemState::Opened), (126, ProblemState::Closed)]
    );
    let (_, opened) = &lines[0];
    assert_eq!(
        (opened.verdict, opened.handshakes),
        (Some(VerdictKind::PeerSilent), 2)
    );
    let (_, closed) = &lines[1];
    assert_eq!(closed.life.id, opened.life.id);
    assert_eq!(closed.life.until_ns, Some(T0 + 66 * SEC));
    assert!(judge.problems_now().is_empty());
    assert!(!judge.window.unwrap().has_trouble());
}

#[test]
fn each_handshake_is_in_one_judgement_at_least() {
    let opened = |judge: &mut Judge, second| {
        let lines = judged(judge, second..=second);
        let states = lines.iter().map(|(_, p)| p.life.state);
        assert_eq!(states.collect::<Vec<_>>(), [ProblemState::Opened]);
    };
    // The next judgement comes more than a window later.
    let mut judge = judge_of_a_minute();
    judged(&mut judge, 2..=2);
    judge.pass(vec![silent(1, 5)]);
    opened(&mut judge, 80);
    // The record is read more than a window later.
    let mut judge = judge_of_a_minute();
    judged(&mut judge, 2..=80);
    judge.pass(vec![silent(1, 5)]);
    opened(&mut judge, 81);
    assert_eq!(
        judged(&mut judge, 82..=300).last().unwrap().1.life.state,
        ProblemState::Closed
    );
}

#[test]
fn handshakes_are_judged_by_what_is_known_later() {
    // The first half-opens of a flood are those of silent peers; the last show what they are part of.
    let mut judge = judge_of_a_minute();
    let mut fills = listener(0, 90);
    fills.local_port = 8080;
    fills.syn_queue_max = Some(100);
    judge.context.sample(&[fills], &[]);
    judge.pass((1..=30).map(|peer| silent(peer, 1)).collect());
    let first = judged(&mut judge, 2..=2);
    assert_eq!(first[0].1.verdict, Some(VerdictKind::PeerSilent));
    judge.pass((31..=80).map(|peer| silent(peer, 20)).collect());
    let later = judged(&mut judge, 21..=21);
    let (_, flood) = &later[0];
    assert_eq!(flood.verdict, Some(VerdictKind::SynFlood));
    assert_eq!(
        (flood.life.state, flood.handshakes),
        (ProblemState::Updated, 80)
    );
    assert_eq!(flood.life.id, first[0].1.life.id);
}

#[test]
fn those_beyond_the_bound_are_counted_too() {
    let mut judge = judge_of_a_minute();
    let many = TableBounds::default().held_of_window as u64 + 1000;
    judge.pass((0..many).map(|n| silent((n % 250) as u8, 1)).collect());
    let lines = judged(&mut judge, 2..=2);
    let all: u64 = lines.iter().map(|(_, p)| p.handshakes).sum();
    assert_eq!(all, many);
    assert_eq!(
        judged(&mut judge, 3..=300).last().unwrap().1.life.state,
        ProblemState::Closed
    );
    assert_eq!(judge.window.unwrap().held, 0);
}

#[test]
fn losses_and_counters_of_before_do_not_count() {
    let mut judge = judge_of_a_minute();
    let counters = |overflows| ListenCounters {
        netns: NETNS,
        listen_overflows: Some(overflows),
        ..ListenCounters::default()
    };
    let at = |second| (T0 + second * SEC, T0 + second * SEC);
    judge.context.sample_at(at(0), &[], &[counters(100)]);
    judged(&mut judge, 1..=10);
    judge.context.sample_at(at(10), &[], &[counters(130)]);
    judge.pass(vec![Line {
        mono_ns: T0 + 10 * SEC,
        body: Body::Lost(Lost {
            events: 3,
            reason: "a test".to_owned(),
            of: Missed::States,
        }),
    }]);
    let overflows = |judge: &Judge| judge.context.moved(NETNS, |c| c.listen_overflows);
    judged(&mut judge, 11..=60);
    assert_eq!(
        (judge.context.losses.any_of_handshakes(), overflows(&judge)),
        (true, Some(30))
    );
    judge.context.sample_at(at(60), &[], &[counters(135)]);
    judged(&mut judge, 61..=100);
    assert_eq!(
        (judge.context.losses.any_of_handshakes(), overflows(&judge)),
        (false, Some(5))
    );
    judged(&mut judge, 101..=200);
    assert_eq!(overflows(&judge), Some(0));
    assert_eq!(judge.context.during(), "in the last 60.0 s");
}

#[test]
fn a_listener_was_full_only_as_long_as_the_window_shows_it() {
    let mut judge = judge_of_a_minute();
    let full = crate::model::Listener {
        accept_queue: Some(11),
        accept_queue_max: Some(10),
        ..listener(11, 0)
    };
    let empty = crate::model::Listener {
        accept_queue: Some(0),
        ..full.clone()
    };
    let mut states = Vec::new();
    for second in 1..=250 {
        let now = if second <= 20 { &full } else { &empty };
        judge
            .context
            .sample_at((second, second), std::slice::from_ref(now), &[]);
        for (at, p) in judged(&mut judge, second..=second) {
            assert_eq!(p.verdict, Some(VerdictKind::AcceptQueueFull));
            states.push((at, p.life.state));
        }
    }
    let [
        (1, ProblemState::Opened),
        ..,
        (closed, ProblemState::Closed),
    ] = states[..]
    else {
        panic!("{states:?}");
    };
    // The window moves in steps of a quarter: found until 80 to 95 s, closed a window later.
    assert!((140..=156).contains(&closed), "{states:?}");
}

#[test]
fn dropped_packets_are_forgotten() {
    let mut judge = judge_of_a_minute();
    let mut drop = discard(&half_open_of("198.51.100.1", Outcome::Open), Packet::Syn, 1);
    std::mem::swap(&mut drop.from, &mut drop.to);
    drop.incoming = true;
    drop.last_ns = T0 + 5 * SEC;
    judge.context.note_drop(drop);
    let lines = judged(&mut judge, 6..=300);
    let states: Vec<_> = lines.iter().map(|(_, p)| p.life.state).collect();
    assert_eq!(states, [ProblemState::Opened, ProblemState::Closed]);
    assert_eq!(judge.context.dropped_packets().count(), 0);
}

#[test]
fn a_handshake_in_progress_counts_once_it_has_a_verdict() {
    let mut judge = judge_of_a_minute();
    let mut h = active(Outcome::Open);
    h.dwell_us = Some(100_000);
    h.retransmits = 0;
    let young = judge.judge_window(T0 + SEC, None, vec![h.clone()], WallClock::default());
    assert!(young.is_empty(), "{young:?}");
    h.retransmits = 3;
    h.dwell_us = Some(8_000_000);
    let lines = judge.judge_window(T0 + 9 * SEC, None, vec![h], WallClock::default());
    let Body::Problem(p) = &lines[0].body else {
        panic!("{lines:?}");
    };
    assert_eq!((p.verdict, p.open), (Some(VerdictKind::Filtered), 1));
}
