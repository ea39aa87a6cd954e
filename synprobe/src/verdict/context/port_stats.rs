//! Who came to a listening port, and how it went: the difference between a flood and a crowd.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::window::STEPS;
use crate::{
    model::{HalfOpenCounts, Handshake, Outcome},
    util::{addresses::mapped, bounded::Bounded},
};

/// Ports remembered.
const PORTS: usize = 4096;
/// Sources remembered of each; beyond it the numbers are lower bounds.
const SOURCES: usize = 16_384;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct PortStats {
    /// Handshakes that were established.
    pub established: u64,
    /// Half-opens whose peer sent nothing but SYNs until they ended.
    pub silent_ended: u64,
    /// Half-opens that there are now.
    pub now: HalfOpenCounts,
    /// The fullest that the SYN queue was at the events of handshakes, of what fits. Events come more often
    /// than samples.
    pub fullest: Option<f64>,
    silent_sources: HashSet<[u8; 16]>,
    established_sources: HashSet<[u8; 16]>,
    /// In both.
    returned: u64,
    first_ns: Option<u64>,
    last_ns: u64,
}

impl PortStats {
    /// Half-opens whose peer sent nothing but SYNs, ended or not.
    pub fn silent(&self) -> u64 {
        self.silent_ended + self.now.silent
    }

    /// From how many addresses, at least.
    pub fn silent_sources(&self) -> u64 {
        (self.silent_sources.len() as u64).max(self.now.silent_sources)
    }

    /// How many of the silent addresses have also completed a handshake.
    pub fn returned(&self) -> u64 {
        self.returned
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
    sent_only_syns(h) && h.retransmits_by_peer == 0
}

/// Whether nothing came from the peer but SYNs, and a retransmission gave it the time to answer. A repeated SYN needs
/// no answer of ours: whoever forges one can forge two.
pub fn sent_only_syns(h: &Handshake) -> bool {
    let f = &h.facts;
    matches!(
        h.outcome,
        Outcome::Expired | Outcome::Dropped | Outcome::Open
    ) && f.history_known
        && h.retransmits > 0
        && !f.acked
        && !f.reset_seen
}

pub(super) struct AllPortStats {
    /// Of the run, or of the window.
    ports: Bounded<(u32, u16), PortStats>,
    /// Of each step of the window, the present one last. Empty: there is no window.
    steps: VecDeque<BTreeMap<(u32, u16), PortStats>>,
}

impl Default for AllPortStats {
    fn default() -> Self {
        Self {
            ports: Bounded::new(PORTS),
            steps: VecDeque::new(),
        }
    }
}

impl PortStats {
    fn note_queue(&mut self, h: &Handshake) {
        if let Some(queue) = h.facts.queue {
            self.fullest = Some(queue.syn_fill().max(self.fullest.unwrap_or(0.0)));
        }
    }

    fn note(&mut self, h: &Handshake, at_ns: u64) {
        let source = mapped(h.connection.peer_addr);
        if h.outcome == Outcome::Established {
            self.established += 1;
            self.first_ns.get_or_insert(at_ns);
            self.last_ns = self.last_ns.max(at_ns);
            if self.established_sources.len() < SOURCES {
                self.completes(source);
            }
        } else if sent_only_syns(h) {
            // One that is open at the end of the run is in `now` as well: it counts once.
            self.silent_ended += 1;
            if h.outcome == Outcome::Open {
                self.now = HalfOpenCounts::default();
            }
            if self.silent_sources.len() < SOURCES {
                self.is_silent(source);
            }
        }
    }

