//! What verdicts are drawn from, and packets that a half-open has dealt with.

use crate::model::SocketDump;
use synprobe_ebpf::event::DropRecord;

use super::*;
use crate::track::facts;

const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

pub(super) fn discarded(at: u64, flags: u8, fill: impl FnOnce(&mut DropRecord)) -> Event {
    let mut r = DropRecord {
        header: header(at),
        flow: server_flow(),
        flags,
        ifindex: 2,
        listener: 1,
        max_ack_backlog: 128,
        ..DropRecord::default()
    };
    fill(&mut r);
    Event::Drop(r)
}

/// The counters have been read once.
fn looked_before(b: &mut Bench) {
    b.dump(snapshot_at(T0 - SEC, Vec::new(), 0));
}

#[test]
fn repeats_of_before_the_run_show_in_the_requests_own_counts() {
    let mut b = bench();
    // Five SYN-ACKs again, two of them by the timer: the peer had repeated its SYN three times.
    b.see(synack_retransmitted(
        T0 + 15 * SEC,
        T0 - 16 * SEC,
        2,
        5,
        false,
    ));
    b.tracker.finish(T0 + 16 * SEC);
    let h = b.one();
    assert_eq!((h.retransmits, h.retransmits_by_peer), (6, 3));
    assert!(h.facts.preexisting && h.facts.history_known);
    assert_eq!(h.facts.began_ns, Some(T0 - 16 * SEC));
    assert_eq!(h.facts.time_outs, 3);
}

#[test]
fn a_rst_that_the_namespace_counted_ends_its_half_open_at_once() {
    let mut b = bench();
    listening(&mut b);
    looked_before(&mut b);
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    b.host.resets.set(1);
    b.see(discarded(T0 + 1_500 * MS, RST, |_| ()));
    let h = b.one();
    assert_eq!(
        (h.outcome, h.dwell_us, h.dwell_error_us),
        (Outcome::Reset, Some(1_500_000), None)
    );
    assert!(h.facts.reset_seen);
    // The same RST is not given to another that vanishes.
    b.see(synack_retransmitted(
        T0 + 3 * SEC,
        T0 + 2 * SEC,
        0,
        0,
        false,
    ));
    b.dump(gone_at(T0 + 4 * SEC, 1));
    assert_eq!(b.one().outcome, Outcome::Dropped);
}

#[test]
fn a_half_open_that_nobody_saw_begin_is_known_by_the_rst_that_ends_it() {
    let mut b = bench();
    looked_before(&mut b);
    b.host.resets.set(1);
    b.see(discarded(T0, RST, |_| ()));
    let h = b.one();
    assert_eq!((h.outcome, h.dwell_us), (Outcome::Reset, None));
    // One that missed the window is answered and counted nowhere.
    b.see_as(discarded(T0 + SEC, RST, |_| ()), Treatment::Ignored);
    b.see_as(discarded(T0 + SEC, RST, |_| ()), Treatment::Untold);
    assert!(b.handshakes().is_empty());
}

#[test]
fn a_rst_before_the_first_look_needs_no_counter_where_its_reason_tells() {
    let mut b = bench();
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    b.see(discarded(T0 + 1_500 * MS, RST, |r| r.seq = 78));
    let h = b.one();
    assert_eq!((h.outcome, h.dwell_us), (Outcome::Reset, Some(1_500_000)));
    assert!(h.facts.reset_seen && h.facts.rst_seq == Some(78));
}

#[test]
fn a_rst_before_the_first_look_is_remembered() {
    let mut b = bench();
    listening(&mut b);
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    b.see_as(discarded(T0 + 1_500 * MS, RST, |_| ()), Treatment::Untold);
    assert!(b.handshakes().is_empty());
    looked_before(&mut b);
    b.host.resets.set(1);
    b.dump(gone_at(T0 + 2 * SEC, 1));
    let h = b.one();
    assert_eq!((h.outcome, h.dwell_us), (Outcome::Reset, Some(1_500_000)));
    assert!(h.facts.reset_untold && !h.facts.reset_seen);
    // But not where it was alive after it.
    let first = T0 + 3 * SEC;
    b.see(synack_retransmitted(T0 + 4 * SEC, first, 0, 0, false));
    b.see_as(discarded(T0 + 4_500 * MS, RST, |_| ()), Treatment::Untold);
    b.see(synack_retransmitted(T0 + 6 * SEC, first, 1, 1, false));
    b.dump(gone_at(T0 + 7 * SEC, 1));
    assert_eq!(b.one().outcome, Outcome::Dropped);
}

