//! What a scenario has made, so that it can be held against what was seen.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use synprobe_common::model::VerdictKind;
pub use synprobe_common::model::{Outcome, Role};

use super::fault::FaultCount;

/// Which of the lab's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

/// The error a client's application was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its number.
    pub errno: i32,
    /// Its name.
    pub name: &'static str,
}

/// What the lab did to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// What this verdict names.
    Verdict(VerdictKind),
    /// Nothing.
    Healthy,
}

impl Cause {
    /// The verdict's name, or `healthy`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verdict(kind) => kind.name(),
            Self::Healthy => "healthy",
        }
    }
}

impl From<VerdictKind> for Cause {
    fn from(kind: VerdictKind) -> Self {
        Self::Verdict(kind)
    }
}

/// One end of one handshake; or several alike, where only their number is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeHandshake {
    /// Whose.
    pub role: Role,
    /// That end's own address, as it is on the wire.
    pub local_addr: IpAddr,
    /// Its port, where known.
    pub local_port: Option<u16>,
    /// The other end's address.
    pub peer_addr: IpAddr,
    /// Its port, where known.
    pub peer_port: Option<u16>,
    /// How it ends.
    pub outcome: Outcome,
    /// How many such handshakes this stands for: exactly one, unless the kernel's timers decide.
    pub count: RangeInclusive<u64>,
    /// What the application was told, where that is an error.
    pub error: Option<Error>,
    /// How often its SYN or SYN-ACK is sent again, where that is certain.
    pub retransmits: Option<u32>,
    /// What was done to it; `None` where that is not what the scenario is about.
    pub cause: Option<Cause>,
}

/// What one of the kernel's counters must have moved by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedCounter {
    /// In which namespace.
    pub side: Side,
    /// Its name in `/proc/net/snmp` or `/proc/net/netstat`.
    pub name: &'static str,
    /// By how much.
    pub moved: RangeInclusive<u64>,
}

/// How many retransmissions of one kind one side must have sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedRetransmits {
    /// Who sent them.
    pub side: Side,
    /// `syn`, `synack`, `rto`, `tlp`, `fast` or `recovery`.
    pub kind: &'static str,
    /// How many.
    pub count: RangeInclusive<u64>,
}

/// What a fault has done: the lab's own record of what was lost, independent of any watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// Which segments, in words.
    pub what: String,
    /// How many matched, and how many of them were lost.
    pub count: FaultCount,
}

/// What a scenario has made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The handshakes. After an interruption: those that had ended.
    pub handshakes: Vec<MadeHandshake>,
    /// What the kernel's counters must say.
    pub counters: Vec<ExpectedCounter>,
    /// How many retransmissions of each kind there must have been; a kind that is not listed is
    /// not predicted.
    pub retransmits: Vec<ExpectedRetransmits>,
    /// What was lost on purpose.
    pub faults: Vec<FaultReport>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// How many healthy handshakes there were beside these, where
    /// [`Variation::background`](super::Variation) asked for them; what is counted for a whole
    /// namespace is then not predicted.
    pub background: Option<u64>,
    /// The run was stopped before its end; expectations are then left out.
    pub interrupted: bool,
}

impl Made {
    /// How many handshakes of this role and outcome there are; with a background, at least how many.
    pub fn count(&self, role: Role, outcome: Outcome) -> RangeInclusive<u64> {
        let alike = self
            .handshakes
            .iter()
            .filter(|made| made.role == role && made.outcome == outcome);
        let (least, most) = alike.fold((0, 0), |(least, most), made| {
            (least + made.count.start(), most + made.count.end())
        });
        match self.background {
            None => least..=most,
            Some(_) => least..=u64::MAX,
        }
    }
}
