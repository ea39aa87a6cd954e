//! Half-opens in namespaces that nobody can look into.

use super::{
    facts::{ACK, discarded},
    *,
};

/// The last second at which it is open, and its end.
fn open_until(b: &mut Bench) -> (u64, Handshake) {
    for second in 1..1000 {
        b.tracker.poll_ends(T0 + second * SEC);
        if let Some(h) = b.handshakes().pop() {
            return (second - 1, h);
        }
    }
    panic!("it is open for ever");
}

#[test]
fn one_ends_when_its_syn_ack_is_overdue() {
    // The time-out that it is in is one of 2 s, or of 4, had the first been one of 2.
    let mut b = bench();
    b.see(synack_retransmitted(T0, T0 - SEC, 0, 0, false));
    let (until, h) = open_until(&mut b);
    assert!((5..=12).contains(&until), "{until} s");
    assert_eq!(h.outcome, Outcome::Dropped);
    assert_eq!(h.dwell_error_us, Some((until + 1) * 1_000_000));
}

#[test]
fn syn_acks_that_the_peer_caused_do_not_lengthen_the_wait() {
    let mut b = bench();
    for n in 0..7 {
        b.see(synack_retransmitted(T0 + n, T0 - SEC, 0, n as u8, true));
    }
    let (until, h) = open_until(&mut b);
    assert!((4..=12).contains(&until), "{until} s");
    assert_eq!((h.retransmits, h.retransmits_by_peer), (7, 7));
}

#[test]
fn one_dump_that_fails_ends_nothing() {
    // Rounds are far apart where one takes long: a dump shows it, the next one fails a minute later.
    let mut b = bench();
    b.see(synack_retransmitted(T0, T0 - SEC, 0, 0, false));
    b.dump(snapshot_at(T0 + SEC, vec![row(1, 1000)], 0));
    b.tracker.poll_ends(T0 + 60 * SEC);
    assert!(b.handshakes().is_empty(), "one look failed");
    b.tracker.poll_ends(T0 + 120 * SEC);
    assert_eq!(b.handshakes().len(), 1);
}

#[test]
fn one_that_waits_for_data_is_given_the_time_outs_that_say_nothing() {
    // TCP_DEFER_ACCEPT of 3 s is two of them: 1 and 2 s pass before a SYN-ACK is seen; of 10 s, 1, 2, 4, 8.
    for (deferred, least_s, most_s) in [(1, 4, 8), (2, 4, 12), (4, 16, 40)] {
        let mut b = bench();
        b.see(discarded(T0, ACK, |r| r.defer_accept = deferred));
        let (until, h) = open_until(&mut b);
        assert!((least_s..=most_s).contains(&until), "{until} s");
        assert_eq!(h.outcome, Outcome::Dropped);
    }
}
