//! The route that packets to an address take, from NETLINK_ROUTE: device, router, and the neighbour that
//! receives them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use super::{
    buffers::Scratch,
    netlink::{HEADER, NetlinkAttributes, NetlinkMessage, NetlinkMessages},
    netlink_socket::{invalid, open_netlink, receive},
};
use crate::sys::netns::NetNs;

/// `NLMSG_ERROR`.
const NLMSG_ERROR: u16 = 2;
/// `struct rtmsg`.
const RTMSG: usize = 12;
/// `struct ndmsg`.
const NDMSG: usize = 12;
/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
/// `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
/// `NLMSG_DONE`.
const NLMSG_DONE: u16 = 3;
/// `RTA_VIA` (include/uapi/linux/rtnetlink.h); libc has it for glibc only.
const RTA_VIA: u16 = 18;

/// The route to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// The type of the route.
    pub kind: RouteKind,
    /// Index of the outgoing device; 0: none.
    pub ifindex: u32,
    /// Its name.
    pub interface: Option<String>,
    /// The router; `None`: the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel prefers.
    pub source: Option<IpAddr>,
}

/// `rtm_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// To a router or a neighbour.
    Unicast,
    /// To this host itself.
    Local,
    /// Dropped silently.
    Blackhole,
    /// Answered with ICMP host unreachable.
    Unreachable,
    /// Answered with ICMP administratively prohibited.
    Prohibit,
    /// Broadcast, multicast, NAT and others.
    Other(u8),
}

impl RouteKind {
    fn of(number: u8) -> Self {
        match number {
            libc::RTN_UNICAST => Self::Unicast,
            libc::RTN_LOCAL => Self::Local,
            libc::RTN_BLACKHOLE => Self::Blackhole,
            libc::RTN_UNREACHABLE => Self::Unreachable,
            libc::RTN_PROHIBIT => Self::Prohibit,
            other => Self::Other(other),
        }
    }
}

/// A NETLINK_ROUTE socket bound to one namespace; usable from any thread.
#[derive(Debug)]
pub struct Routes {
    fd: OwnedFd,
    seq: u32,
}

