//! What a packet and a socket of one connection have in common.

use std::net::{Ipv6Addr, SocketAddr};

use crate::{model::Connection, util::addresses::mapped};

/// Both ends of a connection, in no order: a packet and a socket have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends([([u8; 16], u16); 2]);

impl Ends {
    /// From two ends, addresses IPv4-mapped.
    pub fn new(one: ([u8; 16], u16), other: ([u8; 16], u16)) -> Self {
        if one <= other {
            Self([one, other])
        } else {
            Self([other, one])
        }
    }

    /// From the addresses and ports of two ends.
    pub fn between(one: SocketAddr, other: SocketAddr) -> Self {
        let flat = |end: SocketAddr| (mapped(end.ip()), end.port());
        Self::new(flat(one), flat(other))
    }

    /// Whether both addresses are of IPv4.
    pub fn is_ipv4(&self) -> bool {
        let is_mapped = |address: &[u8; 16]| Ipv6Addr::from(*address).to_ipv4_mapped().is_some();
        self.0.iter().all(|(address, _)| is_mapped(address))
    }

    /// Of a connection whose ports are known.
    pub fn of(c: &Connection) -> Option<Self> {
        Some(Self::new(
            (mapped(c.local_addr), c.local_port?),
            (mapped(c.peer_addr), c.peer_port?),
        ))
    }
}
