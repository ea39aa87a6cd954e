//! What the kernel says of a route.

use std::net::IpAddr;

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
    pub(super) fn of(number: u8) -> Self {
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
