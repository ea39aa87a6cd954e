//! How active opens end that sent no SYN, or whose SYN was repeated for another reason than its time-out.

use synprobe_ebpf::event::{SYN_BUILT, SYN_HAD_ECN, SYN_NO_TUPLE, SYN_NOT_BUILT};

use super::*;
use crate::model::{RetransmitKind, SynSent};

#[test]
fn a_syn_that_is_repeated_at_once_is_no_time_out() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(syn_retransmitted(T0 + 11 * MS, 0xa, 1, 250));
    b.see(syn_retransmitted(T0 + 1_011 * MS, 0xa, 2, 250));
    b.see(state(T0 + 1_012 * MS, 0xa, client_flow(50000), 2, 1, |r| {
        (r.total_retrans, r.srtt_us) = (2, 8 * 1000);
    }));
    let h = b.one();
    assert_eq!(
        (h.facts.early_repeats, h.facts.early_gap_us),
        (1, Some(11_000))
    );
    assert_eq!(
        (h.facts.echo_us, h.facts.since_last_syn_us),
        (Some(1000), Some(1000))
    );
}

#[test]
fn what_the_first_syn_had_is_a_fact() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    let Event::Retransmit(mut r, tcp_state) = syn_retransmitted(T0 + 1_000 * MS, 0xa, 1, 250)
    else {
        unreachable!()
    };
    r.syn_had = SYN_HAD_ECN;
    b.see(Event::Retransmit(r, tcp_state));
    b.see(state(T0 + 1_001 * MS, 0xa, client_flow(50000), 2, 1, |r| {
        r.total_retrans = 1;
    }));
    let h = b.one();
    assert!(h.facts.first_syn_had_ecn && !h.facts.first_syn_had_fast_open);
    assert_eq!((h.facts.early_repeats, h.facts.echo_us), (0, None));
}

#[test]
fn a_tuple_in_use_is_no_lack_of_patience() {
    let ends = |syn: u8, held: bool| {
        let mut b = bench();
        b.tracker
            .set_tuple_held(Tuple::from(&client_flow(50000)), held);
        b.see(connect(T0, 0xa));
        b.see(state(T0 + 40_000, 0xa, client_flow(50000), 2, 7, |r| {
            r.syn = syn
        }));
        b.one()
    };
    let h = ends(SYN_NO_TUPLE, true);
    assert_eq!(h.outcome, Outcome::Unreachable);
    assert_eq!(h.error.as_deref(), Some("EADDRNOTAVAIL"));
    assert_eq!(h.facts.syn, SynSent::NoTuple);
    // Nobody holds it: the route may not take the ports, and which error that gave is not known.
    assert_eq!(ends(SYN_NO_TUPLE, false).error, None);
    for (syn, fact) in [
        (SYN_NOT_BUILT, SynSent::NotBuilt),
        (SYN_BUILT, SynSent::Built),
    ] {
        let h = ends(syn, false);
        assert_eq!((h.outcome, h.facts.syn), (Outcome::Abandoned, fact));
    }
}

/// As it was seen on 6.18: the SYN with data, ICMP fragmentation-needed, the SYN alone, its data in vain, and then
/// the data. `TCPSlowStartRetrans` rose by 4, `TCPSynRetrans` by 1, `TCPTimeouts` by 0.
#[test]
fn issue15_a_syn_that_is_too_large_for_the_path_is_sent_again_in_recovery() {
    let again = |at, state: u8, err, no_syn, segs| {
        let r = RetransmitRecord {
            header: header(at),
            flow: client_flow(50000),
            sock: 0xa,
            err,
            seq: 100 + u32::from(no_syn != 0 || state == 1),
            segs,
            state,
            ca_state: 4,
            pending: 1,
            total_retrans: 1 + if state == 1 { segs } else { 0 },
            sysctl_syn_retries: 6,
            sysctl_syn_linear: 4,
            no_syn,
            ..RetransmitRecord::default()
        };
        Event::Retransmit(r, TcpState::from_kernel(state).unwrap())
    };
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(again(T0 + MS, 2, 0, 0, 1));
    b.see(again(T0 + MS + 20_000, 2, -11, 1, 1));
    b.see(state(T0 + 2 * MS, 0xa, client_flow(50000), 2, 1, |r| {
        r.total_retrans = 1;
    }));
    b.see(again(T0 + 2 * MS + 10_000, 1, 0, 0, 3));
    let lines = b.tracker.take_lines();
    let sent: Vec<_> = lines
        .iter()
        .filter_map(|line| match &line.body {
            Body::Retransmit(r) => Some(r),
            _ => None,
        })
        .collect();
    assert!(sent.iter().all(|r| r.kind == RetransmitKind::Recovery));
    assert_eq!(sent[0].gap_us, Some(1000));
    assert_eq!(sent[0].expected_gap_us, None, "no timer sent it");
    let failed: Vec<bool> = sent.iter().map(|r| r.failed).collect();
    assert_eq!(failed, [false, true, false]);
    let segments: u32 = sent.iter().filter(|r| !r.failed).map(|r| r.segs).sum();
    assert_eq!(segments, 4);
    let id = sent[0].connection.id;
    assert!(sent.iter().all(|r| r.connection.id == id));
    let handshake = lines.iter().find_map(|line| match &line.body {
        Body::Handshake(h) => Some(h),
        _ => None,
    });
    let h = handshake.unwrap();
    assert_eq!((h.retransmits, h.unanswered()), (1, 0));
    assert_eq!(h.facts.early_repeats, 0);
    assert_eq!(h.facts.syn_seq, Some(100));
    assert!(lines.iter().all(|line| !matches!(line.body, Body::Lost(_))));
}
