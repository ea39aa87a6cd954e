//! Who came to a listening port, and how it went: the difference between a flood and a crowd.

use std::collections::{BTreeMap, HashSet};

use crate::{
    model::{HalfOpenCounts, Handshake, Outcome},
    util::{addresses::mapped, bounded::Bounded},
};

/// Ports remembered.
const PORTS: usize = 4096;
/// Sources remembered of each; beyond it the numbers are lower bounds.
const SOURCES: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub struct PortStats {
    /// Handshakes that were established.
    pub established: u64,
    /// Half-opens whose peer stayed silent until they ended.
    pub silent_ended: u64,
    /// Half-opens that there are now.
    pub now: HalfOpenCounts,
    /// The fullest that the SYN queue was at the events of handshakes, of what fits. Events come more often
    /// than samples.
    pub fullest: Option<f64>,
    silent_sources: HashSet<[u8; 16]>,
    established_sources: HashSet<[u8; 16]>,
    first_ns: Option<u64>,
    last_ns: u64,
}

impl PortStats {
    /// Half-opens whose peer stayed silent, ended or not.
    pub fn silent(&self) -> u64 {
        self.silent_ended + self.now.silent
    }

    /// From how many addresses, at least.
    pub fn silent_sources(&self) -> u64 {
        (self.silent_sources.len() as u64).max(self.now.silent_sources)
    }

    /// How many of the silent addresses have also completed a handshake.
    pub fn returned(&self) -> u64 {
        self.silent_sources
            .intersection(&self.established_sources)
            .count() as u64
    }

    /// Handshakes established a second.
    pub fn rate(&self) -> f64 {
        let span_ns = self
            .last_ns
            .saturating_sub(self.first_ns.unwrap_or(self.last_ns));
        if self.established < 2 || span_ns == 0 {
            return 0.0;
        }
        self.established as f64 * 1e9 / span_ns as f64
    }
}

/// Whether the peer has sent nothing since its SYN, and a retransmission gave it the time to.
pub fn silent(h: &Handshake) -> bool {
    let f = &h.facts;
    matches!(
        h.outcome,
        Outcome::Expired | Outcome::Dropped | Outcome::Open
    ) && f.history_known
        && h.retransmits > 0
        && h.retransmits_by_peer == 0
        && !f.acked
        && !f.reset_seen
}

pub(super) struct AllPortStats(Bounded<(u32, u16), PortStats>);

impl Default for AllPortStats {
    fn default() -> Self {
        Self(Bounded::new(PORTS))
    }
}

impl AllPortStats {
    fn entry(&mut self, key: (u32, u16)) -> Option<&mut PortStats> {
        if self.0.get(&key).is_none() {
            self.0.insert(key, PortStats::default());
        }
        self.0.get_mut(&key)
    }

    /// Takes in how full a handshake's events found the SYN queue of its port.
    pub(super) fn queue_seen(&mut self, h: &Handshake) -> Option<&mut PortStats> {
        let c = &h.connection;
        let port_stats = self.entry((c.netns, c.local_port?))?;
        if let Some(queue) = h.facts.queue {
            port_stats.fullest = Some(queue.syn_fill().max(port_stats.fullest.unwrap_or(0.0)));
        }
        Some(port_stats)
    }

    /// Takes in a handshake that has ended, or was open at the end of the run.
    pub(super) fn note(&mut self, h: &Handshake, at_ns: u64) {
        let Some(port_stats) = self.queue_seen(h) else {
            return;
        };
        let source = mapped(h.connection.peer_addr);
        if h.outcome == Outcome::Established {
            port_stats.established += 1;
            port_stats.first_ns.get_or_insert(at_ns);
            port_stats.last_ns = port_stats.last_ns.max(at_ns);
            if port_stats.established_sources.len() < SOURCES {
                port_stats.established_sources.insert(source);
            }
        } else if silent(h) {
            // One that is open at the end of the run is in `now` as well: it counts once.
            port_stats.silent_ended += 1;
            if h.outcome == Outcome::Open {
                port_stats.now = HalfOpenCounts::default();
            }
            if port_stats.silent_sources.len() < SOURCES {
                port_stats.silent_sources.insert(source);
            }
        }
    }

    pub(super) fn now(&mut self, now: Vec<((u32, u16), HalfOpenCounts)>) {
        let now: BTreeMap<_, _> = now.into_iter().collect();
        let known: Vec<(u32, u16)> = self.0.iter().map(|(key, _)| *key).collect();
        for key in known {
            if !now.contains_key(&key)
                && let Some(port_stats) = self.0.get_mut(&key)
            {
                port_stats.now = HalfOpenCounts::default();
            }
        }
        for (key, half_opens) in now {
            if let Some(port_stats) = self.entry(key) {
                port_stats.now = half_opens;
            }
        }
    }

    pub(super) fn of(&self, netns: u32, port: u16) -> Option<&PortStats> {
        self.0.get(&(netns, port))
    }
}
