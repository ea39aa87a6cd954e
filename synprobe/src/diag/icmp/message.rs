//! ICMP errors: what they say, and how they are parsed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const DEST_UNREACH: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const V6_DEST_UNREACH: u8 = 1;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;
/// The ICMP types that report an error.
pub(super) const V4_TYPES: [u8; 3] = [DEST_UNREACH, TIME_EXCEEDED, PARAMETER_PROBLEM];
/// The ICMPv6 types that report an error.
pub(super) const V6_TYPES: [u8; 3] = [V6_DEST_UNREACH, V6_TIME_EXCEEDED, V6_PARAMETER_PROBLEM];

/// An ICMP error about a TCP segment of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The sender: a router, or the peer itself.
    pub from: IpAddr,
    /// ICMP (or ICMPv6) type.
    pub kind: u8,
    /// ICMP (or ICMPv6) code.
    pub code: u8,
    /// This host's address and port, from the embedded segment.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub peer: SocketAddr,
    /// Sequence number of the embedded segment: RFC 792 guarantees 64 bits of it.
    pub seq: u32,
}

impl IcmpError {
    /// In words, with the numbers (RFC 792, RFC 1812, RFC 4443).
    pub fn words(&self) -> String {
        let words = if self.local.is_ipv4() {
            match (self.kind, self.code) {
                (DEST_UNREACH, 0) => "network unreachable",
                (DEST_UNREACH, 1) => "host unreachable",
                (DEST_UNREACH, 2) => "protocol unreachable",
                (DEST_UNREACH, 3) => "port unreachable",
                (DEST_UNREACH, 4) => "fragmentation needed",
                (DEST_UNREACH, 6 | 7) => "destination unknown",
                (DEST_UNREACH, 9 | 10 | 13) => "administratively prohibited",
                (DEST_UNREACH, _) => "destination unreachable",
                (TIME_EXCEEDED, _) => "time exceeded (a routing loop, or too far)",
                _ => "parameter problem",
            }
        } else {
            match (self.kind, self.code) {
                (V6_DEST_UNREACH, 0) => "no route to destination",
                (V6_DEST_UNREACH, 1) => "administratively prohibited",
                (V6_DEST_UNREACH, 2) => "beyond scope of source address",
                (V6_DEST_UNREACH, 3) => "address unreachable",
                (V6_DEST_UNREACH, 4) => "port unreachable",
                (V6_DEST_UNREACH, 5) => "source address failed policy",
                (V6_DEST_UNREACH, 6) => "reject route to destination",
                (V6_DEST_UNREACH, _) => "destination unreachable",
                (V6_TIME_EXCEEDED, _) => "time exceeded (a routing loop, or too far)",
                _ => "parameter problem",
            }
        };
        format!("{words} (type {} code {})", self.kind, self.code)
    }
}

/// Parses a message as a raw IPv4 socket delivers it: outer IP header, ICMP header, embedded packet.
///
/// Raw sockets receive it before `icmp_rcv()` verifies the checksum. A message that the kernel will
/// discard must not be reported, so the checksum is verified here.
pub(super) fn parse_v4(bytes: &[u8], from: IpAddr) -> Option<IcmpError> {
    let outer = usize::from(*bytes.first()? & 0xf) * 4;
    let icmp = bytes.get(outer..)?;
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    let inner = icmp.get(8..)?;
    if !V4_TYPES.contains(&kind)
        || *inner.first()? >> 4 != 4
        || *inner.get(9)? != libc::IPPROTO_TCP as u8
        || !checksum_is_right(icmp)
    {
        return None;
    }
    let at = |n: usize| -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(*inner.get(n..)?.first_chunk::<4>()?))
    };
    let tcp = inner.get(usize::from(*inner.first()? & 0xf) * 4..)?;
    let (source, destination, seq) = ports_and_seq(tcp)?;
    Some(IcmpError {
        from,
        kind,
        code,
        local: SocketAddr::new(at(12)?.into(), source),
        peer: SocketAddr::new(at(16)?.into(), destination),
        seq,
    })
}

