use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use super::*;
use crate::{Client, ConnectState, Lab, PORT, SocketFamily, packet::flags, settle};

#[test]
fn masks_are_those_of_the_prefix() {
    assert_eq!(mask(4, 24), [255, 255, 255, 0]);
    assert_eq!(mask(4, 17), [255, 255, 128, 0]);
    assert_eq!(mask(4, 0), [0; 4]);
    assert_eq!(mask(4, 32), [255; 4]);
    assert_eq!(mask(16, 64)[7..9], [255, 0]);
}

fn seen_of_a_connect(lab: &Lab, to: SocketAddr) -> ConnectState {
    let mut client = Client::connect(&lab.client, to, |_| Ok(())).unwrap();
    let until = Instant::now() + Duration::from_millis(300);
    settle([&mut client], &AtomicBool::new(false), until).unwrap();
    client.seen
}

const SYN: Option<(u8, u8)> = Some((flags::SYN | flags::ACK, flags::SYN));

#[test]
#[ignore = "needs root"]
fn a_rule_drops_what_it_says_and_nothing_else() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
        let lab = Lab::new(family).unwrap();
        let v6 = family.wire_is_v6();
        let near = if v6 { 64 } else { 24 };
        let drop = NftRule {
            flags: SYN,
            ..NftRule::drop(NftHook::Input)
        };
        let ports = [PORT, PORT + 1, PORT + 2, PORT + 3, PORT + 4];
        let _listeners = ports.map(|port| lab.listen(port, 8).unwrap());
        for port in ports {
            assert_eq!(
                seen_of_a_connect(&lab, lab.server_addr(port)),
                ConnectState::Connected
            );
        }
        let whole = whole(lab.client_ip());
        let of_network = NftRule {
            source: Some((lab.server_ip(), near)),
            destination_port: Some(PORT),
            ..drop
        };
        let of_host = NftRule {
            source: Some((lab.client_ip(), whole)),
            destination: Some((lab.server_ip(), whole)),
            destination_port: Some(PORT + 1),
            ..drop
        };
        let of_another = NftRule {
            source: Some((lab.server_ip(), whole)),
            destination_port: Some(PORT + 2),
            ..drop
        };
        let of_another_network = NftRule {
            source: Some((crate::net::spoofed(v6, 0), near)),
            destination_port: Some(PORT + 3),
            ..drop
        };
        install(&lab.server, v6, &[of_network, of_host]).unwrap();
        // A second transaction adds to the first.
        install(&lab.server, v6, &[of_another, of_another_network]).unwrap();
        let seen = ports.map(|port| seen_of_a_connect(&lab, lab.server_addr(port)));
        let (dropped, through) = (ConnectState::Pending, ConnectState::Connected);
        assert_eq!(seen, [dropped, dropped, through, through, through]);
    }
}

#[test]
#[ignore = "needs root"]
fn an_output_rule_drops_the_syn_ack_and_leaves_the_half_open() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
        let lab = Lab::new(family).unwrap();
        let rule = NftRule {
            source_port: Some(PORT),
            flags: Some((flags::SYN | flags::ACK, flags::SYN | flags::ACK)),
            ..NftRule::drop(NftHook::Output)
        };
        install(&lab.server, family.wire_is_v6(), &[rule]).unwrap();
        let _listener = lab.listen(PORT, 8).unwrap();
        let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(())).unwrap();
        let until = Instant::now() + Duration::from_millis(300);
        settle([&mut client], &AtomicBool::new(false), until).unwrap();
        assert_eq!(client.seen, ConnectState::Pending);
        assert_eq!(lab.half_opens(PORT).unwrap(), 1);
    }
}

#[test]
#[ignore = "needs root"]
fn dnat_reaches_the_new_target() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
        let lab = Lab::new(family).unwrap();
        let (from, to) = (lab.server_addr(PORT), lab.server_addr(PORT + 1));
        let listener = lab.listen(PORT + 1, 8).unwrap();
        assert_eq!(
            seen_of_a_connect(&lab, from),
            ConnectState::Failed(libc::ECONNREFUSED)
        );
        install(&lab.server, family.wire_is_v6(), &[NftRule::dnat(from, to)]).unwrap();
        assert_eq!(seen_of_a_connect(&lab, from), ConnectState::Connected);
        assert!(listener.accept().is_ok());
    }
}

#[test]
#[ignore = "needs root"]
fn a_refused_transaction_is_an_error() {
    let lab = Lab::new(SocketFamily::V4).unwrap();
    // The kernel has no DNAT in a filter chain.
    let wrong = NftRule {
        hook: NftHook::Input,
        ..NftRule::dnat(lab.server_addr(PORT), lab.server_addr(PORT + 1))
    };
    assert!(install(&lab.server, false, &[wrong]).is_err());
}
