//! The route that packets to an address take, from NETLINK_ROUTE: device, router, and the neighbour that
//! receives them.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use super::{
    netlink::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkMessage},
    netlink_socket::{answer, open_netlink, send},
    route_info::{RouteInfo, RouteKind},
    route_messages::{
        IFADDRMSG, IFINFOMSG, NDMSG, RTMSG, family, has_address, nowhere, octets, parse_link,
        parse_neighbour, parse_route, request, word,
    },
};
use crate::sys::netns::NetNs;

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
        self.send(kind, NLM_F_REQUEST, fixed, attributes)?;
        answer(&self.fd, self.seq, |message| match message.kind {
            NLMSG_ERROR => message.errno().map(|()| Some(None)),
            _ => Ok(take(message).map(Some)),
        })
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
        send(&self.fd, &request)
    }

    /// The first of a dump's messages that `take` takes. The dump is read to its end.
    fn dump<T>(
        &mut self,
        kind: u16,
        fixed: &[u8],
        take: impl Fn(&NetlinkMessage<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        self.send(kind, flags, fixed, &[])?;
        let mut found = None;
        answer(&self.fd, self.seq, |message| {
            if matches!(message.kind, NLMSG_DONE | NLMSG_ERROR) {
                return Ok(Some(found.take()));
            }
            found = found.take().or_else(|| take(message));
            Ok(None)
        })
    }
}
