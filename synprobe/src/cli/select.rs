//! Options that select what is watched.

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::{
    filter::{PortSet, Selection, parse_cidr},
    model::Role,
};

/// What is watched.
#[derive(Debug, Default, Args)]
pub struct SelectArgs {
    /// Only these ports, such as 443,8000-8100
    ///
    /// Local or peer; a list of ports and ranges.
    #[arg(long, value_name = "PORTS")]
    pub port: Vec<PortSet>,
    /// Only these local ports
    #[arg(long, value_name = "PORTS")]
    pub local_port: Vec<PortSet>,
    /// Only these peer ports
    #[arg(long, value_name = "PORTS")]
    pub peer_port: Vec<PortSet>,
    /// Only these peers, such as 10.0.0.0/8
    ///
    /// Addresses or networks, such as 2001:db8::/32; a list with commas.
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr, value_delimiter = ',')]
    pub peer: Vec<IpNet>,
    /// Only what this host does as client, or server
    ///
    /// client: it opens the connection. server: it accepts the connection.
    #[arg(long, value_enum, hide_possible_values = true)]
    pub role: Option<RoleArg>,
    /// Only this network namespace
    ///
    /// A name (ip netns), a path, or a pid.
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
}

impl SelectArgs {
    /// Everything but the namespace, which has to be looked up.
    pub fn selection(&self) -> Selection {
        Selection {
            ports: union(&self.port),
            local_ports: union(&self.local_port),
            peer_ports: union(&self.peer_port),
            peers: self.peer.clone(),
            role: self.role.map(|role| match role {
                RoleArg::Client => Role::Client,
                RoleArg::Server => Role::Server,
            }),
            netns: None,
        }
    }
}

/// This host's role in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// It opens the connection
    Client,
    /// It accepts the connection
    Server,
}

/// The ports of an option that may be given several times.
pub(super) fn union(sets: &[PortSet]) -> PortSet {
    let mut all = PortSet::default();
    sets.iter().for_each(|set| all.extend(set));
    all
}
