//! Connections that are reset right after their handshake: whose they are.

use synprobe_ebpf::event::EarlyResetRecord;

use super::*;
use crate::model::ConnectionReset;

fn reset(sock: u64, flow: Flow, fill: impl FnOnce(&mut EarlyResetRecord)) -> Event {
    let mut r = EarlyResetRecord {
        header: header(T0 + 5 * MS),
        flow,
        sock,
        age_us: 3000,
        state: 1,
        ..EarlyResetRecord::default()
    };
    fill(&mut r);
    let state = TcpState::from_kernel(r.state).unwrap();
    Event::EarlyReset(r, state)
}

fn only(b: &mut Bench) -> Option<ConnectionReset> {
    let lines = b.tracker.take_lines().into_iter();
    let mut all = lines.filter_map(|line| match line.body {
        Body::ConnectionReset(r) => Some(*r),
        _ => None,
    });
    let first = all.next();
    assert_eq!(all.next(), None);
    first
}

#[test]
fn a_connection_whose_handshake_was_watched_is_known() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(state(T0 + MS, 0xa, client_flow(50000), 2, 1, |_| ()));
    b.see(reset(0xa, client_flow(50000), |r| {
        r.bytes_sent = 20;
        r.unacknowledged = 1;
        r.data_age_us = 7;
        r.state = 8;
    }));
    let r = only(&mut b).unwrap();
    assert_eq!(r.connection.role, Role::Client);
    assert_eq!(r.connection.pid, Some(77));
    assert_eq!((r.age_us, r.bytes_sent, r.fin_received), (3000, 20, true));
    assert_eq!(r.unacknowledged_us, Some(7));
}

#[test]
fn a_socket_whose_address_was_used_again_is_another_connection() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(state(T0 + MS, 0xa, client_flow(50000), 2, 1, |_| ()));
    b.see(reset(0xa, client_flow(50001), |_| ()));
    let r = only(&mut b).unwrap();
    assert_eq!(r.connection.pid, None);
    assert!(!r.fin_received);
}

#[test]
fn without_a_record_of_its_handshake_a_listener_makes_it_a_servers() {
    // Listens still, or was closed a moment ago.
    for closed in [false, true] {
        let mut b = bench();
        listening(&mut b);
        if closed {
            let listener = flow("0.0.0.0", 8080, "0.0.0.0", 0);
            b.see(state(T0, 0xfeed, listener, 10, 7, |_| ()));
        }
        // The kernel side may remember a caller whose socket had the same address.
        b.see(reset(0xb, server_flow(), |r| r.tgid = 5));
        let r = only(&mut b).unwrap();
        assert_eq!(r.connection.role, Role::Server);
        assert_eq!(r.connection.pid, (!closed).then_some(99));
    }
}

#[test]
fn without_a_listener_it_is_a_clients_and_its_caller_is_named() {
    let mut b = bench();
    b.see(reset(0xb, client_flow(50000), |r| {
        r.tgid = 5;
        r.comm[..4].copy_from_slice(b"curl");
    }));
    let r = only(&mut b).unwrap();
    assert_eq!(r.connection.role, Role::Client);
    assert_eq!(r.connection.pid, Some(5));
    assert_eq!(r.connection.comm.as_deref(), Some("curl"));
}

#[test]
fn a_role_that_was_not_asked_for_is_left_out() {
    let mut config = config();
    config.selection.role = Some(Role::Server);
    let mut b = bench_with(config);
    b.see(reset(0xb, client_flow(50000), |_| ()));
    assert_eq!(only(&mut b), None);
}
