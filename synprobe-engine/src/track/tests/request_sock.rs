//! The exact mode: half-opens whose end an event tells.

use crate::model::ListenerOwner;
use synprobe_ebpf::event::{
    DropRecord, ENDED_BY_ABORTED, ENDED_BY_PACKET, ENDED_BY_TIMER, ENDED_BY_UNKNOWN, QUEUE_ACCEPT,
    QUEUE_NEITHER, QUEUE_SYN, RequestRecord, state,
};

use super::*;
use crate::decode::Moment;

fn exact() -> Bench {
    bench_with(TrackConfig {
        source: HalfOpenSource::Fentry,
        ..config()
    })
}

fn request(at: u64, moment: Moment, fill: impl FnOnce(&mut RequestRecord)) -> Event {
    let mut r = RequestRecord {
        header: header(at),
        flow: server_flow(),
        timeout_jiffies: 250,
        max_ack_backlog: 128,
        sysctl_synack_retries: 5,
        listener_state: state::LISTEN,
        ..RequestRecord::default()
    };
    fill(&mut r);
    Event::Request(r, moment)
}

fn ended(at: u64, began: u64, how: u8, fill: impl FnOnce(&mut RequestRecord)) -> Event {
    request(at, Moment::Ended, |r| {
        r.ended_by = how;
        r.snt_synack_us = began / 1000;
        fill(r);
    })
}

fn lost(lines: &[Line]) -> u64 {
    let lost = lines.iter().map(|line| match &line.body {
        Body::Lost(lost) => lost.events,
        _ => 0,
    });
    lost.sum()
}

#[test]
fn an_end_needs_no_beginning() {
    let mut b = exact();
    let began = T0 + SEC;
    b.see(ended(began + 300 * MS, began, ENDED_BY_PACKET, |_| ()));
    let h = b.one();
    assert_eq!(h.outcome, Outcome::Reset);
    assert_eq!((h.dwell_us, h.dwell_error_us), (Some(300_000), None));
    assert_eq!(h.dwell_source, Some(DwellSource::RequestSock));
}

#[test]
fn a_rst_is_told_once_whatever_else_tells_of_it() {
    let mut b = exact();
    let began = T0 + SEC;
    b.dump(snapshot_at(T0 + 500 * MS, Vec::new(), 7));
    b.see(request(began, Moment::Begun, |_| ()));
    b.host.resets.set(8);
    b.see(ended(began + 300 * MS, began, ENDED_BY_PACKET, |_| ()));
    // The packet itself, right behind it.
    b.see(Event::Drop(DropRecord {
        header: header(began + 301 * MS),
        flow: server_flow(),
        flags: 4,
        listener: 1,
        ..DropRecord::default()
    }));
    b.dump(snapshot_at(began + 900 * MS, Vec::new(), 8));
    let lines = b.lines();
    assert_eq!(handshakes(&lines).len(), 1, "{lines:#?}");
    assert_eq!(lost(&lines), 0);
    // And of another half-open nobody says that it was this RST.
    assert_eq!(b.tracker.killed_by_rst(NETNS), Some(false));
}

#[test]
fn a_row_read_before_the_end_does_not_bring_it_back() {
    let mut b = exact();
    let began = T0 + SEC;
    b.tracker.poll_begins();
    b.see(ended(began + 300 * MS, began, ENDED_BY_ABORTED, |_| ()));
    let dump = snapshot_at(began + 299 * MS, vec![row(0, 700)], 0);
    b.take_in(dump.into());
    b.tracker.poll_ends(began + 300 * MS);
    let h = b.one();
    assert_eq!(h.outcome, Outcome::Dropped);
    assert!(h.evidence[0].fact.contains("ss -K"), "{:?}", h.evidence);
    assert_eq!(b.tracker.open(), 0);
}

#[test]
fn a_healthy_handshake_begins_once() {
    let mut b = exact();
    let began = T0 + SEC;
    b.see(request(began, Moment::Begun, |_| ()));
    for event in accepted(began + 40 * MS, 0xb, (40_000 - 20) * 8, 0) {
        b.see(event);
    }
    let lines = b.lines();
    let all = handshakes(&lines);
    assert_eq!(all.len(), 1, "{lines:#?}");
    assert_eq!(all[0].outcome, Outcome::Established);
    assert_eq!(all[0].dwell_source, Some(DwellSource::RttSample));
    assert_eq!((all[0].dwell_us, lost(&lines)), (Some(39_980), 0));
}

