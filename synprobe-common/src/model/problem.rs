//! What is wrong, for one listener, process or path: many handshakes under one verdict.

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{
    Confidence, Evidence, Role,
    verdict::{self, VerdictKind},
};

/// A peer that a problem concerns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerShare {
    /// The peer.
    pub peer_addr: IpAddr,
    /// How many of the problem's handshakes are its.
    pub handshakes: u64,
}

/// What a problem does to the other end of its connections, which is on this host too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProblemEffect {
    /// The verdict of those handshakes by themselves; `None`, printed as `insufficient`: too little is known.
    #[serde(serialize_with = "verdict::serialize_or_insufficient")]
    pub verdict: Option<VerdictKind>,
    /// How sure.
    pub confidence: Confidence,
    /// This host's role in them.
    pub role: Role,
    /// Inode of the network namespace.
    pub netns: u32,
    /// What people call it.
    pub netns_name: Option<Arc<str>>,
    /// Server: the listener's port. Client: `None`.
    pub local_port: Option<u16>,
    /// Client: the port called, where it is one.
    pub peer_port: Option<u16>,
    /// Server: the listener's owner. Client: the caller.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<Arc<str>>,
    /// Handshakes that it concerns.
    pub handshakes: u64,
}

/// A `problem` line of `diagnose`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// 1 is the worst.
    pub rank: u64,
    /// Why; `None`, printed as `insufficient`: too little is known.
    #[serde(serialize_with = "verdict::serialize_or_insufficient")]
    pub verdict: Option<VerdictKind>,
    /// How sure.
    pub confidence: Confidence,
    /// This host's role.
    pub role: Role,
    /// Inode of the network namespace.
    pub netns: u32,
    /// What people call it.
    pub netns_name: Option<Arc<str>>,
    /// Server: the listener's address. Client: `None`.
    pub local_addr: Option<IpAddr>,
    /// Server: the listener's port. Client: `None`.
    pub local_port: Option<u16>,
    /// Client: the port called, where it is one.
    pub peer_port: Option<u16>,
    /// Server: the listener's owner. Client: the caller.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<Arc<str>>,
    /// Handshakes that it concerns.
    pub handshakes: u64,
    /// Those of them that are still open.
    pub open: u64,
    /// The peers it concerns most, most first.
    pub peers: Vec<PeerShare>,
    /// How many more there are.
    pub peers_more: u64,
    /// The facts, for and against.
    pub evidence: Vec<Evidence>,
    /// What to do, in commands.
    pub remedy: Option<String>,
    /// Its effects: problems of the same connections, seen from their other end, most handshakes first.
    pub effects: Vec<ProblemEffect>,
}

impl Problem {
    /// The verdict's name in the output contract; `insufficient` where there is none.
    pub fn verdict_name(&self) -> &'static str {
        self.verdict
            .map_or(verdict::INSUFFICIENT, VerdictKind::name)
    }
}