#[test]
fn a_final_ack_at_a_full_queue_is_noted_with_the_queue() {
    let mut b = bench();
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    let full = |r: &mut DropRecord| r.ack_backlog = 129;
    b.see(discarded(T0 + 1_011 * MS, ACK, full));
    // Another, younger than a second: nothing else tells of it.
    let mut other = server_flow();
    other.peer_port += 1;
    // Its listener is an IPv6 one; nobody has looked at it yet.
    other.family = AF_INET6;
    b.see(discarded(T0 + 1_012 * MS, ACK, |r| {
        r.flow = other;
        full(r);
    }));
    b.tracker.finish(T0 + 2 * SEC);
    let all = b.handshakes();
    assert_eq!(all.len(), 2);
    for h in &all {
        assert!(h.facts.acked && h.facts.queue_was_full, "{:?}", h.facts);
        assert_eq!(h.facts.defer_accept, Some(false));
    }
    let counted: Vec<bool> = all.iter().map(|h| h.facts.history_known).collect();
    assert_eq!(counted, [true, false]);
    let mapped: Vec<bool> = all.iter().map(|h| h.connection.v4_mapped).collect();
    assert_eq!(mapped, [false, true]);
}

#[test]
fn what_this_host_has_reset_itself_is_no_peers_doing() {
    let full_ack = || discarded(T0 + 1_011 * MS, ACK, |r| r.ack_backlog = 129);
    for (aborts, known, outcome) in [
        (true, true, Outcome::Dropped),
        (true, false, Outcome::Dropped),
        (false, true, Outcome::Reset),
    ] {
        let mut b = bench();
        listening(&mut b);
        looked_before(&mut b);
        b.host.aborts.set(aborts);
        if known {
            b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
        }
        b.host.resets.set(1);
        b.see(full_ack());
        b.dump(gone_at(T0 + 2 * SEC, 1));
        let h = b.one();
        assert_eq!((h.outcome, h.dwell_us.is_some()), (outcome, known));
        let said = h.evidence.iter().any(|e| e.fact == facts::RESET_HERE);
        assert_eq!(said, aborts, "{:?}", h.evidence);
    }
    // The counter was read for the first time after it: a look finds it gone.
    let mut b = bench();
    listening(&mut b);
    b.host.aborts.set(true);
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    b.see(full_ack());
    looked_before(&mut b);
    b.host.resets.set(1);
    b.dump(gone_at(T0 + 2 * SEC, 1));
    assert_eq!(b.one().outcome, Outcome::Dropped);
}

#[test]
fn what_a_half_open_ignores_is_no_final_ack_and_no_end() {
    let mut b = bench();
    listening(&mut b);
    looked_before(&mut b);
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    // Another half-open of the namespace was reset.
    b.host.resets.set(1);
    b.see_as(discarded(T0 + 1_011 * MS, RST, |_| ()), Treatment::Ignored);
    let full = |r: &mut DropRecord| (r.ack_backlog, r.seq) = (129, 77);
    b.see_as(discarded(T0 + 1_012 * MS, ACK, full), Treatment::Ignored);
    assert!(b.handshakes().is_empty());
    b.tracker.finish(T0 + 2 * SEC);
    let h = b.one();
    assert_eq!(h.outcome, Outcome::Open);
    assert!(h.facts.ignored_segment && !h.facts.acked && !h.facts.queue_was_full);
    assert!(!h.facts.reset_seen && h.facts.syn_seq.is_none());
}

