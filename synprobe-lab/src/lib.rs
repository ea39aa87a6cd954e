//! The lab makes real handshakes fail, between two network namespaces of its own.
//!
//! ```text
//!   client namespace            veth pair             server namespace
//!   real sockets     ◄── fault ──────────── fault ──►  real listener
//! ```
//!
//! [`Lab::new`] makes the namespaces; [`all`] lists the scenarios. Nothing has a name on the host:
//! the process holds the namespaces by descriptors, and links and faults exist inside them. All of it
//! vanishes with the process, however that ends.

mod address;
pub mod capture;
mod comparison;
mod confusion_matrix;
mod counters;
mod false_sentences;
mod fault;
mod full_queue;
mod ground_truth;
mod incident;
mod jitter;
mod lab_run;
pub mod net;
pub mod nft;
pub mod ns;
pub mod packet;
mod packet_socket;
pub mod raw_peer;
mod raw_sender;
pub mod router;
pub mod rtnl;
mod scenario;
mod scenarios;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Result, bail};
pub use confusion_matrix::{Answer, CellCounts, Classification, ConfusionMatrix};
pub use counters::{LabCounters, TcpCounters};
pub use fault::{FaultCount, FaultInjector, FaultRule, LossPattern, bare_ack, data, syn, syn_ack};
pub use ground_truth::{
    Cause, ClientError, ExpectedCounter, ExpectedHandshake, ExpectedRetransmits, FaultReport,
    GroundTruth, Outcome, Role, Side,
};
pub use jitter::{BACKGROUND_PORT, Jitter};
pub use lab_run::LabRun;
pub use net::{
    CLIENT_MAC, CLIENT_V4, CLIENT_V6, INTERFACE, RouteTarget, SERVER_MAC, SERVER_V4, SERVER_V6,
    add_route, beyond_server, has_ipv6, sink, spoofed,
};
pub use ns::Ns;
pub use raw_sender::RawSender;
pub use scenario::Scenario;
pub use scenarios::{all, find, set_md5_key};
pub use server::{Server, ServerTotals};
pub use socket::{Client, ConnectState, listen, settle};
pub use synprobe_common::sys::sockopts::set_option;

/// The port that the lab's server listens on, unless a scenario needs several.
pub const PORT: u16 = 8080;

/// States as `/proc/net/tcp` writes them.
const ESTABLISHED: &str = "01";
const SYN_RECV: &str = "03";

pub(crate) const CLIENT: &str = "client";
pub(crate) const SERVER: &str = "server";

/// Which addresses the lab's sockets use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketFamily {
    /// IPv4 sockets.
    V4,
    /// IPv6 sockets.
    V6,
    /// IPv6 sockets with IPv4-mapped addresses: IPv4 on the wire.
    V4Mapped,
}

impl SocketFamily {
    /// Every variant.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::V4Mapped];

    /// Whether the packets are IPv6.
    pub fn wire_is_v6(self) -> bool {
        self == Self::V6
    }
}

/// Called once, when an incident has reached its state.
pub type ReadyCallback = Arc<dyn Fn() + Send + Sync>;

/// The two namespaces and the link between them.
pub struct Lab {
    /// Namespace of the active opens.
    pub client: Ns,
    /// Namespace of the listener.
    pub server: Ns,
    /// Which addresses the sockets use.
    pub family: SocketFamily,
    /// How the next run varies.
    pub jitter: Jitter,
    /// What an incident ([`Scenario::is_incident`]) calls when it has reached its state.
    pub ready: Option<ReadyCallback>,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab")
            .field("client", &self.client)
            .field("server", &self.server)
            .field("family", &self.family)
            .field("jitter", &self.jitter)
            .finish_non_exhaustive()
    }
}

impl Lab {
    /// Makes the namespaces; on return the link is up. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
    pub fn new(family: SocketFamily) -> Result<Self> {
        Self::build(family, false)
    }

    /// As [`Lab::new`], but the server's end has no addresses: a raw peer ([`raw_peer`]) acts there.
    pub fn with_bare_server(family: SocketFamily) -> Result<Self> {
        Self::build(family, true)
    }

