//! Two namespaces joined by a veth pair:
//!
//! ```text
//!   client                                              server
//!   198.18.0.1/24      lab0 ───────────────── lab0      198.18.0.2/24
//!   fd00:5950::1/64                                     fd00:5950::2/64
//!
//!   198.18.1.0/24, fd00:5950:1::/64     beyond the server (scenario `unreachable`)
//!   198.18.128.0/17, fd00:5950:f::/64   beyond the client: unassigned; of IPv6 it says so by ICMP
//! ```

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    address::add_address,
    ns::Ns,
    rtnl::{Netlink, NetlinkRequest, family, index, link_header, octets},
};

/// The interface's name in both namespaces.
pub const INTERFACE: &str = "lab0";
/// Address of the client's end, IPv4.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Address of the server's end, IPv4.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Address of the client's end, IPv6.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5950, 0, 0, 0, 0, 0, 1);
/// Address of the server's end, IPv6.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5950, 0, 0, 0, 0, 0, 2);
/// MAC address of the client's end.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC address of the server's end.
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Far longer than a link needs to come up on the slowest machine.
const LINK_DEADLINE: Duration = Duration::from_secs(10);

/// Index of the loopback device in every namespace.
const LOOPBACK: u32 = 1;
const VETH_INFO_PEER: u16 = 1;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_SGRO: u32 = 0x2c;

/// The link of [`sink`].
const SINK: &str = "sink";

/// `n`th address (from 0) of the unassigned subnet beyond the client.
pub fn spoofed(v6: bool, n: u16) -> IpAddr {
    let host = n + 1;
    if v6 {
        return Ipv6Addr::new(0xfd00, 0x5950, 0xf, 0, 0, 0, 0, host).into();
    }
    let [high, low] = host.to_be_bytes();
    Ipv4Addr::new(198, 18, 128 + (high & 0x7f), low).into()
}

/// `n`th address (from 0) of the subnet beyond the server.
pub fn beyond_server(v6: bool, n: u8) -> IpAddr {
    if v6 {
        return Ipv6Addr::new(0xfd00, 0x5950, 1, 0, 0, 0, 0, u16::from(n) + 1).into();
    }
    Ipv4Addr::new(198, 18, 1, n + 1).into()
}

/// The subnet beyond the server: address and prefix length.
pub fn beyond_server_subnet(v6: bool) -> (IpAddr, u8) {
    match v6 {
        true => (Ipv6Addr::new(0xfd00, 0x5950, 1, 0, 0, 0, 0, 0).into(), 64),
        false => (Ipv4Addr::new(198, 18, 1, 0).into(), 24),
    }
}

/// Target of a route.
pub enum RouteTarget {
    /// A neighbour that forwards.
    Via(IpAddr),
    /// None: the kernel answers with an ICMP error. The type is one of `RTN_*`.
    Nowhere(u8),
    /// This host: each of these addresses is local.
    Here,
    /// The loopback device: a return route by an interface on which nothing arrives.
    Loopback,
    /// Neighbours on the link of this name.
    Link(&'static str),
}

/// Joins two namespaces. On return both ends are up. Address resolution, duplicate address detection,
/// offloads and saved metrics are off, so that they do not affect the traffic. With `server_is_bare` the
/// server's end gets no addresses: a raw peer acts there.
pub fn join(client: &Ns, server: &Ns, server_is_bare: bool) -> Result<()> {
    prepare(client)?;
    prepare(server)?;
    for scope in ["all", "default"] {
        let off = u8::from(server_is_bare).to_string();
        server.try_sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), &off)?;
    }
    link(&Link {
        here: (client, CLIENT_MAC),
        there: (server, SERVER_MAC),
        name: INTERFACE,
    })?;
    add_addresses(client, [CLIENT_V4.into(), CLIENT_V6.into()])?;
    add_neighbours(client, [SERVER_V4.into(), SERVER_V6.into()], SERVER_MAC)?;
    if server_is_bare {
        return Ok(());
    }
    add_addresses(server, [SERVER_V4.into(), SERVER_V6.into()])?;
    add_neighbours(server, [CLIENT_V4.into(), CLIENT_V6.into()], CLIENT_MAC)?;
    let to = |v6| -> (IpAddr, u8) {
        match v6 {
            true => (Ipv6Addr::new(0xfd00, 0x5950, 0xf, 0, 0, 0, 0, 0).into(), 64),
            false => (Ipv4Addr::new(198, 18, 128, 0).into(), 17),
        }
    };
    add_route(server, to(false), RouteTarget::Via(CLIENT_V4.into()))?;
    add_route(server, to(true), RouteTarget::Via(CLIENT_V6.into()))
}

