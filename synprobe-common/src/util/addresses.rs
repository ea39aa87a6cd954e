//! Conversion between addresses in records (IPv4 as `::ffff:a.b.c.d`) and printed addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The printed form of an address in a record: IPv4 if it is v4-mapped.
pub fn printable(addr: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(addr);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// The inverse of [`printable`].
pub fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Whether a listener's address is a wildcard.
pub fn is_wildcard(addr: [u8; 16]) -> bool {
    addr == [0; 16] || addr == Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets()
}
