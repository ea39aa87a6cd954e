use std::net::{Ipv4Addr, Ipv6Addr};

use synprobe_ebpf::event::state;

use super::*;

/// What Linux 6.18.44 on x86_64 sent for a listener on `[::1]:34567`, backlog 7, one connection
/// waiting, with INET_DIAG_INFO; `tcp_info` cut after the members that are read.
#[cfg(target_endian = "little")]
const V6_LISTENER: &str = "\
0a0a000087070000000000000000000000000000000000010000000000000000000000000000000000000000010000\
000000000000000000010000000700000000000000ef580000050008000000000005000b000100000008000f000000\
00000c001500010000000000000006001600120000006c0002000a0000000000000000000000000000000000000000\
0000000100000007000000000000000000000000000000000000000000000000000000000000000000000000000000\
0000000000000000000000000a0000000000000003000000000000000000000000000000";

/// The same for `127.0.0.2:34568`, backlog 3, without INET_DIAG_INFO.
#[cfg(target_endian = "little")]
const V4_LISTENER: &str = "\
020a0000870800007f0000020000000000000000000000000000000000000000000000000000000000000000020000\
000000000000000000000000000300000000000000f1580000050008000000000008000f00000000000c0015000100\
0000000000000600160052000000";

#[cfg(target_endian = "little")]
fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
#[cfg(target_endian = "little")]
fn a_recorded_ipv6_listener() {
    let row = Row::parse(&bytes(V6_LISTENER)).unwrap();
    let expected = Row {
        family: AF_INET6,
        state: state::LISTEN,
        local_addr: Ipv6Addr::LOCALHOST.octets(),
        local_port: 34567,
        rqueue: 1,
        wqueue: 7,
        inode: 22767,
        cookie: 1,
        v6only: Some(true),
        cgroup: Some(1),
        transparent: Some(false),
        tcp_info: Some(TcpInfo {
            unacked: 1,
            sacked: 7,
            ..TcpInfo::default()
        }),
        ..Row::default()
    };
    assert_eq!(row, expected);
}

#[test]
#[cfg(target_endian = "little")]
fn a_recorded_ipv4_listener_has_mapped_addresses() {
    let row = Row::parse(&bytes(V4_LISTENER)).unwrap();
    let expected = Row {
        family: AF_INET,
        state: state::LISTEN,
        local_addr: Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped().octets(),
        peer_addr: Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(),
        local_port: 34568,
        wqueue: 3,
        inode: 22769,
        cookie: 2,
        cgroup: Some(1),
        transparent: Some(false),
        ..Row::default()
    };
    assert_eq!(row, expected);
}

#[test]
#[cfg(target_endian = "little")]
fn every_truncation_is_a_row_or_none() {
    for recorded in [V6_LISTENER, V4_LISTENER] {
        let whole = bytes(recorded);
        for len in 0..=whole.len() {
            assert_eq!(
                Row::parse(&whole[..len]).is_some(),
                len >= MSG,
                "cut at {len}"
            );
        }
    }
}

#[test]
fn an_unknown_family_is_none() {
    let mut payload = [0; MSG];
    for family in 0..=255u8 {
        payload[0] = family;
        assert_eq!(
            Row::parse(&payload).is_some(),
            matches!(family, 2 | 10),
            "{family}"
        );
    }
}

#[test]
fn any_bytes_behind_the_message_do_no_harm() {
    // A fixed generator, so that a failure is the same each time.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut payload = [0u8; 256];
    for _ in 0..20_000 {
        for byte in &mut payload {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *byte = random as u8;
        }
        payload[0] = AF_INET as u8;
        let end = MSG + (random % 184) as usize;
        assert!(Row::parse(&payload[..end]).is_some());
    }
}

#[test]
fn wildcards_are_those_of_both_families() {
    assert!(is_wildcard(&Ipv6Addr::UNSPECIFIED.octets()));
    assert!(is_wildcard(
        &Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets()
    ));
    assert!(!is_wildcard(&Ipv6Addr::LOCALHOST.octets()));
    assert!(!is_wildcard(&Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()));
    assert!(is_v4_mapped(&Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()));
    // IPv4-compatible, long deprecated, is not mapped.
    assert!(!is_v4_mapped(
        &"::127.0.0.1".parse::<Ipv6Addr>().unwrap().octets()
    ));
}

#[test]
#[cfg(target_endian = "little")]
fn a_transparent_listener_says_so() {
    // The same row with IP_TRANSPARENT set.
    let hex = V4_LISTENER.replace("0600160052000000", "0600160072000000");
    assert_ne!(hex, V4_LISTENER);
    let row = Row::parse(&bytes(&hex)).unwrap();
    assert_eq!(row.transparent, Some(true));
}
