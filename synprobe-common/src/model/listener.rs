//! A listener and its queues.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{AcceptWait, Workload};

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
    /// Its unit, container and pod. In a recording they are an input of their own.
    #[serde(skip)]
    pub workload: Workload,
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
    /// Packets discarded at this very listener (`sk_drops`). Repeated SYNs of a half-open count too.
    pub drops: Option<u64>,
    /// Half-opens in the SYN queues of its SO_REUSEPORT group together; 0 for a single socket and for a
    /// group without any.
    pub syn_queue_group: Option<u32>,
    /// Inode of the socket: sockets of a SO_REUSEPORT group differ in it.
    pub inode: Option<u32>,
    /// What its owner was doing, where that was read: while its accept queue is half full or fuller, or
    /// held a connection at the check before too.
    pub owner_state: Option<OwnerState>,
    /// How long the connections of its port waited for accept(). The engine finds it: it is in no recording.
    #[serde(skip)]
    pub accept_wait: Option<AcceptWait>,
    /// IP_TRANSPARENT is set: TPROXY may hand it connections to other addresses and ports. `false` where the kernel
    /// does not tell (before Linux 5.10). In a recording it is an input of its own.
    #[serde(skip)]
    pub transparent: bool,
}

impl Listener {
    /// The listener there, of which nothing else is known.
    pub fn at(netns: u32, local_addr: IpAddr, local_port: u16) -> Self {
        Self {
            local_addr,
            local_port,
            netns,
            netns_name: None,
            pid: None,
            comm: None,
            cgroup: None,
            workload: Workload::default(),
            syn_queue: None,
            syn_queue_max: None,
            accept_queue: None,
            accept_queue_max: None,
            limited_by: None,
            overflows: None,
            syn_cookies: None,
            drops: None,
            syn_queue_group: None,
            inode: None,
            owner_state: None,
            accept_wait: None,
            transparent: false,
        }
    }
}

/// The queues of the selected listeners at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSample {
    /// After they were read, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// One for each socket that listens.
    pub listeners: Vec<Listener>,
    /// How far `ListenOverflows` has risen since the run began, all watched namespaces together; `None`: not read.
    pub listen_overflows: Option<u64>,
    /// The same of `ListenDrops`.
    pub listen_drops: Option<u64>,
    /// The same of `SyncookiesSent`.
    pub syn_cookies: Option<u64>,
}

/// What a process was doing when it was read from `/proc/PID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerState {
    /// The letter of `/proc/PID/stat`: `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z`. Of the main thread;
    /// a stop signal stops all threads.
    pub state: char,
    /// CPU time of all its threads so far, user and system, milliseconds.
    pub cpu_ms: u64,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Their limit: the soft RLIMIT_NOFILE.
    pub max_fds: Option<u64>,
    /// The kernel function in which the main thread sleeps.
    pub waits_in: Option<Arc<str>>,
}

impl OwnerState {
    /// Whether a signal or a debugger has stopped it.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Whether its cgroup is frozen: `docker pause`, `cgroup.freeze` (`do_freezer_trap()`, which is inlined into
    /// `get_signal()`), the freezer of version 1 (`__refrigerator()`). Nothing else sleeps there.
    pub fn is_frozen(&self) -> bool {
        let place = self.waits_in.as_deref();
        matches!(self.state, 'S' | 'D')
            && matches!(
                place,
                Some("get_signal" | "do_freezer_trap" | "__refrigerator")
            )
    }

    /// Whether accept() fails with EMFILE: as many descriptors are open as the limit allows.
    pub fn is_out_of_descriptors(&self) -> bool {
        matches!((self.open_fds, self.max_fds), (Some(open), Some(max)) if open >= max)
    }
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
