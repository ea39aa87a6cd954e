//! Cumulative counts of the lines. They only rise during a run.

use std::collections::BTreeMap;

use synprobe_ebpf::histogram::{BUCKETS, bucket};

use crate::model::{
    Body, Confidence, Handshake, Line, Missed, Outcome, Retransmit, RetransmitKind, Role, Trigger,
    VerdictKind,
};

/// Ports counted individually; all others are counted under `None`.
const PORTS: usize = 1024;

/// A role and the listening port: the local one of a server, the peer's of a client; `None`: all others.
pub type PortKey = (Role, Option<u16>);

/// The handshakes of one role and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTotals {
    /// Those that ended, by outcome, in the order of [`Outcome::ALL`]; those still open have not.
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Those that ended and have a verdict.
    pub verdicts: BTreeMap<(VerdictKind, ConfidenceRank), u64>,
    /// How long those that completed took, by `synprobe_ebpf::histogram`'s buckets of microseconds.
    pub durations: [u64; BUCKETS],
    /// Of the last of those buckets, those that took [`LONG_US`] or longer, or that may have.
    pub long: u64,
    /// Sum of those times, microseconds.
    pub duration_sum_us: u64,
}

/// A bound beyond the histogram's last bucket, microseconds: before the last of six SYNs gives up, at 63 s.
pub const LONG_US: u64 = 7 << 23;

/// [`Confidence`] as a key: 0 certain, 1 likely, 2 insufficient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfidenceRank(u8);

impl ConfidenceRank {
    /// The confidence.
    pub fn confidence(self) -> Confidence {
        match self.0 {
            0 => Confidence::Certain,
            1 => Confidence::Likely,
            _ => Confidence::Insufficient,
        }
    }
}

impl From<Confidence> for ConfidenceRank {
    fn from(confidence: Confidence) -> Self {
        Self(match confidence {
            Confidence::Certain => 0,
            Confidence::Likely => 1,
            Confidence::Insufficient => 2,
        })
    }
}

impl Default for PortTotals {
    fn default() -> Self {
        Self {
            outcomes: [0; Outcome::ALL.len()],
            verdicts: BTreeMap::new(),
            durations: [0; BUCKETS],
            long: 0,
            duration_sum_us: 0,
        }
    }
}

impl PortTotals {
    /// Those that ended in this way.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        let at = Outcome::ALL.iter().position(|o| *o == outcome);
        at.and_then(|at| self.outcomes.get(at))
            .copied()
            .unwrap_or(0)
    }

    /// Adds others to these.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *sum += more;
        }
        for (key, more) in &other.verdicts {
            *self.verdicts.entry(*key).or_default() += more;
        }
        for (sum, more) in self.durations.iter_mut().zip(other.durations) {
            *sum += more;
        }
        self.long += other.long;
        self.duration_sum_us += other.duration_sum_us;
    }

    fn add_one(&mut self, h: &Handshake) {
        let at = Outcome::ALL.iter().position(|o| *o == h.outcome);
        if let Some(count) = at.and_then(|at| self.outcomes.get_mut(at)) {
            *count += 1;
        }
        if let Some(verdict) = h.verdict {
            *self
                .verdicts
                .entry((verdict, h.confidence.into()))
                .or_default() += 1;
        }
        if let (Outcome::Established, Some(us)) = (h.outcome, h.dwell_us) {
            self.durations[bucket(u32::try_from(us).unwrap_or(u32::MAX))] += 1;
            self.long += u64::from(us >= LONG_US);
            self.duration_sum_us += us;
        }
    }
}

/// A segment that was retransmitted: its kind, and who caused it where it is a SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetransmitCause {
    /// Its kind.
    pub kind: RetransmitKind,
    /// A SYN-ACK that the peer's repeated SYN caused.
    pub by_peer: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandshakeStats {
    /// By role and port: handshakes that have a line.
    pub ports: BTreeMap<PortKey, Box<PortTotals>>,
    /// By role and port: handshakes that the kernel side only counted, as last read (the quiet mode). Their
    /// number is bounded by the kernel side's slots.
    pub counted: BTreeMap<PortKey, Box<PortTotals>>,
    /// Segments retransmitted, by cause; those that could not be sent are left out.
    pub retransmits: BTreeMap<RetransmitCause, u64>,
    /// Records lost, as the `lost` lines say, by kind: those that the tracker finds missing are included.
    pub lost: BTreeMap<&'static str, u64>,
}

impl HandshakeStats {
    pub fn line(&mut self, line: &Line) {
        match &line.body {
            Body::Handshake(h) if h.outcome != Outcome::Open => self.handshake(h),
            Body::Retransmit(r) if !r.failed => {
                *self.retransmits.entry(cause(r)).or_default() += u64::from(r.segs);
            }
            Body::Lost(lost) => *self.lost.entry(kind(lost.of)).or_default() += lost.events,
            _ => (),
        }
    }

    /// Takes in what the kernel side has counted of one role and port since the run began; without the sum of
    /// their times in recordings of earlier versions.
    pub fn set_counted(&mut self, key: PortKey, counts: &[u64; BUCKETS], sum_us: u64) {
        let totals = self.counted.entry(key).or_default();
        totals.durations = *counts;
        // Only with a `--slow` of half a minute are there any, and how long they took is not known.
        totals.long = counts[BUCKETS - 1];
        totals.duration_sum_us = sum_us;
        let at = Outcome::ALL.iter().position(|o| *o == Outcome::Established);
        if let Some(count) = at.and_then(|at| totals.outcomes.get_mut(at)) {
            *count = counts.iter().sum();
        }
    }

    /// Both kinds of handshakes together.
    pub fn all_ports(&self) -> BTreeMap<PortKey, PortTotals> {
        let mut all: BTreeMap<PortKey, PortTotals> = BTreeMap::new();
        for (key, totals) in self.ports.iter().chain(&self.counted) {
            all.entry(*key).or_default().add(totals);
        }
        all
    }

    fn handshake(&mut self, h: &Handshake) {
        let c = &h.connection;
        let port = match c.role {
            Role::Client => c.peer_port,
            Role::Server => c.local_port,
        };
        let key = (c.role, port);
        let totals = match self.ports.len() < PORTS || self.ports.contains_key(&key) {
            true => self.ports.entry(key).or_default(),
            false => self.ports.entry((c.role, None)).or_default(),
        };
        totals.add_one(h);
    }
}

fn cause(r: &Retransmit) -> RetransmitCause {
    RetransmitCause {
        kind: r.kind,
        by_peer: r.trigger == Some(Trigger::Peer),
    }
}

fn kind(of: Missed) -> &'static str {
    match of {
        Missed::Others => "others",
        Missed::States => "states",
        Missed::Retransmissions => "retransmissions",
        Missed::Requests => "requests",
        Missed::Any => "any",
        Missed::Drops => "drops",
        Missed::EarlyResets => "early_resets",
        Missed::OtherDrops => "other_drops",
        Missed::WithoutSocket => "without_socket",
        Missed::Handshakes(_) => "handshakes",
        Missed::Data(_) => "data",
        Missed::Output => "output",
        Missed::Evicted => "evicted",
    }
}
