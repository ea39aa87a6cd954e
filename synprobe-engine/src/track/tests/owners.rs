//! SO_REUSEPORT groups: a listener that is closed takes its half-opens along.

use std::collections::HashSet;

use super::*;
use crate::model::{Listener, ListenerOwner};

/// One of the group calls listen() (true) or closes its socket.
fn listener_event(b: &mut Bench, at: u64, sock: u64, pid: u32, opens: bool) {
    let listener = flow("0.0.0.0", 8080, "0.0.0.0", 0);
    let (old, new) = if opens { (7, 10) } else { (10, 7) };
    b.see(state(at, sock, listener, old, new, |r| {
        r.tgid = if opens { pid } else { 0 };
        r.comm[..5].copy_from_slice(b"nginx");
    }));
}

#[test]
fn a_half_open_that_vanishes_after_one_of_a_group_was_closed_may_have_been_its_own() {
    for (closes, survivors) in [(1, true), (2, false)] {
        let mut b = bench();
        listener_event(&mut b, T0 - 2 * SEC, 0xa, 11, true);
        listener_event(&mut b, T0 - 2 * SEC, 0xb, 12, true);
        b.dump(snapshot_at(T0, Vec::new(), 0));
        b.see(synack_retransmitted(T0 + SEC, T0, 0, 0, false));
        for sock in 0..closes {
            listener_event(&mut b, T0 + 2 * SEC, 0xa + sock, 0, false);
        }
        b.dump(gone_at(T0 + 3 * SEC + SEC / 2, 0));
        let h = b.one();
        assert_eq!(h.outcome, Outcome::Dropped);
        assert_eq!(h.facts.listener_closed_ns, Some(T0 + 2 * SEC));
        assert_eq!(h.facts.others_listen, survivors);
        // Two processes listen: it may be either's.
        assert_eq!(h.connection.pid, None);
    }
}

#[test]
fn a_later_close_does_not_hide_the_one_that_ended_it() {
    let mut b = bench();
    listener_event(&mut b, T0 - 2 * SEC, 0xa, 11, true);
    listener_event(&mut b, T0 - 2 * SEC, 0xb, 11, true);
    b.dump(snapshot_at(T0, Vec::new(), 0));
    b.see(synack_retransmitted(T0 + SEC, T0, 0, 0, false));
    listener_event(&mut b, T0 + 2 * SEC, 0xa, 0, false);
    // Its event comes before the dump is taken in.
    listener_event(&mut b, T0 + 4 * SEC, 0xb, 0, false);
    b.dump(gone_at(T0 + 3 * SEC + SEC / 2, 0));
    let h = b.one();
    assert_eq!(h.facts.listener_closed_ns, Some(T0 + 2 * SEC));
}

#[test]
fn a_listener_that_was_closed_before_it_began_is_not_its_own() {
    let mut b = bench();
    listener_event(&mut b, T0 - 2 * SEC, 0xa, 11, true);
    listener_event(&mut b, T0 - 2 * SEC, 0xb, 11, true);
    listener_event(&mut b, T0 - SEC, 0xb, 0, false);
    b.dump(snapshot_at(T0, Vec::new(), 0));
    b.see(synack_retransmitted(T0 + SEC, T0, 0, 0, false));
    b.dump(gone_at(T0 + 2 * SEC, 0));
    let h = b.one();
    assert_eq!(h.facts.listener_closed_ns, None);
    assert_eq!(h.connection.pid, Some(11));
}

#[test]
fn a_sample_corrects_what_events_did_not_show() {
    let mut b = bench();
    listener_event(&mut b, T0 - 2 * SEC, 0xa, 11, true);
    let netns = server_flow().netns;
    // The close had no event: the sample shows no listener.
    let all = HashSet::from([netns]);
    b.tracker
        .listeners_sampled((T0 - SEC, T0 - SEC + 1), &all, &[]);
    b.dump(snapshot_at(T0, Vec::new(), 0));
    b.see(synack_retransmitted(T0 + SEC, T0, 0, 0, false));
    b.dump(gone_at(T0 + 2 * SEC, 0));
    let h = b.one();
    assert_eq!(h.evidence[0].fact, "its listener is closed");
    assert_eq!(h.facts.listener_closed_ns, None);
}

/// A sample of this host's listeners that shows `count` of the group.
fn sampled(b: &mut Bench, at: u64, count: usize) {
    let one = Listener::at(NETNS, "0.0.0.0".parse().unwrap(), 8080);
    b.tracker
        .listeners_sampled((at, at + MS), &HashSet::from([NETNS]), &vec![one; count]);
}

/// A half-open since T0 whose listener is closed 2 s later.
fn half_open_of_a_closed_listener() -> Bench {
    let mut b = bench();
    listener_event(&mut b, T0 - 2 * SEC, 0xa, 11, true);
    sampled(&mut b, T0 - SEC, 1);
    b.dump(snapshot_at(T0, Vec::new(), 0));
    b.see(synack_retransmitted(T0 + SEC, T0, 0, 0, false));
    b
}

#[test]
fn a_listener_that_is_opened_anew_is_no_group() {
    let mut b = half_open_of_a_closed_listener();
    listener_event(&mut b, T0 + 2 * SEC, 0xa, 0, false);
    listener_event(&mut b, T0 + 2 * SEC + MS, 0xb, 12, true);
    b.dump(gone_at(T0 + 3 * SEC + SEC / 2, 0));
    let h = b.one();
    assert_eq!(h.outcome, Outcome::Dropped);
    assert_eq!(h.facts.listener_closed_ns, Some(T0 + 2 * SEC));
    assert!(!h.facts.others_listen);
    assert!(
        h.evidence[0]
            .fact
            .starts_with("its listener was closed while it was open, and another"),
        "{:?}",
        h.evidence
    );
}

#[test]
fn the_owner_of_a_new_listener_does_not_hide_that_the_old_one_was_closed() {
    let mut b = half_open_of_a_closed_listener();
    listener_event(&mut b, T0 + 2 * SEC - MS, 0xb, 12, true);
    listener_event(&mut b, T0 + 2 * SEC, 0xa, 0, false);
    b.tracker
        .observe(Observation::Listeners(vec![ListenerOwner {
            netns: NETNS,
            local_addr: flow("0.0.0.0", 8080, "0.0.0.0", 0).local_addr,
            local_port: 8080,
            process: None,
            cgroup: None,
        }]));
    sampled(&mut b, T0 + 3 * SEC, 1);
    b.dump(gone_at(T0 + 3 * SEC + SEC / 2, 0));
    let h = b.one();
    assert_eq!(h.facts.listener_closed_ns, Some(T0 + 2 * SEC));
    assert!(h.facts.others_listen);
}

#[test]
fn a_close_that_comes_after_a_later_sample_is_counted_once() {
    for (survivors, listens) in [(1, true), (0, false)] {
        let mut b = half_open_of_a_closed_listener();
        listener_event(&mut b, T0 + 2 * SEC - MS, 0xb, 12, true);
        // The sample is taken in before the events of its time.
        sampled(&mut b, T0 + 3 * SEC, survivors);
        listener_event(&mut b, T0 + 2 * SEC, 0xa, 0, false);
        b.dump(gone_at(T0 + 3 * SEC + SEC / 2, 0));
        let h = b.one();
        assert_eq!(h.facts.listener_closed_ns, Some(T0 + 2 * SEC));
        assert_eq!(h.facts.others_listen, listens);
    }
}