/// Applies the settings of every namespace of the lab, before it gets a link.
pub fn prepare(ns: &Ns) -> Result<()> {
    for (key, value) in [
        // A new namespace has the settings of the host's own: a router answers a SYN-ACK to a made-up address with
        // an ICMP error, which ends the half-open.
        ("ipv4/ip_forward", "0"),
        ("ipv6/conf/default/addr_gen_mode", "1"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/tcp_no_metrics_save", "1"),
    ] {
        ns.try_sysctl(key, value)?;
    }
    Ok(())
}

/// A link between two namespaces, without addresses.
pub struct Link<'ns> {
    /// Namespace and MAC address of one end.
    pub here: (&'ns Ns, [u8; 6]),
    /// Namespace and MAC address of the other end.
    pub there: (&'ns Ns, [u8; 6]),
    /// Name of both ends.
    pub name: &'static str,
}

/// Makes a link and waits until it is up.
pub fn link(link: &Link<'_>) -> Result<()> {
    let (here, there, name) = (link.here.0, link.there.0, link.name);
    here.run(|| add_pair(link))?;
    let (one_up, other_up) = (here.run(|| bring_up(name)), there.run(|| bring_up(name)));
    one_up?;
    other_up?;
    for ns in [here, there] {
        ns.run(|| wait_running(name))?;
    }
    Ok(())
}

fn add_pair(link: &Link<'_>) -> Result<()> {
    let name = format!("{}\0", link.name);
    let other = link.there.0.fd().as_fd().as_raw_fd().to_ne_bytes();
    let message = NetlinkRequest::new(
        libc::RTM_NEWLINK,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &link_header(0, 0, 0),
    )
    .attr(libc::IFLA_IFNAME, name.as_bytes())
    .attr(libc::IFLA_ADDRESS, &link.here.1)
    .nest(libc::IFLA_LINKINFO, &[], |m| {
        m.attr(libc::IFLA_INFO_KIND, b"veth")
            .nest(libc::IFLA_INFO_DATA, &[], |m| {
                m.nest(VETH_INFO_PEER, &link_header(0, 0, 0), |m| {
                    m.attr(libc::IFLA_IFNAME, name.as_bytes())
                        .attr(libc::IFLA_ADDRESS, &link.there.1)
                        .attr(libc::IFLA_NET_NS_FD, &other)
                })
            })
    });
    Netlink::open(libc::NETLINK_ROUTE, 0)?
        .request(message)
        .context("making a veth pair (needs CAP_NET_ADMIN and the veth driver)")
}

/// Makes a link that drops everything silently, and routes `(address, prefix length)` to it. The queue
/// between two hosts of the lab rejects packets when it is full, and a rejected SYN-ACK ends its
/// half-open: of a thousand SYN-ACKs retransmitted at once nine hundred would be rejected.
pub fn sink(ns: &Ns, to: (IpAddr, u8)) -> Result<()> {
    ns.run(|| {
        let message = NetlinkRequest::new(
            libc::RTM_NEWLINK,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            &link_header(
                0,
                libc::IFF_UP | libc::IFF_NOARP,
                libc::IFF_UP | libc::IFF_NOARP,
            ),
        )
        .attr(libc::IFLA_IFNAME, format!("{SINK}\0").as_bytes())
        .nest(libc::IFLA_LINKINFO, &[], |m| {
            // It drops everything that was not redirected to it (ifb_xmit()).
            m.attr(libc::IFLA_INFO_KIND, b"ifb")
        });
        Netlink::open(libc::NETLINK_ROUTE, 0)?
            .request(message)
            .context("making an ifb link (needs CAP_NET_ADMIN and the ifb driver)")
    })?;
    add_route(ns, to, RouteTarget::Link(SINK))
}

fn bring_up(name: &str) -> Result<()> {
    let mut rtnl = Netlink::open(libc::NETLINK_ROUTE, 0)?;
    // Before the link is up, so that no packet leaves with the old settings.
    for command in [ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO] {
        switch_offload_off(name, command)?;
    }
    for index in [LOOPBACK, index(name)?] {
        let up = link_header(index, libc::IFF_UP, libc::IFF_UP);
        rtnl.request(NetlinkRequest::new(libc::RTM_NEWLINK, 0, &up))
            .context("bringing a link up")?;
    }
    Ok(())
}

fn wait_running(name: &str) -> Result<()> {
    Netlink::open(libc::NETLINK_ROUTE, libc::RTMGRP_LINK)?
        .wait_running(index(name)?, Instant::now() + LINK_DEADLINE)
        .context("waiting for the lab's link to run")
}

fn switch_offload_off(name: &str, command: u32) -> Result<()> {
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let mut value = EthtoolValue { command, data: 0 };
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("a socket for ethtool");
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the request and the value it points to outlive the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error()).context("switching an offload of the link off");
    }
    Ok(())
}

