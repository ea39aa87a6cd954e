//! SYNs that this host refused at the door: no half-open existed, so no handshake has them.

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{Forward, Workload};

/// A `syn_refused` line: the SYNs of one peer to one local end that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SynRefused {
    /// Who sent them; `None`: not known, or of several peers.
    pub peer_addr: Option<IpAddr>,
    /// The address called; `None`: of several, or none of this host (`forward`).
    pub local_addr: Option<IpAddr>,
    /// The port called, host order; `None`: of several.
    pub local_port: Option<u16>,
    /// Whom they are for, where this host was only to forward them.
    pub forward: Option<Forward>,
    /// Inode of the network namespace in which they were refused.
    pub netns: u32,
    /// What people call it.
    pub netns_name: Option<Arc<str>>,
    /// The listener's owner, where one listens there.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<Arc<str>>,
    /// Its unit, container and pod.
    #[serde(flatten)]
    pub workload: Workload,
    /// The kernel's name for the reason, without `SKB_DROP_REASON_`; `None` where it gives none.
    pub reason: Option<Arc<str>>,
    /// The same in words.
    pub what: String,
    /// How many of them in this run, so far.
    pub count: u64,
    /// When the first of them was refused, CLOCK_MONOTONIC nanoseconds.
    pub since: u64,
    /// What to do, in commands.
    pub remedy: Option<String>,
}