impl Routes {
    /// Opens the socket inside `netns`.
    ///
    /// # Errors
    /// When the namespace may not be entered. Needs no privilege beyond that.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        let fd = netns.run(|| open_netlink(libc::NETLINK_ROUTE))??;
        Ok(Self { fd, seq: 0 })
    }

    /// The route from `source` (`None`: any) to `to`; `Ok(None)`: there is none.
    ///
    /// A source that is not an address of this namespace (it was removed, or belongs to a transparent
    /// proxy) is left out: for IPv4 the kernel refuses it with the errors that mean no route or blackhole
    /// (`ip_route_output_key_hash_rcu()`: ENETUNREACH on 6.18, EINVAL before).
    ///
    /// # Errors
    /// The kernel's error, except "no route"; TimedOut, InvalidData as for sock_diag.
    pub fn route(&mut self, to: IpAddr, source: Option<IpAddr>) -> io::Result<Option<RouteInfo>> {
        let to = to.to_canonical();
        let source = source
            .map(|s| s.to_canonical())
            .filter(|s| s.is_ipv4() == to.is_ipv4() && !s.is_unspecified());
        let mut answer = self.ask_route(to, source);
        if let (Some(source), Err(error)) = (source, &answer)
            && matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EINVAL)
            )
            // For a local address the answer is final: a rule may block it.
            && !self.is_local(source)?
        {
            answer = self.ask_route(to, None);
        }
        let mut route = match answer {
            Ok(route) => route,
            // For a route that rejects packets, the kernel returns the error that connect() would get.
            Err(error) => match error.raw_os_error() {
                Some(libc::ENETUNREACH) => return Ok(None),
                Some(libc::EHOSTUNREACH) => return Ok(Some(nowhere(RouteKind::Unreachable))),
                Some(libc::EACCES) => return Ok(Some(nowhere(RouteKind::Prohibit))),
                Some(libc::EINVAL) => return Ok(Some(nowhere(RouteKind::Blackhole))),
                _ => return Err(error),
            },
        };
        if let Some(route) = &mut route {
            route.interface = self.interface(route.ifindex)?;
        }
        Ok(route)
    }

    /// The route of a packet from `from` to `to` that came in by a device, as policy routing decides for it:
    /// `ip route get TO from FROM iif DEVICE`. `Ok(None)`: there is none, or the kernel refuses its source
    /// (rp_filter, martian).
    ///
    /// # Errors
    /// As [`Routes::route`].
    pub fn route_of_input(
        &mut self,
        to: IpAddr,
        from: IpAddr,
        came_by: u32,
    ) -> io::Result<Option<RouteInfo>> {
        let answer = self.ask_route_by(to.to_canonical(), Some(from.to_canonical()), came_by);
        let mut route = match answer {
            Ok(route) => route,
            Err(error) => match error.raw_os_error() {
                Some(
                    libc::ENETUNREACH
                    | libc::EHOSTUNREACH
                    | libc::EACCES
                    | libc::EINVAL
                    | libc::EXDEV
                    | libc::ENODEV,
                ) => return Ok(None),
                _ => return Err(error),
            },
        };
        if let Some(route) = &mut route {
            route.interface = self.interface(route.ifindex)?;
        }
        Ok(route)
    }

    /// The device that has an address, by name.
    ///
    /// # Errors
    /// As [`Routes::route`].
    pub fn device_of(&mut self, addr: IpAddr) -> io::Result<Option<String>> {
        let addr = addr.to_canonical();
        let mut fixed = [0; IFADDRMSG];
        fixed[0] = family(addr);
        let found = self.dump(libc::RTM_GETADDR, &fixed, |m| {
            (m.kind == libc::RTM_NEWADDR && has_address(m.payload, addr))
                .then(|| word(m.payload, 4))
                .flatten()
        })?;
        match found {
            Some(index) => self.interface(index),
            None => Ok(None),
        }
    }

    /// RTM_GETROUTE, with the kernel's errors unchanged.
    fn ask_route(&mut self, to: IpAddr, source: Option<IpAddr>) -> io::Result<Option<RouteInfo>> {
        self.ask_route_by(to, source, 0)
    }

    /// As [`Self::ask_route`], for a packet that came in by a device; 0: for one of this host's own.
    fn ask_route_by(
        &mut self,
        to: IpAddr,
        source: Option<IpAddr>,
        came_by: u32,
    ) -> io::Result<Option<RouteInfo>> {
        let mut fixed = [0; RTMSG];
        fixed[0] = family(to);
        fixed[1] = if to.is_ipv4() { 32 } else { 128 };
        let mut attributes = vec![(libc::RTA_DST, octets(to))];
        if let Some(source) = source {
            fixed[2] = fixed[1];
            attributes.push((libc::RTA_SRC, octets(source)));
        }
        if came_by != 0 {
            attributes.push((libc::RTA_IIF, came_by.to_ne_bytes().to_vec()));
        }
        self.ask(libc::RTM_GETROUTE, &fixed, &attributes, |m| {
            (m.kind == libc::RTM_NEWROUTE).then(|| parse_route(m.payload))
        })
        .map(Option::flatten)
    }

    /// Whether `addr` is an address of this namespace.
    fn is_local(&mut self, addr: IpAddr) -> io::Result<bool> {
        match self.ask_route(addr, None) {
            Ok(route) => Ok(route.is_some_and(|r| r.kind == RouteKind::Local)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => {
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }

    /// The Ethernet address of the next hop of a route to `to`; `None`: the device has no such addresses,
    /// or the kernel does not know it yet.
    ///
    /// # Errors
    /// As [`Routes::route`].
    pub fn next_hop(&mut self, route: &RouteInfo, to: IpAddr) -> io::Result<Option<[u8; 6]>> {
        if route.kind != RouteKind::Unicast {
            return Ok(None);
        }
        let hop = route.gateway.unwrap_or(to).to_canonical();
        let mut fixed = [0; NDMSG];
        fixed[0] = family(hop);
        fixed[4..8].copy_from_slice(&route.ifindex.to_ne_bytes());
        let answer = self.ask(
            libc::RTM_GETNEIGH,
            &fixed,
            &[(libc::NDA_DST, octets(hop))],
            |m| (m.kind == libc::RTM_NEWNEIGH).then(|| parse_neighbour(m.payload)),
        );
        match answer {
            Ok(mac) => Ok(mac.flatten()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            // Before Linux 5.0 the kernel has no lookup of one neighbour.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The name of a device; `None`: there is none with this index.
    ///
    /// # Errors
    /// As [`Routes::route`].
    pub fn interface(&mut self, index: u32) -> io::Result<Option<String>> {
        if index == 0 {
            return Ok(None);
        }
        let mut fixed = [0; IFINFOMSG];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let answer = self.ask(libc::RTM_GETLINK, &fixed, &[], |m| {
            (m.kind == libc::RTM_NEWLINK).then(|| parse_link(m.payload))
        });
        match answer {
            Ok(name) => Ok(name.flatten()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One request that has one answer.
    fn ask<T>(
        &mut self,
        kind: u16,
        fixed: &[u8],
        attributes: &[(u16, Vec<u8>)],
        take: impl Fn(&NetlinkMessage<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.send(kind, libc::NLM_F_REQUEST as u16, fixed, attributes)?;
        let mut scratch = Scratch::take();
        loop {
            let datagram = receive(&self.fd, &mut scratch, 0)?;
            for message in NetlinkMessages::new(datagram) {
                let message = message.map_err(invalid)?;
                if message.seq != self.seq {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    let code = word(message.payload, 0).map_or(0, |w| w as i32);
                    return match code {
                        0 => Ok(None),
                        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                    };
                }
                if let Some(found) = take(&message) {
                    return Ok(Some(found));
                }
            }
        }
    }
}

impl Routes {
    fn send(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: &[(u16, Vec<u8>)],
    ) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let request = request(kind, flags, self.seq, fixed, attributes);
        // SAFETY: the buffer is alive and its length is its own.
        let sent = unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                request.as_ptr().cast(),
                request.len(),
                0,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The first of a dump's messages that `take` takes. The dump is read to its end.
    fn dump<T>(
        &mut self,
        kind: u16,
        fixed: &[u8],
        take: impl Fn(&NetlinkMessage<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        self.send(kind, flags, fixed, &[])?;
        let mut scratch = Scratch::take();
        let mut found = None;
        loop {
            let datagram = receive(&self.fd, &mut scratch, 0)?;
            for message in NetlinkMessages::new(datagram) {
                let message = message.map_err(invalid)?;
                if message.seq != self.seq {
                    continue;
                }
                if message.kind == NLMSG_DONE || message.kind == NLMSG_ERROR {
                    return Ok(found);
                }
                found = found.or_else(|| take(&message));
            }
        }
    }
}

/// Whether an RTM_NEWADDR message is of this address.
fn has_address(payload: &[u8], addr: IpAddr) -> bool {
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

fn nowhere(kind: RouteKind) -> RouteInfo {
    RouteInfo {
        kind,
        ifindex: 0,
        interface: None,
        gateway: None,
        source: None,
    }
}

fn request(
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

fn parse_route(payload: &[u8]) -> Option<RouteInfo> {
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

fn parse_neighbour(payload: &[u8]) -> Option<[u8; 6]> {
    NetlinkAttributes::new(payload.get(NDMSG..)?)
        .find(|(kind, _)| *kind == libc::NDA_LLADDR)
        .and_then(|(_, value)| value.try_into().ok())
}

fn parse_link(payload: &[u8]) -> Option<String> {
    let (_, name) = NetlinkAttributes::new(payload.get(IFINFOMSG..)?)
        .find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Some(String::from_utf8_lossy(name.get(..end)?).into_owned())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_ne_bytes(*b))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
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