    fn add(&mut self, step: &Self) {
        self.established += step.established;
        self.silent_ended += step.silent_ended;
        self.fullest = match (self.fullest, step.fullest) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.first_ns = match (self.first_ns, step.first_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.last_ns = self.last_ns.max(step.last_ns);
        // Each step has its bound, and there are few.
        for source in &step.silent_sources {
            self.is_silent(*source);
        }
        for source in &step.established_sources {
            self.completes(*source);
        }
    }

    fn completes(&mut self, source: [u8; 16]) {
        let is_new = self.established_sources.insert(source);
        self.returned += u64::from(is_new && self.silent_sources.contains(&source));
    }

    fn is_silent(&mut self, source: [u8; 16]) {
        let is_new = self.silent_sources.insert(source);
        self.returned += u64::from(is_new && self.established_sources.contains(&source));
    }
}

impl AllPortStats {
    fn entry(&mut self, key: (u32, u16)) -> Option<&mut PortStats> {
        if self.ports.get(&key).is_none() {
            self.ports.insert(key, PortStats::default());
        }
        self.ports.get_mut(&key)
    }

    /// Takes in how full a handshake's events found the SYN queue of its port.
    pub(super) fn queue_seen(&mut self, h: &Handshake) {
        self.update(h, |port_stats| port_stats.note_queue(h));
    }

    /// Takes in a handshake that has ended, or was open at the end of the run.
    pub(super) fn note(&mut self, h: &Handshake, at_ns: u64) {
        self.update(h, |port_stats| {
            port_stats.note_queue(h);
            port_stats.note(h, at_ns);
        });
    }

    fn update(&mut self, h: &Handshake, update: impl Fn(&mut PortStats)) {
        let c = &h.connection;
        let Some(port) = c.local_port else { return };
        let key = (c.netns, port);
        if let Some(port_stats) = self.entry(key) {
            update(port_stats);
        }
        if let Some(step) = self.steps.back_mut()
            && (step.len() < PORTS || step.contains_key(&key))
        {
            update(step.entry(key).or_default());
        }
    }

    /// A step of the window begins: what is older than the window is forgotten.
    pub(super) fn step(&mut self) {
        let before = std::mem::replace(&mut self.ports, Bounded::new(PORTS));
        if self.steps.is_empty() {
            let all = before.iter().map(|(key, stats)| (*key, stats.clone()));
            self.steps.push_back(all.collect());
        }
        self.steps.push_back(BTreeMap::new());
        while self.steps.len() as u64 > STEPS + 1 {
            self.steps.pop_front();
        }
        let steps = std::mem::take(&mut self.steps);
        for (key, step) in steps.iter().flatten() {
            if let Some(port_stats) = self.entry(*key) {
                port_stats.add(step);
            }
        }
        self.steps = steps;
        for (key, stats) in before.iter().filter(|(_, stats)| stats.now.open > 0) {
            if let Some(port_stats) = self.entry(*key) {
                port_stats.now = stats.now.clone();
            }
        }
    }

    pub(super) fn now(&mut self, now: Vec<((u32, u16), HalfOpenCounts)>) {
        let now: BTreeMap<_, _> = now.into_iter().collect();
        let known: Vec<(u32, u16)> = self.ports.iter().map(|(key, _)| *key).collect();
        for key in known {
            if !now.contains_key(&key)
                && let Some(port_stats) = self.ports.get_mut(&key)
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
        self.ports.get(&(netns, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::fixtures::half_open_of;

    #[test]
    fn issue20_sources_that_return_are_counted_as_they_come() {
        let mut all = AllPortStats::default();
        for round in 0..3_u8 {
            for n in 0..60_u8 {
                let peer = format!("198.18.0.{n}");
                let mut h = half_open_of(&peer, Outcome::Expired);
                if (n + round) % 4 == 0 {
                    h = half_open_of(&peer, Outcome::Established);
                }
                all.note(&h, u64::from(round));
            }
            for (_, stats) in all.ports.iter() {
                let both = stats
                    .silent_sources
                    .intersection(&stats.established_sources);
                assert_eq!(stats.returned(), both.count() as u64);
            }
            all.step();
        }
        let (_, stats) = all.ports.iter().next().unwrap();
        assert!(stats.returned() > 0 && stats.returned() < 60);
        let both = stats
            .silent_sources
            .intersection(&stats.established_sources);
        assert_eq!(stats.returned(), both.count() as u64);
    }
}
