//! What `synprobe connect` found: one connect, address by address.

use std::net::IpAddr;

use serde::Serialize;

use super::{CommunityId, Confidence, Outcome, VerdictKind};

/// What sends a connection to another address than the one called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedirectedBy {
    /// This host's NAT (REDIRECT, DNAT).
    Nat,
    /// A program attached to the cgroup (`BPF_CGROUP_INET4_CONNECT`, `BPF_CGROUP_INET6_CONNECT`).
    Cgroup,
    /// TPROXY, or a BPF `sk_lookup` program: a socket of this host has the address called.
    Tproxy,
}

/// The real destination of a connection that this host sends to another address than the one called.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Redirect {
    /// What sends it there.
    pub by: RedirectedBy,
    /// Address.
    pub addr: IpAddr,
    /// Port, host order.
    pub port: u16,
    /// Who listens there, where that is in the same namespace.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<String>,
}

/// One attempt to connect to one address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectAttempt {
    /// Its place, from 1, in the order in which an application tries them.
    pub order: u32,
    /// The address.
    pub address: IpAddr,
    /// The interface that a zone names.
    pub scope: Option<String>,
    /// Its handshake's `id`; `None`: the kernel refused it before a SYN, or its records were lost.
    pub id: Option<u64>,
    /// Whether an application would have got this one.
    pub chosen: bool,
    /// When it began, from the first attempt's beginning, microseconds.
    pub started_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Name of the errno that ended it.
    pub error: Option<String>,
    /// First SYN → outcome, microseconds.
    pub dwell_us: Option<u64>,
    /// SYNs sent; `None`: its records were lost.
    pub syns: Option<u32>,
    /// Its verdict.
    pub verdict: Option<VerdictKind>,
    /// How sure.
    pub confidence: Confidence,
    /// Local address.
    pub local_addr: Option<IpAddr>,
    /// Local port, host order.
    pub local_port: Option<u16>,
    /// The interface it left by.
    pub interface: Option<String>,
    /// The next router; `None`: on the link, or not known.
    pub gateway: Option<IpAddr>,
    /// The last ICMP error about it, in words.
    pub icmp: Option<String>,
    /// Its sender.
    pub icmp_from: Option<IpAddr>,
    /// Where this host sends it; `None`: to the address itself, or not known.
    pub redirect: Option<Redirect>,
    /// The client's initial sequence number, as on the handshake's line.
    pub syn_seq: Option<u32>,
    /// The server's.
    pub syn_ack_seq: Option<u32>,
    /// The Community ID of the connection as this host sees it.
    pub community_id: Option<CommunityId>,
}

/// One connect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Connect {
    /// The host, as given.
    pub host: String,
    /// The port, host order.
    pub port: u16,
    /// How long its name took to resolve, microseconds; `None`: it is an address.
    pub resolve_us: Option<u64>,
    /// Whether an address could be connected.
    pub connected: bool,
    /// When an application would have been connected, from the first attempt's beginning,
    /// microseconds.
    pub connected_us: Option<u64>,
    /// The attempts, in order.
    pub attempts: Vec<ConnectAttempt>,
}
