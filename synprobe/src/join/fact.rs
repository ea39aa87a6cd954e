//! What one side tells: the facts of its lines that a join needs.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::model::{Confidence, OpenReason, Outcome, Role};

/// One fact of a side. Times are nanoseconds since 1970 on the side's own wall clock.
#[derive(Clone, Debug, PartialEq)]
pub enum JoinFact {
    /// A run begins.
    Start(Box<SideStart>),
    /// A run is over.
    End {
        /// When.
        at_ns: i64,
        /// SYNs and ACKs that listeners refused, by counter; `None`: not known.
        listen_drops: Option<u64>,
        /// SYNs that were answered with a cookie; `None`: not known.
        syn_cookies: Option<u64>,
    },
    /// Anything else that shows how far the side has come.
    Seen {
        /// When.
        at_ns: i64,
    },
    /// Records, lines or inputs are missing.
    Missing {
        /// When that was noticed.
        at_ns: i64,
        /// How many, where that is known.
        events: u64,
    },
    /// A SYN or a SYN-ACK was retransmitted.
    Repeat {
        /// Whose: the `id` of its handshake.
        id: u64,
        /// The repetition.
        repeat: Repeat,
    },
    /// A handshake is over, or the run is.
    Handshake(Box<SideHandshake>),
    /// SYNs that this host refused before a half-open existed.
    Refused(Box<RefusedAt>),
    /// An address of this host.
    Address(IpAddr),
}

impl JoinFact {
    /// When, where it has a time.
    pub fn at_ns(&self) -> Option<i64> {
        match self {
            Self::Start(start) => Some(start.at_ns),
            Self::End { at_ns, .. } | Self::Seen { at_ns } | Self::Missing { at_ns, .. } => {
                Some(*at_ns)
            }
            Self::Repeat { repeat, .. } => Some(repeat.at_ns),
            Self::Handshake(handshake) => Some(handshake.at_ns),
            Self::Refused(refused) => Some(refused.last_ns),
            Self::Address(_) => None,
        }
    }
}

/// How a run was set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideStart {
    /// When it began.
    pub at_ns: i64,
    /// The host's name, where it is known.
    pub hostname: Option<String>,
    /// Its boot: two files of one boot have one clock.
    pub boot_id: Option<String>,
    /// The filters, as the `start` line has them.
    pub filters: BTreeMap<String, String>,
    /// Whether each handshake has a line; `false`: only those in trouble. `None`: the line does not tell.
    pub reports_all: Option<bool>,
}

/// A SYN or SYN-ACK that was retransmitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// When.
    pub at_ns: i64,
    /// Of a SYN-ACK: because the peer's SYN came again.
    pub by_peer: bool,
    /// The kernel could not send it.
    pub failed: bool,
}

/// SYNs of one peer, or of many, that a host refused: the sum so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAt {
    /// Who sent them; `None`: several, or not known.
    pub peer: Option<IpAddr>,
    /// Where they went; `None`: several.
    pub local: Option<IpAddr>,
    /// The port called; `None`: several.
    pub local_port: Option<u16>,
    /// The reason in words.
    pub what: Arc<str>,
    /// How many so far.
    pub count: u64,
    /// The first.
    pub first_ns: i64,
    /// The last.
    pub last_ns: i64,
}

