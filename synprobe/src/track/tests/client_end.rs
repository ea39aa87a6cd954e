//! How active opens end that sent no SYN, or whose SYN was repeated for another reason than its time-out.

use synprobe_ebpf::event::{SYN_BUILT, SYN_HAD_ECN, SYN_NO_TUPLE, SYN_NOT_BUILT};

use super::*;
use crate::model::SynSent;

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
