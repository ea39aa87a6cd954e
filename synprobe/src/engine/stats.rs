//! Cumulative counts of the lines. They only rise during a run.

use std::collections::BTreeMap;

use synprobe_ebpf::histogram::{BUCKETS, bucket};

use crate::model::{Body, Handshake, Line, Outcome, RetransmitKind, Role};

/// Ports counted individually; all others are counted under `None`.
const PORTS: usize = 1024;

/// A role and the listening port: the local one of a server, the peer's of a client; `None`: all others.
pub type PortKey = (Role, Option<u16>);

/// The handshakes of one role and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTotals {
    /// Those that ended, by outcome, in the order of [`Outcome::ALL`]; those still open have not.
    pub outcomes: [u64; Outcome::ALL.len()],
    /// How long those that completed took, by `synprobe_ebpf::histogram`'s buckets of microseconds.
    pub durations: [u64; BUCKETS],
    /// Sum of those times, microseconds.
    pub duration_sum_us: u64,
}

impl Default for PortTotals {
    fn default() -> Self {
        Self {
            outcomes: [0; Outcome::ALL.len()],
            durations: [0; BUCKETS],
            duration_sum_us: 0,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandshakeStats {
    /// By role and port.
    pub ports: BTreeMap<PortKey, Box<PortTotals>>,
    /// Segments retransmitted, by kind; those that could not be sent are left out.
    pub retransmits: BTreeMap<RetransmitKind, u64>,
    /// Records lost, as the `lost` lines say: those that the tracker finds missing are included.
    pub lost: u64,
}

impl HandshakeStats {
    pub(super) fn line(&mut self, line: &Line) {
        match &line.body {
            Body::Handshake(h) if h.outcome != Outcome::Open => self.handshake(h),
            Body::Retransmit(r) if !r.failed => {
                *self.retransmits.entry(r.kind).or_default() += u64::from(r.segs);
            }
            Body::Lost(lost) => self.lost += lost.events,
            _ => (),
        }
    }

    fn handshake(&mut self, h: &Handshake) {
        let c = &h.connection;
        let port = match c.role {
            Role::Client => c.peer_port,
            Role::Server => c.local_port,
        };
        let key = (c.role, port);
        let stats = match self.ports.len() < PORTS || self.ports.contains_key(&key) {
            true => self.ports.entry(key).or_default(),
            false => self.ports.entry((c.role, None)).or_default(),
        };
        let at = Outcome::ALL.iter().position(|o| *o == h.outcome);
        if let Some(count) = at.and_then(|at| stats.outcomes.get_mut(at)) {
            *count += 1;
        }
        if let (Outcome::Established, Some(us)) = (h.outcome, h.dwell_us) {
            stats.durations[bucket(u32::try_from(us).unwrap_or(u32::MAX))] += 1;
            stats.duration_sum_us += us;
        }
    }
}