/// Parses a message as a raw ICMPv6 socket delivers it: ICMPv6 header, embedded packet. Extension
/// headers of the embedded packet are not followed: a SYN of this host has none. `rawv6_rcv_skb()` has
/// verified the checksum.
pub(super) fn parse_v6(icmp: &[u8], from: IpAddr) -> Option<IcmpError> {
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    let inner = icmp.get(8..)?;
    if !V6_TYPES.contains(&kind)
        || *inner.first()? >> 4 != 6
        || *inner.get(6)? != libc::IPPROTO_TCP as u8
    {
        return None;
    }
    let at = |n: usize| -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(*inner.get(n..)?.first_chunk::<16>()?))
    };
    let (source, destination, seq) = ports_and_seq(inner.get(40..)?)?;
    Some(IcmpError {
        from,
        kind,
        code,
        local: SocketAddr::new(at(8)?.into(), source),
        peer: SocketAddr::new(at(24)?.into(), destination),
        seq,
    })
}

/// Whether the Internet checksum (RFC 1071) of these bytes, which include it, is right.
fn checksum_is_right(bytes: &[u8]) -> bool {
    let mut sum = bytes.chunks(2).fold(0u32, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([pair[0], low]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

fn ports_and_seq(tcp: &[u8]) -> Option<(u16, u16, u32)> {
    let [a, b, c, d, seq @ ..] = *tcp.first_chunk::<8>()?;
    Some((
        u16::from_be_bytes([a, b]),
        u16::from_be_bytes([c, d]),
        u32::from_be_bytes(seq),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use synprobe_lab::packet::checksum;

    /// Host unreachable, about 10.0.0.1:40000 to 10.9.9.9:8080; `cut` bytes short, `protocol` inside.
    fn v4(cut: usize, protocol: u8) -> Vec<u8> {
        let mut bytes = vec![0x45; 1];
        bytes.resize(12, 0);
        bytes.extend([10, 0, 0, 254, 10, 0, 0, 1]);
        bytes.extend([3, 1, 0, 0, 0, 0, 0, 0]);
        let mut inner = vec![0u8; 20];
        (inner[0], inner[9]) = (0x45, protocol);
        inner[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 9, 9, 9]);
        bytes.extend(inner);
        bytes.extend([0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 1]);
        bytes.truncate(bytes.len() - cut);
        if bytes.len() >= 24 {
            let sum = checksum(&[&bytes[20..]]).to_be_bytes();
            bytes[22..24].copy_from_slice(&sum);
        }
        bytes
    }

    #[test]
    fn sender_meaning_and_connection_are_parsed() {
        let router: IpAddr = "10.0.0.254".parse().unwrap();
        let error = parse_v4(&v4(0, 6), router).unwrap();
        assert_eq!(error.words(), "host unreachable (type 3 code 1)");
        assert_eq!(error.local, "10.0.0.1:40000".parse().unwrap());
        assert_eq!(error.peer, "10.9.9.9:8080".parse().unwrap());
        assert_eq!((error.from, error.seq), (router, 1));
    }

    #[test]
    fn truncated_damaged_or_unrelated_messages_are_ignored() {
        let router: IpAddr = "10.0.0.254".parse().unwrap();
        let whole = v4(0, 6);
        for cut in 0..=whole.len() {
            let bytes = v4(cut, 6);
            let known = parse_v4(&bytes, router).is_some();
            assert_eq!(known, bytes.len() >= 20 + 8 + 20 + 8, "{cut}");
            let _ = parse_v6(&bytes, router);
        }
        for bit in 20 * 8..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_v4(&damaged, router), None, "{bit}");
        }
        assert_eq!(parse_v4(&v4(0, 17), router), None);
    }
}
