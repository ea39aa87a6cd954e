//! Retransmissions that no event told of.

use super::*;
use crate::model::{Lost, Missed, RetransCounts, RetransReading, SocketDump};

fn lost(lines: &[Line]) -> Vec<u64> {
    let lost = lines.iter().filter_map(|line| match &line.body {
        Body::Lost(lost) => Some(lost.events),
        _ => None,
    });
    lost.collect()
}

#[test]
fn a_socket_s_own_count_tells_of_syns_that_no_event_told() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(syn_retransmitted(T0 + 3_030 * MS, 0xa, 3, 250));
    b.see(state(T0 + 4_500 * MS, 0xa, client_flow(50000), 2, 7, |r| {
        r.total_retrans = 4
    }));
    let lines = b.lines();
    assert_eq!(handshakes(&lines)[0].retransmits, 4);
    assert_eq!(lost(&lines), [2, 1]);
}

#[test]
fn a_request_s_own_count_tells_of_syn_acks_that_no_event_told() {
    let mut b = bench();
    let began = T0 + SEC;
    b.see(synack_retransmitted(began + SEC, began, 0, 0, false));
    b.see(synack_retransmitted(began + 7 * SEC, began, 2, 2, false));
    for event in accepted(began + 8 * SEC, 0xb, 100, 4) {
        b.see(event);
    }
    let lines = b.lines();
    assert_eq!(handshakes(&lines)[0].retransmits, 4);
    assert_eq!(lost(&lines), [1, 1]);
}

/// A segment of data is sent again, `segs` at once.
fn data_again(at: u64, segs: u32) -> Event {
    let r = RetransmitRecord {
        header: header(at),
        flow: client_flow(50000),
        sock: 0xa,
        segs,
        state: 1,
        pending: 5,
        ..RetransmitRecord::default()
    };
    Event::Retransmit(r, TcpState::Established)
}

/// A look at the kernel's counters.
fn counted(at: u64, handshake: u64, segments: u64) -> SocketDump {
    SocketDump {
        retransmitted: Some(RetransReading {
            before_ns: at,
            after_ns: at + MS,
            counts: RetransCounts {
                handshake,
                segments,
            },
        }),
        ..snapshot_at(at, Vec::new(), 0)
    }
}

fn missed(b: &mut Bench) -> Vec<(u64, Missed)> {
    let lines = b.lines();
    let lost = lines.iter().filter_map(|line| match &line.body {
        Body::Lost(lost) => Some((lost.events, lost.of)),
        _ => None,
    });
    lost.collect()
}

#[test]
fn the_kernel_s_count_tells_of_segments_that_no_event_told() {
    let mut b = bench();
    b.dump(counted(T0, 3, 10));
    b.see(data_again(T0 + SEC, 4));
    b.dump(counted(T0 + 2 * SEC, 3, 14));
    assert_eq!(missed(&mut b), []);
    b.see(data_again(T0 + 3 * SEC, 1));
    b.dump(counted(T0 + 4 * SEC, 4, 17));
    let told = missed(&mut b);
    assert_eq!(
        told,
        [(1, Missed::Handshakes(NETNS)), (1, Missed::Data(NETNS))]
    );
    b.dump(counted(T0 + 5 * SEC, 4, 17));
    assert_eq!(missed(&mut b), [], "once");
}

#[test]
fn segments_of_a_record_that_did_not_fit_are_not_lost_once_more() {
    let mut b = bench();
    b.dump(counted(T0, 0, 0));
    let lost = Lost {
        events: 1,
        reason: "the ring was full".to_owned(),
        of: Missed::Retransmissions,
    };
    b.tracker.observe(Observation::Lost { at_ns: T0, lost });
    b.lines();
    b.dump(counted(T0 + SEC, 0, 30));
    assert_eq!(missed(&mut b), []);
    b.dump(counted(T0 + 2 * SEC, 0, 31));
    assert_eq!(missed(&mut b), [(1, Missed::Data(NETNS))]);
}

#[test]
fn before_6_17_what_could_not_be_sent_is_not_missed() {
    let mut b = bench_with(TrackConfig {
        sees_failures: false,
        ..config()
    });
    b.dump(counted(T0, 0, 0));
    b.dump(SocketDump {
        retrans_fail: 2,
        ..counted(T0 + SEC, 1, 2)
    });
    assert_eq!(missed(&mut b), []);
}

#[test]
fn with_a_filter_nothing_is_held_against_the_namespace() {
    let selection = Selection {
        ports: "8080".parse().unwrap(),
        ..Selection::default()
    };
    let mut b = bench_with(TrackConfig {
        selection,
        ..config()
    });
    b.dump(counted(T0, 0, 0));
    b.see(data_again(T0 + SEC, 1));
    b.dump(counted(T0 + 2 * SEC, 0, 9));
    assert_eq!(missed(&mut b), []);
}