fn add_addresses(ns: &Ns, addresses: [IpAddr; 2]) -> Result<()> {
    for address in addresses {
        if !address.is_ipv6() || has_ipv6() {
            let prefix = if address.is_ipv6() { 64 } else { 24 };
            add_address(ns, INTERFACE, (address, prefix))?;
        }
    }
    Ok(())
}

fn add_neighbours(ns: &Ns, addresses: [IpAddr; 2], mac: [u8; 6]) -> Result<()> {
    addresses
        .into_iter()
        .filter(|address| !address.is_ipv6() || has_ipv6())
        .try_for_each(|address| add_neighbour(ns, INTERFACE, address, mac))
}

/// Adds a permanent neighbour entry for `address` on the link `name`.
pub fn add_neighbour(ns: &Ns, name: &str, address: IpAddr, mac: [u8; 6]) -> Result<()> {
    ns.run(|| {
        let mut header = [0; 12];
        header[0] = family(address);
        header[4..8].copy_from_slice(&index(name)?.to_ne_bytes());
        header[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
        let message = NetlinkRequest::new(
            libc::RTM_NEWNEIGH,
            libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
            &header,
        )
        .attr(libc::NDA_DST, &octets(address))
        .attr(libc::NDA_LLADDR, &mac);
        Netlink::open(libc::NETLINK_ROUTE, 0)?
            .request(message)
            .with_context(|| format!("adding the neighbour {address}"))
    })
}

/// Adds a route to `(address, prefix length)`.
pub fn add_route(ns: &Ns, to: (IpAddr, u8), route: RouteTarget) -> Result<()> {
    ns.run(|| {
        let (address, prefix) = to;
        if address.is_ipv6() && !has_ipv6() {
            return Ok(());
        }
        let (kind, table, scope) = match route {
            RouteTarget::Via(_) => (
                libc::RTN_UNICAST,
                libc::RT_TABLE_MAIN,
                libc::RT_SCOPE_UNIVERSE,
            ),
            RouteTarget::Nowhere(kind) => (kind, libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE),
            RouteTarget::Here => (libc::RTN_LOCAL, libc::RT_TABLE_LOCAL, libc::RT_SCOPE_HOST),
            RouteTarget::Loopback | RouteTarget::Link(_) => {
                (libc::RTN_UNICAST, libc::RT_TABLE_MAIN, libc::RT_SCOPE_LINK)
            }
        };
        let mut header = [0; 12];
        header[..8].copy_from_slice(&[
            family(address),
            prefix,
            0,
            0,
            table,
            libc::RTPROT_STATIC,
            scope,
            kind,
        ]);
        let mut message = NetlinkRequest::new(
            libc::RTM_NEWROUTE,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            &header,
        )
        .attr(libc::RTA_DST, &octets(address));
        if let RouteTarget::Via(gateway) = route {
            message = message.attr(libc::RTA_GATEWAY, &octets(gateway));
        }
        let device = match route {
            RouteTarget::Via(_) => Some(index(INTERFACE)?),
            RouteTarget::Link(name) => Some(index(name)?),
            RouteTarget::Nowhere(_) => None,
            RouteTarget::Here | RouteTarget::Loopback => Some(LOOPBACK),
        };
        if let Some(device) = device {
            message = message.attr(libc::RTA_OIF, &device.to_ne_bytes());
        }
        Netlink::open(libc::NETLINK_ROUTE, 0)?
            .request(message)
            .with_context(|| format!("adding the route to {address}/{prefix}"))
    })
}

/// False where the kernel was started without IPv6. The IPv4 scenarios work there.
pub fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}
