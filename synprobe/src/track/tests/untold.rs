//! Retransmissions that no event told of.

use super::*;

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
    b.see(syn_again(T0 + 3_030 * MS, 0xa, 3, 250));
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
    b.see(synack_again(began + SEC, began, 0, 0, false));
    b.see(synack_again(began + 7 * SEC, began, 2, 2, false));
    for event in accepted(began + 8 * SEC, 0xb, 100, 4) {
        b.see(event);
    }
    let lines = b.lines();
    assert_eq!(handshakes(&lines)[0].retransmits, 4);
    assert_eq!(lost(&lines), [1, 1]);
}