#[test]
fn a_rst_of_which_the_kernel_tells_nothing_ends_it_only_if_it_is_gone() {
    let look = |b: &mut Bench| {
        b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
        b.host.resets.set(1);
        b.see_as(discarded(T0 + 1_500 * MS, RST, |_| ()), Treatment::Untold);
        assert!(b.handshakes().is_empty());
    };
    for (counted, outcome) in [(1, Outcome::Reset), (0, Outcome::Dropped)] {
        let mut b = bench();
        listening(&mut b);
        looked_before(&mut b);
        look(&mut b);
        b.host.resets.set(counted);
        b.dump(gone_at(T0 + 2 * SEC, counted));
        let h = b.one();
        assert_eq!(h.outcome, outcome);
        assert!(h.facts.reset_untold && !h.facts.reset_seen);
    }
    // It lives, and its next SYN-ACK is no sign of a loss.
    let mut b = bench();
    look(&mut b);
    b.see(synack_retransmitted(T0 + 3_010 * MS, T0, 1, 1, false));
    b.tracker.finish(T0 + 4 * SEC);
    assert!(b.lines().iter().all(|l| !matches!(l.body, Body::Lost(_))));
}

#[test]
fn an_ack_of_which_the_kernel_tells_nothing_may_be_the_final_one() {
    let mut b = bench();
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    let full = |r: &mut DropRecord| r.ack_backlog = 129;
    b.see_as(discarded(T0 + 1_011 * MS, ACK, full), Treatment::Untold);
    b.tracker.finish(T0 + 2 * SEC);
    let h = b.one();
    assert!(h.facts.ack_untold && h.facts.queue_was_full && !h.facts.acked);
}

#[test]
fn a_stray_ack_to_a_listener_with_room_is_nobodys() {
    let mut b = bench();
    b.see(discarded(T0, ACK, |_| ()));
    b.see(discarded(T0, ACK, |r| r.listener = 0));
    b.tracker.finish(T0 + SEC);
    assert!(b.handshakes().is_empty());
}

#[test]
fn a_deferred_one_is_noted_and_ends_well() {
    let mut b = bench();
    b.see(discarded(T0 - 300 * MS, ACK, |r| r.defer_accept = 1));
    for event in accepted(T0, 0xc0, 300_100 * 8, 0) {
        b.see(event);
    }
    let h = b.one();
    assert_eq!(
        (h.outcome, h.dwell_us),
        (Outcome::Established, Some(300_100))
    );
    assert!(h.facts.acked);
    assert_eq!(h.facts.defer_accept, Some(true));
}

/// Its timer fires at 1 and 3 s and sends nothing: at 5.3 s it looks like one of 1.2 s.
#[test]
fn issue15_a_deferred_one_that_is_first_seen_late_is_not_another_one() {
    for ack_is_seen in [true, false] {
        let mut b = bench();
        listening(&mut b);
        b.dump(snapshot_at(T0 - SEC, Vec::new(), 0));
        if ack_is_seen {
            b.see(discarded(T0 + MS, ACK, |r| r.defer_accept = 3));
        }
        b.dump(snapshot_at(T0 + 5_300 * MS, vec![row(0, 1_840)], 0));
        b.dump(snapshot_at(T0 + 6_600 * MS, vec![row(0, 540)], 0));
        b.see(synack_retransmitted(T0 + 7_140 * MS, T0, 2, 0, false));
        for event in accepted(T0 + 7_141 * MS, 0xc0, 0, 1) {
            b.see(event);
        }
        let lines = b.lines();
        let all = handshakes(&lines);
        assert_eq!(all.len(), 1, "{lines:#?}");
        let h = &all[0];
        assert_eq!(
            (h.outcome, h.dwell_us),
            (Outcome::Established, Some(7_141_000))
        );
        if ack_is_seen {
            // Its beginning is not said to be later than its final ACK.
            let (old, new, began_ns, _) = states(&lines)[0];
            assert_eq!((old, new), ("LISTEN", "SYN_RECV"));
            assert!((T0 - SEC..=T0 + MS).contains(&began_ns), "{began_ns}");
        }
    }
}

