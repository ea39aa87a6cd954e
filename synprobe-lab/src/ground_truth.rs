//! The ground truth of a scenario: what synprobe and the kernel's counters are compared with.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use synprobe_common::model::VerdictKind;
pub use synprobe_common::model::{Outcome, Role};

use crate::fault::FaultCount;

/// Which of the lab's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

/// The cause that the lab gave a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The cause that this verdict names.
    Verdict(VerdictKind),
    /// None: the handshake is healthy.
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

/// The error that a client's application received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// Error number.
    pub errno: i32,
    /// Symbolic name.
    pub name: &'static str,
}

/// One end of one handshake, or of several identical ones where only their number is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedHandshake {
    /// Role of this end.
    pub role: Role,
    /// Local address on the wire.
    pub local_addr: IpAddr,
    /// Local port, where known.
    pub local_port: Option<u16>,
    /// Peer address.
    pub peer_addr: IpAddr,
    /// Peer port, where known.
    pub peer_port: Option<u16>,
    /// Expected outcome.
    pub outcome: Outcome,
    /// Number of handshakes this entry represents: one, unless the kernel's timers decide.
    pub count: RangeInclusive<u64>,
    /// The error that the application received, if any.
    pub error: Option<ClientError>,
    /// Retransmissions of its SYN or SYN-ACK, where their number is certain.
    pub retransmits: Option<u32>,
    /// The cause; `None` where the scenario does not predict a verdict.
    pub cause: Option<Cause>,
}

/// The expected increase of one of the kernel's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedCounter {
    /// Namespace.
    pub side: Side,
    /// Name in `/proc/net/snmp` or `/proc/net/netstat`.
    pub name: &'static str,
    /// Expected increase.
    pub moved: RangeInclusive<u64>,
}

/// The expected number of retransmissions of one kind by one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedRetransmits {
    /// The sender.
    pub side: Side,
    /// `syn`, `synack`, `rto`, `tlp`, `fast` or `recovery`.
    pub kind: &'static str,
    /// Expected number.
    pub count: RangeInclusive<u64>,
}

/// The fault injector's own count of lost segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// Description of the segments.
    pub what: String,
    /// Segments that matched, and how many of these were lost.
    pub count: FaultCount,
}

/// The ground truth of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroundTruth {
    /// The handshakes. After an interruption, those that had ended.
    pub handshakes: Vec<ExpectedHandshake>,
    /// Expected increases of the kernel's counters.
    pub counters: Vec<ExpectedCounter>,
    /// Expected retransmissions. A kind that is not listed is not predicted.
    pub retransmits: Vec<ExpectedRetransmits>,
    /// Injected losses.
    pub faults: Vec<FaultReport>,
    /// How long each connection waited for accept(), by the clock of the scenario's application. Empty where the
    /// scenario does not measure it.
    pub accept_waits: Vec<Duration>,
    /// Notes for the reader of the report.
    pub notes: Vec<String>,
    /// Number of healthy background handshakes, where [`Jitter::background`](crate::Jitter) requested
    /// them. The counters of a namespace are not predicted then.
    pub background: Option<u64>,
    /// The run was stopped early; it has no expected counters then.
    pub interrupted: bool,
}

impl GroundTruth {
    /// The mean and the longest wait for accept(); `None`: not measured.
    pub fn accept_wait(&self) -> Option<(Duration, Duration)> {
        let all: Duration = self.accept_waits.iter().sum();
        let count = u32::try_from(self.accept_waits.len()).ok()?;
        Some((
            all.checked_div(count)?,
            self.accept_waits.iter().max().copied()?,
        ))
    }

    /// Number of handshakes of a role with an outcome. With background handshakes only a lower bound.
    pub fn count(&self, role: Role, outcome: Outcome) -> RangeInclusive<u64> {
        let matching = self
            .handshakes
            .iter()
            .filter(|h| h.role == role && h.outcome == outcome);
        let (least, most) = matching.fold((0, 0), |(least, most), h| {
            (least + h.count.start(), most + h.count.end())
        });
        match self.background {
            None => least..=most,
            Some(_) => least..=u64::MAX,
        }
    }
}
