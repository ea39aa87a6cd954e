//! One connection: its ends, its namespace, its process.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{CommunityId, Role, Workload};

/// Address family as printed: a v4-mapped IPv6 socket is `ipv4` with `v4_mapped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4, natively or v4-mapped.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A process: the caller of connect(), or a listener's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Thread-group id.
    pub pid: u32,
    /// `comm`, bytes that are not UTF-8 replaced.
    pub comm: Arc<str>,
}

/// The fields of every line about one connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Connection {
    /// One handshake, unique within a run.
    pub id: u64,
    /// Active or passive open.
    pub role: Role,
    /// As printed.
    pub family: Family,
    /// True for an IPv6 socket that talks IPv4; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub v4_mapped: bool,
    /// Local address.
    pub local_addr: IpAddr,
    /// Local port, host order; `None` while the kernel has not chosen it.
    pub local_port: Option<u16>,
    /// Peer address.
    pub peer_addr: IpAddr,
    /// Peer port, host order.
    pub peer_port: Option<u16>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// What people call it: `host`, a name under /run/netns, or a process in it.
    pub netns_name: Option<Arc<str>>,
    /// Client: the caller of connect(); server: the listener's owner.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<Arc<str>>,
    /// Its cgroup v2 path.
    pub cgroup: Option<Arc<str>>,
    /// Its unit, container and pod.
    #[serde(flatten)]
    pub workload: Workload,
}

impl Connection {
    /// Its Community ID; `None` while a port is not known.
    pub fn community_id(&self) -> Option<CommunityId> {
        let local = (self.local_addr, self.local_port?);
        Some(CommunityId::of_tcp(
            local,
            (self.peer_addr, self.peer_port?),
        ))
    }

    /// Names the process.
    pub fn set_process(&mut self, process: Option<&Process>) {
        if let Some(process) = process {
            self.pid = Some(process.pid);
            self.comm = Some(process.comm.clone());
        }
    }
}
