//! Community ID v1: one name for a connection, the same in every tool and at both ends.

use std::{fmt, net::IpAddr};

use serde::{Serialize, Serializer};

/// Community ID v1 with seed 0: SHA-1 over the seed, both ends in order, the protocol and the ports
/// (<https://github.com/corelight/community-id-spec>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommunityId([u8; 20]);

impl CommunityId {
    /// Of a TCP connection, from its two ends in any order. An IPv4-mapped address is IPv4.
    pub fn of_tcp(one: (IpAddr, u16), other: (IpAddr, u16)) -> Self {
        const TCP: u8 = 6;
        let flat = |(addr, port): (IpAddr, u16)| (addr.to_canonical(), port);
        let (one, other) = (flat(one), flat(other));
        let (first, second) = if one <= other {
            (one, other)
        } else {
            (other, one)
        };
        // The longest is of IPv6: 2 + 16 + 16 + 2 + 4 bytes.
        let mut message = Vec::with_capacity(40);
        message.extend_from_slice(&[0, 0]);
        for (addr, _) in [first, second] {
            match addr {
                IpAddr::V4(v4) => message.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => message.extend_from_slice(&v6.octets()),
            }
        }
        message.extend_from_slice(&[TCP, 0]);
        for (_, port) in [first, second] {
            message.extend_from_slice(&port.to_be_bytes());
        }
        Self(sha1_of_one_block(&message))
    }
}

impl fmt::Display for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        // 20 bytes are 27 digits and one `=`.
        let mut text = [b'='; 28];
        for (group, out) in self.0.chunks(3).zip(text.chunks_mut(4)) {
            let mut word = 0_u32;
            for at in 0..3 {
                word = word << 8 | u32::from(group.get(at).copied().unwrap_or(0));
            }
            for (at, digit) in out.iter_mut().enumerate().take(group.len() + 1) {
                *digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize];
            }
        }
        f.write_str("1:")?;
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl Serialize for CommunityId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// SHA-1 (FIPS 180-4) of a message of at most 55 bytes, which with its padding is one block.
fn sha1_of_one_block(message: &[u8]) -> [u8; 20] {
    let mut block = [0_u8; 64];
    block[..message.len()].copy_from_slice(message);
    block[message.len()] = 0x80;
    block[56..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    let mut w = [0_u32; 80];
    for (word, bytes) in w.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for t in 16..80 {
        w[t] = (w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16]).rotate_left(1);
    }
    const BEGIN: [u32; 5] = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    let [mut a, mut b, mut c, mut d, mut e] = BEGIN;
    for (t, word) in w.iter().enumerate() {
        let (f, k) = match t {
            0..20 => (b & c | !b & d, 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6_u32),
        };
        let next = a
            .rotate_left(5)
            .wrapping_add(f)
            .wrapping_add(e)
            .wrapping_add(k)
            .wrapping_add(*word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    let mut digest = [0; 20];
    for ((begin, end), out) in BEGIN
        .iter()
        .zip([a, b, c, d, e])
        .zip(digest.as_chunks_mut::<4>().0)
    {
        *out = begin.wrapping_add(end).to_be_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(one: (&str, u16), other: (&str, u16)) -> String {
        let end = |(addr, port): (&str, u16)| (addr.parse().unwrap(), port);
        CommunityId::of_tcp(end(one), end(other)).to_string()
    }

    #[test]
    fn sha1_is_that_of_fips_180() {
        let hex = |bytes: [u8; 20]| bytes.map(|b| format!("{b:02x}")).concat();
        assert_eq!(
            hex(sha1_of_one_block(b"abc")),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        assert_eq!(
            hex(sha1_of_one_block(b"")),
            "da39a3ee5e6b4b0d3255bfef95601890afd80709"
        );
    }

    /// The specification's own example of TCP.
    #[test]
    fn it_is_that_of_the_specification() {
        let (one, other) = (("128.232.110.120", 34855), ("66.35.250.204", 80));
        assert_eq!(id(one, other), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(id(other, one), id(one, other));
    }

    #[test]
    fn an_ipv4_mapped_address_is_ipv4() {
        let (one, other) = (("::ffff:128.232.110.120", 34855), ("66.35.250.204", 80));
        assert_eq!(id(one, other), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert!(id(("fd00::1", 1), ("fd00::2", 2)).starts_with("1:"));
    }
}
