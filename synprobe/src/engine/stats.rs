//! Cumulative counts of what the lines say: they only rise while the run lasts.

use std::collections::BTreeMap;

use synprobe_ebpf::histogram::{BUCKETS, bucket};

use crate::model::{Body, Handshake, Line, Lost, Outcome, RetransmitKind, Role};

/// Ports told apart; what exceeds them is counted under `None`.
const PORTS: usize = 1024;

/// A role and the listening port: the local one of a server, the peer's of a client; `None`: all others.
pub type PortKey = (Role, Option<u16>);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandshakeStats {
    /// Handshakes that ended, by role, port and outcome; those still open have not.
    pub outcomes: BTreeMap<(PortKey, Outcome), u64>,
    /// How long those that completed took, by `synprobe_ebpf::histogram`'s buckets of microseconds.
    pub durations: BTreeMap<PortKey, Box<[u64; BUCKETS]>>,
    /// Sum of those times, microseconds.
    pub duration_sums_us: BTreeMap<PortKey, u64>,
    /// Segments retransmitted, by kind; those that could not be sent are left out.
    pub retransmits: BTreeMap<RetransmitKind, u64>,
    /// Records lost.
    pub lost: u64,
}

impl HandshakeStats {
    pub(super) fn line(&mut self, line: &Line) {
        match &line.body {
            Body::Handshake(h) if h.outcome != Outcome::Open => self.handshake(h),
            Body::Retransmit(r) if !r.failed => {
                *self.retransmits.entry(r.kind).or_default() += u64::from(r.segs);
            }
            _ => (),
        }
    }

    pub(super) fn lost(&mut self, lost: &Lost) {
        self.lost += lost.events;
    }

    fn handshake(&mut self, h: &Handshake) {
        let key = self.key(h);
        *self.outcomes.entry((key, h.outcome)).or_default() += 1;
        if let (Outcome::Established, Some(us)) = (h.outcome, h.dwell_us) {
            let counts = self
                .durations
                .entry(key)
                .or_insert_with(|| Box::new([0; BUCKETS]));
            counts[bucket(u32::try_from(us).unwrap_or(u32::MAX))] += 1;
            *self.duration_sums_us.entry(key).or_default() += us;
        }
    }

    fn key(&self, h: &Handshake) -> PortKey {
        let c = &h.connection;
        let port = match c.role {
            Role::Client => c.peer_port,
            Role::Server => c.local_port,
        };
        let known = self.outcomes.keys().any(|(key, _)| *key == (c.role, port));
        match known || self.outcomes.len() < PORTS {
            true => (c.role, port),
            false => (c.role, None),
        }
    }
}
