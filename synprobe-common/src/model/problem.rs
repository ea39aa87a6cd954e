//! What is wrong, for one listener, process or path: many handshakes under one verdict.

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{
    Confidence, Evidence, Role, WallClock, Workload,
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

/// This host's role in a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemRole {
    /// Active open.
    Client,
    /// Passive open.
    Server,
    /// Neither end: it forwards the packets.
    Router,
}

impl From<Role> for ProblemRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Client => Self::Client,
            Role::Server => Self::Server,
        }
    }
}

impl PartialEq<Role> for ProblemRole {
    fn eq(&self, other: &Role) -> bool {
        *self == Self::from(*other)
    }
}

/// What a router does with the packets of a problem.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forward {
    /// Whom they are for.
    pub to_addr: IpAddr,
    /// Port, host order.
    pub to_port: u16,
    /// The device by which they come; `None`: not known.
    pub from_interface: Option<String>,
    /// The device by which they leave, or would; `None`: none, or not known.
    pub to_interface: Option<String>,
    /// The next router; `None`: the destination is on the link, or not known.
    pub gateway: Option<IpAddr>,
}

/// What makes another problem an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectTie {
    /// It is the other end of the same connections.
    Connections,
    /// The same rule, or the same connection tracking, dropped packets of other connections.
    Cause,
}

/// What a problem does to the other end of its connections, which is on this host too, or what else its cause does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProblemEffect {
    /// Why it is one.
    pub tie: EffectTie,
    /// The verdict of those handshakes by themselves; `None`, printed as `insufficient`: too little is known.
    #[serde(serialize_with = "verdict::serialize_or_insufficient")]
    pub verdict: Option<VerdictKind>,
    /// How sure.
    pub confidence: Confidence,
    /// This host's role in them.
    pub role: ProblemRole,
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
    /// Its unit, container and pod.
    #[serde(flatten)]
    pub workload: Workload,
    /// Handshakes that it concerns.
    pub handshakes: u64,
}

/// Where a problem is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemState {
    /// It was found.
    #[default]
    Opened,
    /// Its facts have changed.
    Updated,
    /// Nothing of it was found for a window.
    Closed,
}

impl ProblemState {
    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Closed => "closed",
        }
    }
}

/// The life of a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProblemLife {
    /// The same for as long as it lasts, and never another problem's.
    pub id: String,
    /// Where it is in its life.
    pub state: ProblemState,
    /// When it was found, CLOCK_MONOTONIC nanoseconds.
    pub since_ns: u64,
    /// Where in wall-clock time that was: later lines tell the same `since`, also after the clock was set.
    pub since_clock: Option<WallClock>,
    /// Closed: when it was found last, CLOCK_MONOTONIC nanoseconds.
    pub until_ns: Option<u64>,
}

/// A `problem` line.
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
    pub role: ProblemRole,
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
    /// Router: what is forwarded. Else `None`.
    pub forward: Option<Forward>,
    /// Server: the listener's owner. Client: the caller.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<Arc<str>>,
    /// Its unit, container and pod.
    #[serde(flatten)]
    pub workload: Workload,
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
    /// Its life. A line has it with its times in RFC 3339.
    #[serde(skip)]
    pub life: ProblemLife,
}

impl Problem {
    /// The verdict's name in the output contract; `insufficient` where there is none.
    pub fn verdict_name(&self) -> &'static str {
        self.verdict
            .map_or(verdict::INSUFFICIENT, VerdictKind::name)
    }
}
