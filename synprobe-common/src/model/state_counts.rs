//! What `synprobe states` shows.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Sockets by state name.
pub type Counts = BTreeMap<Cow<'static, str>, u64>;

/// A listening port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortStates {
    /// Bound address.
    pub local_addr: IpAddr,
    /// Port.
    pub local_port: u16,
    /// Who listens.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<String>,
    /// Connections that wait for accept().
    pub accept_queue: u32,
    /// How many of them are held; one more fits (`sk_acceptq_is_full()`).
    pub accept_queue_max: u32,
    /// Connections on this port, by state; several listeners on one port (SO_REUSEPORT, several
    /// addresses) share them.
    pub states: Counts,
    /// SYN-ACK retransmissions of the current half-opens.
    pub synack_retransmits: u64,
    /// Peers of the half-opens, most first: at most three.
    pub syn_recv_peers: Vec<(IpAddr, u64)>,
}

/// One network namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetnsStates {
    /// Inode.
    pub netns: u32,
    /// How people call it.
    pub name: String,
    /// All its sockets.
    pub states: Counts,
    /// Its listening ports.
    pub listeners: Vec<PortStates>,
}

/// What was counted, and which namespaces could not be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// Those with at least one TCP socket; all of them where one was asked for.
    pub namespaces: Vec<NetnsStates>,
    /// One line each.
    pub failures: Vec<String>,
}
