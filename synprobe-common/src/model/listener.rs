//! A listener and its queues.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Which limit binds a listener's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// What the application gave to listen().
    ListenBacklog,
    /// net.core.somaxconn, which caps it.
    Somaxconn,
    /// net.ipv4.tcp_max_syn_backlog: the SYN queue where SYN cookies are off.
    TcpMaxSynBacklog,
}

/// A `listener` line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Address it is bound to.
    pub local_addr: IpAddr,
    /// Port.
    pub local_port: u16,
    /// Inode of the network namespace.
    pub netns: u32,
    /// What people call the namespace.
    pub netns_name: Option<Arc<str>>,
    /// The owner.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<Arc<str>>,
    /// Its cgroup v2 path.
    pub cgroup: Option<Arc<str>>,
    /// Half-opens in its SYN queue.
    pub syn_queue: Option<u32>,
    /// How many fit.
    pub syn_queue_max: Option<u32>,
    /// Connections that wait for accept().
    pub accept_queue: Option<u32>,
    /// Their limit; one more fits.
    pub accept_queue_max: Option<u32>,
    /// Which limit binds.
    pub limited_by: Option<LimitedBy>,
    /// `ListenOverflows` of its namespace, all its listeners together.
    pub overflows: Option<u64>,
    /// `SyncookiesSent` of its namespace.
    pub syn_cookies: Option<u64>,
    /// Packets discarded at this very listener (`sk_drops`).
    pub drops: Option<u64>,
}

/// A namespace's settings that limit the queues; `None` for one that could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSettings {
    /// `net.core.somaxconn`: what listen()'s backlog is cut down to.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub tcp_max_syn_backlog: Option<u32>,
    /// `net.ipv4.tcp_syncookies`: 0 never, 1 when the SYN queue is full, 2 always.
    pub tcp_syncookies: Option<u32>,
    /// Whether the SYN queue of this kernel is full at the backlog and not above it:
    /// `KernelVersion::syn_queue_is_full_at_its_limit` of [`crate::sys::kernel`].
    pub full_at_backlog: bool,
}
