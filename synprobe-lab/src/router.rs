//! A third namespace that rewrites the destination (DNAT) and leaves the source unchanged:
//!
//! ```text
//!                     lab1 ┌────────────────┐ lab2
//!          ┌───────────────┤     router     ├───────────────┐
//!          │  SYN to       │ DNAT: virtual  │   SYN to      │
//!          │  the virtual  │ → the server's │   the server  │
//!          │  address      └────────────────┘               │
//!     lab1 │                                                │ lab2
//!   ┌──────┴───────┐ lab0                        lab0 ┌─────┴────────┐
//!   │    client    ├──────────────────────────────────┤    server    │
//!   └──────────────┘       ◄── SYN-ACK from the       └──────────────┘
//!                              server's own address
//! ```
//!
//! The router's links have no addresses; each end has routes to its neighbours. On the server a SYN
//! arrives by another device, and from another MAC address, than the return path uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::{
    Lab, Ns,
    address::add_address,
    net::{self, Link, RouteTarget, add_neighbour, add_route},
    nft::{self, NftRule},
    socket,
};

/// The address that the router rewrites to the server's.
const VIRTUAL_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);
const VIRTUAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5950, 2, 0, 0, 0, 0, 1);

/// The device towards the client; at the client, towards the router.
pub const TO_CLIENT: &str = "lab1";
/// The device towards the server; at the server, towards the router.
pub const TO_SERVER: &str = "lab2";

/// MAC addresses of the router's links, both ends.
const CLIENTS_END: [u8; 6] = [2, 0, 0, 0, 1, 1];
const ROUTER_TO_CLIENT: [u8; 6] = [2, 0, 0, 0, 1, 0xfe];
const ROUTER_TO_SERVER: [u8; 6] = [2, 0, 0, 0, 2, 0xfe];
const SERVERS_END: [u8; 6] = [2, 0, 0, 0, 2, 2];

/// The router. Without it the virtual address is not reachable.
pub struct DnatRouter {
    ns: Ns,
    address: IpAddr,
}

impl DnatRouter {
    /// Makes the router. `ports`: pairs of a port of the virtual address and the server's port.
    pub fn new(lab: &Lab, ports: &[(u16, u16)]) -> Result<Self> {
        Self::with_rules(lab, ports, &[])
    }

    /// The same with more rules. Without `ports` the router does no NAT: the virtual address is the server's
    /// own, on its link to the router.
    pub fn with_rules(lab: &Lab, ports: &[(u16, u16)], more: &[NftRule]) -> Result<Self> {
        let v6 = lab.family.wire_is_v6();
        let ns = Ns::new_anonymous("router")?;
        net::prepare(&ns)?;
        net::link(&Link {
            here: (&ns, ROUTER_TO_CLIENT),
            there: (&lab.client, CLIENTS_END),
            name: TO_CLIENT,
        })?;
        net::link(&Link {
            here: (&ns, ROUTER_TO_SERVER),
            there: (&lab.server, SERVERS_END),
            name: TO_SERVER,
        })?;
        let (address, whole): (IpAddr, u8) = match v6 {
            true => (VIRTUAL_V6.into(), 128),
            false => (VIRTUAL_V4.into(), 32),
        };
        let (client, server) = (lab.client_ip(), lab.server_ip());
        for (at, name, to, mac) in [
            (&lab.client, TO_CLIENT, address, ROUTER_TO_CLIENT),
            (&ns, TO_CLIENT, client, CLIENTS_END),
            (&ns, TO_SERVER, server, SERVERS_END),
        ] {
            add_route(at, (to, whole), RouteTarget::Link(name))?;
            add_neighbour(at, name, to, mac)?;
        }
        if ports.is_empty() {
            add_address(&lab.server, TO_SERVER, (address, whole))?;
            add_route(&ns, (address, whole), RouteTarget::Link(TO_SERVER))?;
            add_neighbour(&ns, TO_SERVER, address, SERVERS_END)?;
        }
        let mut rules: Vec<NftRule> = ports
            .iter()
            .map(|&(from, to)| {
                NftRule::dnat(SocketAddr::new(address, from), SocketAddr::new(server, to))
            })
            .collect();
        rules.extend_from_slice(more);
        nft::install(&ns, v6, &rules)?;
        match v6 {
            true => ns.set_sysctl("ipv6/conf/all/forwarding", "1")?,
            false => ns.set_sysctl("ipv4/ip_forward", "1")?,
        }
        Ok(Self { ns, address })
    }

    /// Its namespace.
    pub fn ns(&self) -> &Ns {
        &self.ns
    }

    /// A listener on the router itself, at the virtual address: as a load balancer that answers for its servers.
    ///
    /// # Errors
    ///
    /// Where the address cannot be added or bound.
    pub fn answer(&self, port: u16, backlog: i32) -> Result<std::net::TcpListener> {
        let whole = if self.address.is_ipv6() { 128 } else { 32 };
        add_address(&self.ns, TO_CLIENT, (self.address, whole))?;
        let any = match self.address.is_ipv6() {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        socket::listen(&self.ns, any, port, backlog, false)
    }

    /// The virtual address in the form that the lab's sockets use.
    pub fn address(&self, lab: &Lab, port: u16) -> SocketAddr {
        SocketAddr::new(lab.as_sockets_write(self.address), port)
    }
}
