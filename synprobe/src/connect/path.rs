//! The route that the kernel chooses for a connection.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use super::{resolve::interface_name, rewritten};
use crate::{
    diag::{
        route::Routes,
        route_info::{RouteInfo, RouteKind},
        sock_diag::SockDiag,
    },
    model::RedirectedBy,
    sys::netns::NetNs,
};

/// The route to an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathInfo {
    /// The outgoing interface.
    pub interface: Option<String>,
    /// The next router; `None`: on the link, or unknown.
    pub gateway: Option<IpAddr>,
    /// The local address that the kernel prefers.
    pub source: Option<IpAddr>,
    /// Why there is no usable route, in words.
    pub nowhere: Option<&'static str>,
}

/// Where a connection goes in place of the address called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectInfo {
    /// The real destination.
    pub to: SocketAddr,
    /// What sends it there.
    pub by: RedirectedBy,
    /// The device by which it leaves.
    pub interface: Option<String>,
    /// Who listens there, where that is in the same namespace: pid and command.
    pub owner: Option<(u32, String)>,
    /// Its accept queue and the queue's limit.
    pub accept_queue: Option<(u32, u32)>,
}

/// Looks up routes, and the destinations of sockets, in one namespace.
pub struct RouteLookup {
    routes: Option<Routes>,
    sockets: Option<SockDiag>,
}

impl RouteLookup {
    /// Opens the socket. If that fails, no route is known.
    pub fn open(netns: &NetNs) -> Self {
        let routes = Routes::open(netns);
        if let Err(error) = &routes {
            log::warn!("cannot look up routes: {error}");
        }
        Self {
            routes: routes.ok(),
            sockets: SockDiag::open(netns).ok(),
        }
    }

    /// The destination that a socket has in place of the one that it was given; `None`: that one, or not known.
    pub fn other_destination(
        &mut self,
        socket: &OwnedFd,
        local: SocketAddr,
        asked: SocketAddr,
    ) -> Option<SocketAddr> {
        let asked = SocketAddr::new(asked.ip().to_canonical(), asked.port());
        rewritten::destination(self.sockets.as_mut()?, socket, local).filter(|to| *to != asked)
    }

    /// Whether an address is one of the namespace itself.
    pub fn is_local(&mut self, addr: IpAddr) -> bool {
        let route = self.routes.as_mut().and_then(|r| r.route(addr, None).ok());
        route
            .flatten()
            .is_some_and(|route| route.kind == RouteKind::Local)
    }

    /// The route to an address. For one with a zone, in the calling thread's namespace, it is the zone.
    pub fn to(&mut self, peer: SocketAddr) -> PathInfo {
        if let SocketAddr::V6(v6) = peer
            && v6.scope_id() != 0
        {
            return PathInfo {
                interface: interface_name(v6.scope_id()),
                ..PathInfo::default()
            };
        }
        let Some(routes) = &mut self.routes else {
            return PathInfo::default();
        };
        match routes.route(peer.ip(), None) {
            Ok(route) => path_info(route),
            Err(error) => {
                log::warn!("cannot look up the route to {}: {error}", peer.ip());
                PathInfo::default()
            }
        }
    }
}

fn path_info(route: Option<RouteInfo>) -> PathInfo {
    let Some(route) = route else {
        return PathInfo {
            nowhere: Some("no route, or a rule of type unreachable"),
            ..PathInfo::default()
        };
    };
    PathInfo {
        interface: route.interface,
        gateway: route.gateway,
        source: route.source,
        nowhere: match route.kind {
            RouteKind::Unreachable => Some("a route or rule of type unreachable"),
            RouteKind::Prohibit => Some("a route or rule of type prohibit"),
            RouteKind::Blackhole => Some("a route or rule of type blackhole"),
            RouteKind::Unicast | RouteKind::Local | RouteKind::Other(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(to: &str) -> PathInfo {
        let here = NetNs::current().unwrap();
        RouteLookup::open(&here).to(to.parse().unwrap())
    }

    #[test]
    fn this_host_is_reached_by_loopback() {
        let way = way("127.83.0.9:80");
        assert_eq!(way.interface.as_deref(), Some("lo"));
        assert_eq!((way.gateway, way.nowhere), (None, None));
        assert_eq!(way.source, Some("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_zone_is_the_way() {
        let lo = SocketAddr::V6(std::net::SocketAddrV6::new(
            "fe80::1".parse().unwrap(),
            80,
            0,
            1,
        ));
        let here = NetNs::current().unwrap();
        assert_eq!(
            RouteLookup::open(&here).to(lo).interface.as_deref(),
            Some("lo")
        );
    }

    #[test]
    #[ignore = "needs root"]
    fn a_missing_route_is_reported() {
        let alone = NetNs::new_anonymous().unwrap();
        let way = RouteLookup::open(&alone).to("198.18.0.1:80".parse().unwrap());
        assert_eq!(way.nowhere, Some("no route, or a rule of type unreachable"));
        assert_eq!((way.interface, way.source), (None, None));
    }
}