/// A handshake as one side saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct SideHandshake {
    /// Its `id` in its file.
    pub id: u64,
    /// This side's role.
    pub role: Role,
    /// When it ended.
    pub at_ns: i64,
    /// The same on CLOCK_MONOTONIC.
    pub mono_ns: u64,
    /// This side's address.
    pub local_addr: IpAddr,
    /// This side's port.
    pub local_port: Option<u16>,
    /// The other end's address, as this side sees it.
    pub peer_addr: IpAddr,
    /// The other end's port.
    pub peer_port: Option<u16>,
    /// Inode of the namespace.
    pub netns: u32,
    /// The process.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<Arc<str>>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it is open.
    pub open_reason: Option<OpenReason>,
    /// From the first SYN or SYN-ACK to the end, microseconds.
    pub dwell_us: Option<u64>,
    /// Bound of its error.
    pub dwell_error_us: Option<u64>,
    /// SYNs or SYN-ACKs that were retransmitted.
    pub retransmits: u32,
    /// Those of them that the peer's SYN caused.
    pub by_peer: u32,
    /// The errno's name.
    pub error: Option<Arc<str>>,
    /// The side's own verdict.
    pub verdict: Option<Arc<str>>,
    /// How sure it is.
    pub confidence: Confidence,
    /// The facts for it.
    pub evidence: Vec<String>,
    /// What to do.
    pub remedy: Option<Arc<str>>,
    /// The client's initial sequence number.
    pub syn_seq: Option<u32>,
    /// The server's.
    pub syn_ack_seq: Option<u32>,
    /// Of an active open: the peer's own SYN came meanwhile (simultaneous open).
    pub called_too: bool,
    /// The retransmissions, as far as they were seen.
    pub repeats: Vec<Repeat>,
}

/// Names that many handshakes have: each is in memory once.
#[derive(Default)]
pub struct SharedNames(HashSet<Arc<str>>);

impl SharedNames {
    /// Names that are shared. Of more, each is a copy.
    const MOST: usize = 4096;

    /// The name, shared if it can be.
    pub fn of(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        if self.0.len() < Self::MOST {
            self.0.insert(Arc::clone(&new));
        }
        new
    }
}

/// Client's end and server's end.
pub type Ends = (SocketAddr, SocketAddr);

impl SideHandshake {
    /// When its first SYN or SYN-ACK was sent.
    pub fn began_ns(&self) -> Option<i64> {
        let dwell_us = i64::try_from(self.dwell_us?).ok()?;
        Some(self.at_ns.saturating_sub(dwell_us.saturating_mul(1000)))
    }

    /// Bound of the error of [`Self::began_ns`], nanoseconds.
    pub fn error_ns(&self) -> i64 {
        let us = self.dwell_error_us.unwrap_or(0);
        i64::try_from(us)
            .unwrap_or(i64::MAX / 1000)
            .saturating_mul(1000)
    }

    /// As early as it can have begun; of one without a dwell, its end. Of a half-open that vanished from the
    /// kernel's tables, the error is that of its end.
    pub fn earliest_ns(&self) -> i64 {
        let vanished = matches!(
            self.outcome,
            Outcome::Expired | Outcome::Dropped | Outcome::Reset
        );
        let error_ns = if vanished { 0 } else { self.error_ns() };
        self.began_ns()
            .unwrap_or(self.at_ns)
            .saturating_sub(error_ns)
    }

    /// About what it takes in memory, with its place in the tables.
    pub fn bytes(&self) -> usize {
        /// Numbers and ends by which it is found, and the overhead of each text.
        const PLACE: usize = 256;
        const OF_TEXT: usize = 40;
        let texts = [&self.comm, &self.error, &self.verdict, &self.remedy];
        let texts = texts.into_iter().flatten().map(|text| text.len());
        let facts = self.evidence.iter().map(String::capacity);
        let texts: usize = texts.chain(facts).map(|bytes| bytes + OF_TEXT).sum();
        PLACE + size_of::<Self>() + texts + self.repeats.capacity() * size_of::<Repeat>()
    }

    /// Whether it was established.
    pub fn is_established(&self) -> bool {
        self.outcome == Outcome::Established
    }

    /// Whether nothing was wrong with it, as far as this side knows.
    pub fn is_clean(&self) -> bool {
        self.is_established() && self.retransmits == 0 && self.verdict.is_none()
    }

    /// The client's end and the server's; `None` while a port is not known.
    pub fn ends(&self) -> Option<Ends> {
        let local = SocketAddr::new(self.local_addr, self.local_port?);
        let peer = SocketAddr::new(self.peer_addr, self.peer_port?);
        Some(match self.role {
            Role::Client => (local, peer),
            Role::Server => (peer, local),
        })
    }
}
