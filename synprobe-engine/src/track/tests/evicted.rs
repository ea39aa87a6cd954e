//! Handshakes that the full table evicts, and the reasons for which a line says `open`.

use super::*;
use crate::model::{Lost, Missed, OpenReason};

fn lost(lines: &[Line]) -> Vec<Lost> {
    let lost = lines.iter().filter_map(|line| match &line.body {
        Body::Lost(lost) => Some(lost.clone()),
        _ => None,
    });
    lost.collect()
}

fn with_room_for(handshakes: usize) -> Bench {
    bench_with(TrackConfig {
        tables: room_for(handshakes),
        ..config()
    })
}

/// The SYN-ACK of a half-open of another port is retransmitted.
fn other_again(at: u64, began: u64, peer_port: u16) -> Event {
    let Event::SynAck(mut r, trigger) = synack_retransmitted(at, began, 0, 0, false) else {
        panic!("a SYN-ACK");
    };
    r.flow.peer_port = peer_port;
    Event::SynAck(r, trigger)
}

#[test]
fn issue14_1_a_half_open_that_comes_back_after_its_eviction_lost_no_event() {
    let mut b = with_room_for(1);
    let began = T0 + SEC;
    b.see(synack_retransmitted(began + SEC, began, 0, 0, false));
    b.see(other_again(began + SEC + MS, began + MS, 1));
    let evicted = b.one();
    assert_eq!(evicted.outcome, Outcome::Open);
    assert_eq!(evicted.open_reason, Some(OpenReason::Evicted));
    b.see(synack_retransmitted(began + 3 * SEC, began, 1, 1, false));
    let lines = b.lines();
    assert_eq!(handshakes(&lines)[0].open_reason, Some(OpenReason::Evicted));
    assert!(
        lost(&lines).iter().all(|l| l.of == Missed::Evicted),
        "{lines:?}"
    );
    b.tracker.finish(began + 4 * SEC);
    let back = b.one();
    assert_eq!(back.open_reason, Some(OpenReason::RunEnded));
    assert_eq!((back.retransmits, back.retransmits_by_peer), (2, 0));
}

#[test]
fn issue14_4_evictions_are_lost_lines_at_most_one_a_second() {
    let mut b = with_room_for(10);
    let mut lines = Vec::new();
    for n in 0..510 {
        b.see(connect(T0 + n * 10 * MS, n));
        lines.extend(b.lines());
    }
    b.tracker.finish(T0 + 5_100 * MS);
    lines.extend(b.lines());
    let lost = lost(&lines);
    assert!((5..=6).contains(&lost.len()), "{lost:?}");
    assert_eq!(lost.iter().map(|l| l.events).sum::<u64>(), 500);
    for one in lost {
        assert_eq!(
            one.reason,
            "handshakes evicted from the table (--max-memory, --max-handshakes)"
        );
        assert!(!one.is_of_handshakes(), "other handshakes are as sure");
    }
    let totals = b.tracker.totals();
    assert_eq!(
        (totals.evicted, totals.lost, totals.unreported),
        (500, 500, 500)
    );
}

#[test]
fn an_end_that_was_not_seen_is_a_reason_of_its_own() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(connect(T0 + SEC, 0xa));
    assert_eq!(b.one().open_reason, Some(OpenReason::EndNotSeen));
    b.tracker.finish(T0 + 2 * SEC);
    assert_eq!(b.one().open_reason, Some(OpenReason::RunEnded));
}
