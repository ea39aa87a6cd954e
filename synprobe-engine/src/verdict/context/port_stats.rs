//! Who came to a listening port, and how it went: the difference between a flood and a crowd.

use std::collections::{BTreeMap, HashSet};

use super::windowed::{Room, Sums, Windowed};
use crate::{
    model::{HalfOpenCounts, Handshake, Outcome},
    util::{addresses::mapped, table_bounds::TableBounds},
};

/// Ports remembered.
const PORTS: usize = 4096;
/// Sources remembered of each; beyond it the numbers are lower bounds.
const SOURCES: usize = 16_384;
/// The same once all ports together have their bound ([`TableBounds::sources`]): enough to tell a flood from a crowd.
/// Who chooses ports and addresses must not choose how much memory this takes.
const FEW: usize = 256;

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
    /// There was no room for some silent address.
    cut: bool,
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

    /// Whether there may be more of them.
    pub fn sources_are_cut(&self) -> bool {
        self.cut
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
    sent_only_syns(h) && h.repeated_syns() == 0
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

/// By namespace and port.
pub(super) struct AllPortStats(Windowed<(u32, u16), PortStats>);

/// How many addresses of each kind one port may have.
fn most(room: Room) -> usize {
    match room {
        Room::Ample => SOURCES,
        Room::Scarce => FEW,
    }
}

impl PortStats {
    fn note_queue(&mut self, h: &Handshake) {
        if let Some(queue) = h.facts.queue {
            self.fullest = Some(queue.syn_fill().max(self.fullest.unwrap_or(0.0)));
        }
    }

    /// `most`: addresses of each kind that it may have.
    fn note(&mut self, h: &Handshake, at_ns: u64, most: usize) {
        let source = mapped(h.connection.peer_addr);
        if h.outcome == Outcome::Established {
            self.established += 1;
            self.first_ns.get_or_insert(at_ns);
            self.last_ns = self.last_ns.max(at_ns);
            if self.established_sources.len() < most {
                self.completes(source);
            }
        } else if sent_only_syns(h) {
            // One that is open at the end of the run is in `now` as well: it counts once.
            self.silent_ended += 1;
            if h.outcome == Outcome::Open {
                self.now = HalfOpenCounts::default();
            }
            if self.silent_sources.len() < most {
                self.is_silent(source);
            } else {
                self.cut |= !self.silent_sources.contains(&source);
            }
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

impl Sums for PortStats {
    fn empty(&self) -> Self {
        Self::default()
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
        self.cut |= step.cut;
        for source in &step.silent_sources {
            self.is_silent(*source);
        }
        for source in &step.established_sources {
            self.completes(*source);
        }
    }

    fn kept(&self) -> usize {
        self.silent_sources.len() + self.established_sources.len()
    }
}

impl Default for AllPortStats {
    fn default() -> Self {
        Self::new(TableBounds::default().sources)
    }
}

impl AllPortStats {
    /// Without ports. `all`: addresses of all ports before each is held to [`FEW`].
    pub(super) fn new(all: usize) -> Self {
        Self(Windowed::new(PORTS, all))
    }

    /// Takes in how full a handshake's events found the SYN queue of its port.
    pub(super) fn queue_seen(&mut self, h: &Handshake) {
        self.update(h, |port_stats, _| port_stats.note_queue(h));
    }

    /// Takes in a handshake that has ended, or was open at the end of the run.
    pub(super) fn note(&mut self, h: &Handshake, at_ns: u64) {
        self.update(h, |port_stats, most| {
            port_stats.note_queue(h);
            port_stats.note(h, at_ns, most);
        });
    }

    fn update(&mut self, h: &Handshake, update: impl Fn(&mut PortStats, usize)) {
        let c = &h.connection;
        let Some(port) = c.local_port else { return };
        let update = |stats: &mut PortStats, room| update(stats, most(room));
        self.0.update((c.netns, port), PortStats::default, update);
    }

    /// A step of the window begins: what is older than the window is forgotten.
    pub(super) fn step(&mut self) {
        let before = self.0.step();
        for (key, stats) in before.iter().filter(|(_, stats)| stats.now.open > 0) {
            if let Some(port_stats) = self.0.row(*key, PortStats::default) {
                port_stats.now = stats.now.clone();
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
            if let Some(port_stats) = self.0.row(key, PortStats::default) {
                port_stats.now = half_opens;
            }
        }
    }

    pub(super) fn of(&self, netns: u32, port: u16) -> Option<&PortStats> {
        self.0.get(&(netns, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::fixtures::half_open_of;

    #[test]
    fn issue20_all_ports_share_one_bound_and_each_flood_is_seen() {
        let mut all = AllPortStats::default();
        for step in 0..2 {
            // Ports of a tenant, and then the victim's.
            for n in 0..if step == 0 { 280_000 } else { 1000 } {
                let peer = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
                let mut h = half_open_of(&peer, Outcome::Expired);
                h.connection.local_port = Some((n % 1000) as u16 + 1);
                all.note(&h, step);
            }
            for n in 0..300_u32 {
                let peer = std::net::Ipv4Addr::from(0x0b00_0000 + n).to_string();
                all.note(&half_open_of(&peer, Outcome::Expired), step);
            }
            let (of_run, _) = all.0.kept_by_step();
            let most = TableBounds::default().sources;
            assert!(of_run <= most + most / 4 + 1001 * FEW * 2, "{of_run}");
            let (_, victim) = all.0.iter().find(|(key, _)| key.1 == 8080).unwrap();
            assert!(victim.silent_sources() >= FEW as u64 && victim.sources_are_cut());
            all.step();
        }
    }

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
            for (_, stats) in all.0.iter() {
                let both = stats
                    .silent_sources
                    .intersection(&stats.established_sources);
                assert_eq!(stats.returned(), both.count() as u64);
            }
            all.step();
        }
        let (_, stats) = all.0.iter().next().unwrap();
        assert!(stats.returned() > 0 && stats.returned() < 60);
        let both = stats
            .silent_sources
            .intersection(&stats.established_sources);
        assert_eq!(stats.returned(), both.count() as u64);
    }
}
