//! Which way a connection goes: the route that the kernel chooses for it.

use std::net::{IpAddr, SocketAddr};

/// The way to an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathInfo {
    /// The interface it leaves by.
    pub interface: Option<String>,
    /// The next router; `None`: on the link, or not known.
    pub gateway: Option<IpAddr>,
    /// The local address it is sent from.
    pub source: Option<IpAddr>,
}

/// Looks the way up, in the calling thread's namespace.
pub type LookUp = fn(SocketAddr) -> PathInfo;

/// What can be told without a question to the routing table: the source address, by a datagram socket
/// that is connected and sends nothing; and the interface that a zone names.
pub fn by_socket(peer: SocketAddr) -> PathInfo {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let local = std::net::UdpSocket::bind(any)
        .and_then(|socket| socket.connect(peer).and_then(|()| socket.local_addr()));
    let scope = match peer {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => super::resolve::interface_name(v6.scope_id()),
        _ => None,
    };
    PathInfo {
        interface: scope,
        gateway: None,
        source: local.ok().map(|addr| addr.ip().to_canonical()),
    }
}