#[test]
fn the_last_time_out_is_told_from_a_synack_that_cannot_be_sent() {
    let began = T0 + SEC;
    for (fired, outcome) in [(5, Outcome::Expired), (0, Outcome::Dropped)] {
        let mut b = exact();
        b.see(ended(began + 63 * SEC, began, ENDED_BY_TIMER, |r| {
            (r.num_timeout, r.num_retrans) = (fired, fired);
        }));
        // How often it was sent again no event has told: that is lost, and its own count stands.
        let h = b.one();
        assert_eq!((h.outcome, h.dwell_error_us), (outcome, None));
        assert_eq!(h.retransmits, u32::from(fired));
    }
}

#[test]
fn a_pruned_queue_gives_fewer_tries() {
    let began = T0 + SEC;
    let mut b = exact();
    b.see(ended(began + 7 * SEC, began, ENDED_BY_TIMER, |r| {
        (r.num_timeout, r.num_retrans) = (2, 2);
        (r.qlen, r.young) = (100, 0);
    }));
    assert_eq!(b.one().outcome, Outcome::Expired);
}

#[test]
fn with_its_listener_it_may_have_moved_to_another() {
    let began = T0 + SEC;
    let gone = |r: &mut RequestRecord| r.listener_state = state::CLOSE;
    let mut b = exact();
    b.see(ended(began + SEC, began, ENDED_BY_TIMER, gone));
    assert_eq!(b.one().evidence[0].fact, "its listener is closed");

    let mut b = exact();
    b.tracker
        .observe(Observation::Listeners(vec![ListenerOwner {
            netns: NETNS,
            local_addr: server_flow().local_addr,
            local_port: server_flow().local_port,
            process: None,
            cgroup: None,
        }]));
    b.see(ended(began + SEC, began, ENDED_BY_TIMER, gone));
    assert_eq!((b.handshakes().len(), b.tracker.open()), (0, 1));
    // It had not: a look shows that it is gone, and nothing was lost.
    b.dump(gone_at(began + 2 * SEC, 0));
    let lines = b.lines();
    let all = handshakes(&lines);
    assert_eq!((all.len(), lost(&lines)), (1, 0));
    assert_eq!(
        (all[0].dwell_us, all[0].dwell_error_us),
        (Some(1_000_000), None)
    );
    assert_eq!(all[0].evidence[0].fact, "its listener is closed");
}

#[test]
fn an_end_that_no_event_told_is_lost_and_still_told() {
    let mut b = exact();
    let began = T0 + SEC;
    b.see(request(began, Moment::Begun, |_| ()));
    b.dump(gone_at(began + 2 * SEC, 0));
    let lines = b.lines();
    assert_eq!((handshakes(&lines).len(), lost(&lines)), (1, 1));

    // What did not fit into the ring is lost once.
    let mut b = exact();
    b.see(request(began, Moment::Begun, |_| ()));
    b.tracker.observe(Observation::Lost {
        at_ns: began,
        lost: crate::model::Lost {
            events: 1,
            reason: "the ring was full".to_owned(),
            of: Missed::Requests,
        },
    });
    b.see(request(began + SEC, Moment::Begun, |_| ()));
    assert_eq!(lost(&b.lines()), 1);
}

#[test]
fn where_nothing_tells_who_ended_it_the_counter_does() {
    let mut b = exact();
    let began = T0 + SEC;
    b.dump(snapshot_at(T0 + 500 * MS, Vec::new(), 7));
    b.host.resets.set(8);
    b.see(ended(began + MS, began, ENDED_BY_UNKNOWN, |_| ()));
    b.see(ended(
        began + 9 * MS,
        began + 5 * MS,
        ENDED_BY_UNKNOWN,
        |_| (),
    ));
    let outcomes: Vec<_> = b.handshakes().iter().map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Reset, Outcome::Dropped]);
}

#[test]
fn refused_syns_are_the_peers() {
    let refused = |queue| request(T0 + SEC, Moment::Refused, |r| r.queue = queue);
    let mut b = exact();
    for queue in [QUEUE_ACCEPT, QUEUE_ACCEPT, QUEUE_SYN, QUEUE_NEITHER] {
        b.see(refused(queue));
    }
    b.tracker.finish(T0 + 2 * SEC);
    let lines = b.lines();
    let peer = lines.iter().find_map(|line| match &line.body {
        Body::Peer(peer) => Some(peer),
        _ => None,
    });
    let peer = peer.unwrap();
    assert_eq!(
        (peer.syns_refused_accept_queue, peer.syns_refused_syn_queue),
        (Some(2), Some(1))
    );
    assert_eq!((peer.attempts, handshakes(&lines).len()), (0, 0));
    // Where nothing tells it is not known, and that is no 0.
    let mut b = bench();
    b.see(synack_retransmitted(T0 + 2 * SEC, T0 + SEC, 0, 0, false));
    b.tracker.finish(T0 + 3 * SEC);
    for line in b.lines() {
        if let Body::Peer(peer) = line.body {
            assert_eq!(peer.syns_refused_accept_queue, None);
        }
    }
}
