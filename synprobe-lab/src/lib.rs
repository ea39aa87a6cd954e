//! The lab: real handshakes made to fail on purpose, between two network namespaces of its own.
//!
//! ```text
//!   client namespace            veth pair             server namespace
//!   real sockets     ◄── fault ──────────── fault ──►  real listener
//! ```
//!
//! [`Lab::new`] makes the namespaces, [`all`] lists what can be made to happen in them. Nothing
//! has a name on the host: namespaces are held by a descriptor, links live inside them, and the
//! faults hang on the links, so that all of it vanishes with the process however that ends.

pub mod capture;
mod comparison;
mod confusion_matrix;
mod counters;
mod fault;
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
mod router;
pub mod rtnl;
mod scenario;
mod scenarios;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, bail};

pub use confusion_matrix::{Answer, Cell, Matrix, Said};
pub use counters::{Counters, LabCounters};
pub use fault::{Fault, FaultCount, FaultRule, Lose, bare_ack, data, syn, syn_ack};
pub use ground_truth::{
    Cause, Error, ExpectedCounter, ExpectedRetransmits, FaultReport, Made, MadeHandshake, Outcome,
    Role, Side,
};
pub use jitter::{BACKGROUND_PORT, Variation};
pub use lab_run::LabRun;
pub use net::{
    CLIENT_MAC, CLIENT_V4, CLIENT_V6, INTERFACE, Route, SERVER_MAC, SERVER_V4, SERVER_V6,
    add_route, beyond_server, has_ipv6, sink, spoofed,
};
pub use ns::Ns;
pub use raw_sender::RawSender;
pub use scenario::Scenario;
pub use scenarios::{all, find};
pub use server::{Served, Server};
pub use socket::{Client, Seen, listen, settle};
pub use synprobe_common::sys::sockopts::set_option;

/// The port the lab's server listens on, unless a scenario needs several.
pub const PORT: u16 = 8080;

/// States as `/proc/net/tcp` writes them.
const ESTABLISHED: &str = "01";
const SYN_RECV: &str = "03";

pub(crate) const CLIENT: &str = "client";
pub(crate) const SERVER: &str = "server";

/// Which addresses the lab's sockets use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 sockets.
    V4,
    /// IPv6 sockets.
    V6,
    /// IPv6 sockets with IPv4-mapped addresses: IPv4 on the wire.
    V4Mapped,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::V4Mapped];

    /// Whether IPv6 is on the wire.
    pub fn wire_is_v6(self) -> bool {
        self == Self::V6
    }
}

/// Called once, when the state that an incident is about is reached.
pub type OnceItStands = Arc<dyn Fn() + Send + Sync>;

/// The two namespaces and what joins them.
pub struct Lab {
    /// Where the active opens come from.
    pub client: Ns,
    /// Where the listener is.
    pub server: Ns,
    /// Which addresses the sockets use.
    pub family: Family,
    /// How the next run is to differ from the plain one.
    pub variation: Variation,
    /// Whom an incident ([`Scenario::is_incident`]) notifies when its state is reached.
    pub ready: Option<OnceItStands>,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab")
            .field("client", &self.client)
            .field("server", &self.server)
            .field("family", &self.family)
            .field("variation", &self.variation)
            .finish_non_exhaustive()
    }
}

impl Lab {
    /// Makes them; on return the link is running. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
    pub fn new(family: Family) -> Result<Self> {
        Self::build(family, false)
    }

    /// Likewise, but the server's end has no addresses: a raw peer (see [`raw_peer`]) plays there.
    pub fn with_bare_server(family: Family) -> Result<Self> {
        Self::build(family, true)
    }

    fn build(family: Family, server_is_bare: bool) -> Result<Self> {
        if family == Family::V6 && !has_ipv6() {
            bail!("this kernel runs without IPv6: choose IPv4");
        }
        let lab = Self {
            client: Ns::new_anonymous(CLIENT)?,
            server: Ns::new_anonymous(SERVER)?,
            family,
            variation: Variation::default(),
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

    /// An address on the wire as the lab's sockets write it.
    pub fn as_sockets_write(&self, address: IpAddr) -> IpAddr {
        match (self.family, address) {
            (Family::V4Mapped, IpAddr::V4(v4)) => v4.to_ipv6_mapped().into(),
            _ => address,
        }
    }

    /// Where the client's sockets call.
    pub fn server_addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.as_sockets_write(self.server_ip()), port)
    }

    /// A listener on `port` in the server's namespace.
    pub fn listen(&self, port: u16, backlog: i32) -> Result<std::net::TcpListener> {
        let any = match self.family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 | Family::V4Mapped => Ipv6Addr::UNSPECIFIED.into(),
        };
        listen(
            &self.server,
            any,
            port,
            backlog,
            self.family == Family::V4Mapped,
        )
    }

    /// Reads the kernel's counters of both namespaces; [`LabCounters::since`] gives what moved.
    pub fn counters(&self) -> Result<LabCounters> {
        Ok(LabCounters {
            client: Counters::read(&self.client)?,
            server: Counters::read(&self.server)?,
        })
    }

    /// How many half-open connections to `port` the server's namespace has.
    pub fn half_opens(&self, port: u16) -> Result<usize> {
        self.in_state(port, SYN_RECV)
    }

    /// How many connections to `port` the server's namespace has that are established, accepted or
    /// not.
    pub fn established(&self, port: u16) -> Result<usize> {
        self.in_state(port, ESTABLISHED)
    }

    fn in_state(&self, port: u16, state: &str) -> Result<usize> {
        let mut found = 0;
        for file in ["net/tcp", "net/tcp6"] {
            if file == "net/tcp6" && !has_ipv6() {
                continue;
            }
            let table = self.server.read_proc(file)?;
            let local = format!(":{port:04X}");
            found += table
                .lines()
                .skip(1)
                .filter(|line| {
                    let mut columns = line.split_whitespace().skip(1);
                    // Local address and port; peer; state.
                    columns
                        .next()
                        .is_some_and(|address| address.ends_with(&local))
                        && columns.nth(1) == Some(state)
                })
                .count();
        }
        Ok(found)
    }
}