#[test]
fn the_kernels_patience_is_told_beside_the_applications() {
    let mut b = bench();
    b.see(connect(T0, 0xc1));
    b.see(state(T0 + SEC / 2, 0xc1, client_flow(50000), 2, 7, |_| ()));
    let h = b.one();
    assert_eq!(h.outcome, Outcome::Abandoned);
    // Six retries and four linear time-outs: 131 s (docs/kernel-facts.md, section 5).
    assert_eq!(h.facts.would_give_up_us, Some(131_000_000));
}

#[test]
fn silent_half_opens_are_counted_by_port_and_source() {
    let mut b = bench();
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    for n in 0..3u16 {
        let Event::SynAck(mut r, trigger) = synack_retransmitted(T0 + 1_020 * MS, T0, 0, 0, n == 2)
        else {
            unreachable!()
        };
        r.flow.peer_port = 50_000 + n;
        b.see(Event::SynAck(r, trigger));
    }
    let counted = b.tracker.half_opens_by_port();
    assert_eq!(counted.len(), 1);
    let ((netns, port), now) = &counted[0];
    assert_eq!((*netns, *port), (NETNS, 8080));
    // Four of them, all from one address. One has repeated its SYN: that is no answer.
    assert_eq!((now.open, now.silent, now.silent_sources), (4, 4, 1));
}

#[test]
fn a_timer_that_is_armed_anew_without_a_syn_ack_is_the_same_half_open() {
    // Its SYN-ACK cannot be sent again, or need not be: num_retrans stays 0, no event tells.
    let mut b = bench();
    listening(&mut b);
    b.dump(snapshot_at(T0 + 500 * MS, vec![row(0, 500)], 0));
    // It began at T0; its time-outs end 1, 3, 7 s after that, each up to an eighth late.
    for (at_ms, expires_ms) in [(1_500, 1_540), (2_500, 540), (3_500, 3_620), (6_500, 620)] {
        b.dump(snapshot_at(T0 + at_ms * MS, vec![row(0, expires_ms)], 0));
    }
    assert!(b.handshakes().is_empty());
    assert_eq!(b.tracker.open(), 1);
    // One whose timer fits no such beginning is another: its peer has used the port again.
    b.dump(snapshot_at(T0 + 9_000 * MS, vec![row(0, 950)], 0));
    assert_eq!(b.one().outcome, Outcome::Dropped);
}

#[test]
fn the_last_time_out_ends_it_though_nothing_could_be_sent() {
    let mut b = bench();
    listening(&mut b);
    let look = |at_ms: u64, expires_ms| {
        let mut dump = snapshot_at(T0 + at_ms * MS, vec![row(0, expires_ms)], 0);
        dump.synack_retries = Some(2);
        dump
    };
    b.dump(look(500, 500));
    b.dump(look(1_500, 1_540));
    b.dump(look(3_500, 3_620));
    b.dump(look(6_900, 220));
    b.dump(gone_at(T0 + 7_900 * MS, 0));
    let h = b.one();
    assert_eq!(
        (h.outcome, h.retransmits, h.facts.time_outs),
        (Outcome::Expired, 0, 2)
    );
}

#[test]
fn a_half_open_whose_namespace_is_gone_does_not_stay_for_ever() {
    let mut b = bench();
    b.see(synack_retransmitted(T0 + SEC, T0, 0, 0, false));
    assert_eq!(b.tracker.namespaces().collect::<Vec<_>>(), [NETNS]);
    let elsewhere = |b: &mut Bench, at: u64| {
        b.dump(SocketDump {
            netns: NETNS + 1,
            ..snapshot_at(at, Vec::new(), 0)
        });
    };
    // The next SYN-ACK is due 2 s later, or 4 if the first was due after 2.
    elsewhere(&mut b, T0 + 9 * SEC);
    assert!(b.handshakes().is_empty());
    elsewhere(&mut b, T0 + 10 * SEC);
    let h = b.one();
    assert_eq!(
        (h.outcome, h.dwell_us),
        (Outcome::Dropped, Some(10_001_000))
    );
    assert_eq!(h.dwell_error_us, Some(9_001_000));
    assert!(h.evidence[0].fact.contains("namespace"), "{:?}", h.evidence);
    assert_eq!(b.tracker.namespaces().count(), 0);
}
