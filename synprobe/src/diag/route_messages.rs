//! Messages of NETLINK_ROUTE: requests as bytes, answers as values. Any bytes give a result, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    netlink::{HEADER, NetlinkAttributes},
    route_info::{RouteInfo, RouteKind},
};

/// `struct rtmsg`.
pub(super) const RTMSG: usize = 12;
/// `struct ndmsg`.
pub(super) const NDMSG: usize = 12;
/// `struct ifinfomsg`.
pub(super) const IFINFOMSG: usize = 16;
/// `struct ifaddrmsg`.
pub(super) const IFADDRMSG: usize = 8;
/// `RTA_VIA` (include/uapi/linux/rtnetlink.h); libc has it for glibc only.
pub(super) const RTA_VIA: u16 = 18;

/// Whether an RTM_NEWADDR message is of this address.
pub(super) fn has_address(payload: &[u8], addr: IpAddr) -> bool {
    let Some(attributes) = payload.get(IFADDRMSG..) else {
        return false;
    };
    let mut own = None;
    for (kind, value) in NetlinkAttributes::new(attributes) {
        match kind {
            // On a point-to-point device IFA_ADDRESS is the other end.
            libc::IFA_LOCAL => own = address(value),
            libc::IFA_ADDRESS if own.is_none() => own = address(value),
            _ => (),
        }
    }
    own == Some(addr)
}

pub(super) fn nowhere(kind: RouteKind) -> RouteInfo {
    RouteInfo {
        kind,
        ifindex: 0,
        interface: None,
        gateway: None,
        source: None,
    }
}

pub(super) fn request(
    kind: u16,
    flags: u16,
    seq: u32,
    fixed: &[u8],
    attributes: &[(u16, Vec<u8>)],
) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
    bytes.extend_from_slice(fixed);
    for (kind, value) in attributes {
        bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

pub(super) fn parse_route(payload: &[u8]) -> Option<RouteInfo> {
    let fixed = payload.first_chunk::<RTMSG>()?;
    let mut route = nowhere(RouteKind::of(fixed[7]));
    for (kind, value) in NetlinkAttributes::new(payload.get(RTMSG..)?) {
        match kind {
            libc::RTA_OIF => route.ifindex = word(value, 0)?,
            libc::RTA_GATEWAY => route.gateway = address(value),
            libc::RTA_PREFSRC => route.source = address(value),
            // `struct rtvia`: a gateway of the other family (5.2).
            RTA_VIA => route.gateway = address(value.get(2..)?),
            _ => (),
        }
    }
    Some(route)
}

pub(super) fn parse_neighbour(payload: &[u8]) -> Option<[u8; 6]> {
    NetlinkAttributes::new(payload.get(NDMSG..)?)
        .find(|(kind, _)| *kind == libc::NDA_LLADDR)
        .and_then(|(_, value)| value.try_into().ok())
}

pub(super) fn parse_link(payload: &[u8]) -> Option<String> {
    let (_, name) = NetlinkAttributes::new(payload.get(IFINFOMSG..)?)
        .find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Some(String::from_utf8_lossy(name.get(..end)?).into_owned())
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_ne_bytes(*b))
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

pub(super) fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

pub(super) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_cut_short_give_nothing_and_no_panic() {
        let mut answer = vec![0; RTMSG];
        answer[7] = libc::RTN_UNICAST;
        for (kind, value) in [
            (libc::RTA_OIF, 3u32.to_ne_bytes().to_vec()),
            (libc::RTA_GATEWAY, vec![10, 0, 0, 254]),
        ] {
            answer.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            answer.extend_from_slice(&kind.to_ne_bytes());
            answer.extend_from_slice(&value);
        }
        let whole = parse_route(&answer).unwrap();
        assert_eq!((whole.kind, whole.ifindex), (RouteKind::Unicast, 3));
        assert_eq!(whole.gateway, Some("10.0.0.254".parse().unwrap()));
        for len in 0..answer.len() {
            let _ = parse_route(&answer[..len]);
            let _ = parse_neighbour(&answer[..len]);
            let _ = parse_link(&answer[..len]);
        }
    }
}