    fn build(family: SocketFamily, server_is_bare: bool) -> Result<Self> {
        if family == SocketFamily::V6 && !has_ipv6() {
            bail!("this kernel runs without IPv6: choose IPv4");
        }
        let lab = Self {
            client: Ns::new_anonymous(CLIENT)?,
            server: Ns::new_anonymous(SERVER)?,
            family,
            jitter: Jitter::default(),
            ready: None,
        };
        net::join(&lab.client, &lab.server, server_is_bare)?;
        Ok(lab)
    }

    /// The server's address on the wire.
    pub fn server_ip(&self) -> IpAddr {
        match self.family.wire_is_v6() {
            true => SERVER_V6.into(),
            false => SERVER_V4.into(),
        }
    }

    /// The client's address on the wire.
    pub fn client_ip(&self) -> IpAddr {
        match self.family.wire_is_v6() {
            true => CLIENT_V6.into(),
            false => CLIENT_V4.into(),
        }
    }

    /// Converts a wire address to the form that the lab's sockets use.
    pub fn as_sockets_write(&self, address: IpAddr) -> IpAddr {
        match (self.family, address) {
            (SocketFamily::V4Mapped, IpAddr::V4(v4)) => v4.to_ipv6_mapped().into(),
            _ => address,
        }
    }

    /// The address that the client's sockets connect to.
    pub fn server_addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.as_sockets_write(self.server_ip()), port)
    }

    /// The client's address and a port of it, as sockets write it.
    pub fn client_addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.as_sockets_write(self.client_ip()), port)
    }

    /// A listener on `port` in the server's namespace.
    pub fn listen(&self, port: u16, backlog: i32) -> Result<std::net::TcpListener> {
        self.listen_with(port, backlog, libc::SO_REUSEADDR)
    }

    /// One more listener of the SO_REUSEPORT group on `port` in the server's namespace.
    pub fn listen_shared(&self, port: u16, backlog: i32) -> Result<std::net::TcpListener> {
        self.listen_with(port, backlog, libc::SO_REUSEPORT)
    }

    fn listen_with(
        &self,
        port: u16,
        backlog: i32,
        option: libc::c_int,
    ) -> Result<std::net::TcpListener> {
        let any = match self.family {
            SocketFamily::V4 => Ipv4Addr::UNSPECIFIED.into(),
            SocketFamily::V6 | SocketFamily::V4Mapped => Ipv6Addr::UNSPECIFIED.into(),
        };
        let dual_stack = self.family == SocketFamily::V4Mapped;
        socket::listen_with(&self.server, any, port, backlog, dual_stack, option)
    }

    /// Reads the kernel's counters of both namespaces; see [`LabCounters::since`].
    pub fn counters(&self) -> Result<LabCounters> {
        Ok(LabCounters {
            client: TcpCounters::read(&self.client)?,
            server: TcpCounters::read(&self.server)?,
        })
    }

    /// Number of half-open connections to `port` in the server's namespace.
    pub fn half_opens(&self, port: u16) -> Result<usize> {
        self.in_state(port, SYN_RECV)
    }

    /// Number of established connections to `port` in the server's namespace, accepted or not.
    pub fn established(&self, port: u16) -> Result<usize> {
        self.in_state(port, ESTABLISHED)
    }

    /// Connections by their ends: a table that changes while it is read can show one twice, because
    /// `tcp_seek_last_pos()` goes on at an index and not at a socket.
    fn in_state(&self, port: u16, state: &str) -> Result<usize> {
        let mut found = HashSet::new();
        for file in ["net/tcp", "net/tcp6"] {
            if file == "net/tcp6" && !has_ipv6() {
                continue;
            }
            let table = self.server.read_proc(file)?;
            let wanted = format!(":{port:04X}");
            for line in table.lines().skip(1) {
                let mut columns = line.split_whitespace().skip(1);
                if let (Some(local), Some(peer), Some(of)) =
                    (columns.next(), columns.next(), columns.next())
                    && local.ends_with(&wanted)
                    && of == state
                {
                    found.insert((local.to_owned(), peer.to_owned()));
                }
            }
        }
        Ok(found.len())
    }
}
