//! How many destinations a process calls, and how many of them accept it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use super::window::STEPS;
use crate::{
    model::Connection,
    util::{bounded::Bounded, table_bounds::TableBounds},
};

/// Processes remembered.
const PROCESSES: usize = 1024;
/// Destinations remembered of each.
const DESTINATIONS: usize = 4096;
/// The same once all together have their bound ([`TableBounds::destinations`]): enough to recognise a scan. Who chooses
/// destinations must not choose how much memory this takes.
const FEW: usize = 64;

/// Attempts at one destination.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    attempts: u64,
    established: u64,
}

/// What one process has called.
#[derive(Clone, Debug, Default)]
pub struct Fanout {
    /// Its name.
    pub comm: Option<Arc<str>>,
    /// Its pid.
    pub pid: u32,
    destinations: HashMap<(IpAddr, u16), Calls>,
    closed: Closed,
    /// There was no room for some destination: the numbers are lower bounds.
    pub cut: bool,
    attempts: u64,
    first_ns: u64,
    last_ns: u64,
}

/// Destinations that accepted no connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosedDestinations {
    /// Addresses and ports.
    pub destinations: usize,
    /// Addresses.
    pub addresses: usize,
    /// Ports.
    pub ports: usize,
    /// Attempts at them.
    pub attempts: u64,
}

/// The same, summed as calls come: each of thousands of failed handshakes asks for it.
#[derive(Clone, Debug, Default)]
struct Closed {
    /// Destinations by address.
    addresses: HashMap<IpAddr, u32>,
    /// Destinations by port.
    ports: HashMap<u16, u32>,
    destinations: usize,
    attempts: u64,
}

impl Closed {
    /// A destination has other calls than before.
    fn changes(&mut self, (address, port): (IpAddr, u16), before: Option<Calls>, now: Calls) {
        let was = before.filter(Calls::are_refused);
        let is = Some(now).filter(Calls::are_refused);
        let attempts = |calls: Option<Calls>| calls.map_or(0, |calls| calls.attempts);
        self.attempts = self.attempts - attempts(was) + attempts(is);
        match (was.is_some(), is.is_some()) {
            (false, true) => {
                self.destinations += 1;
                *self.addresses.entry(address).or_default() += 1;
                *self.ports.entry(port).or_default() += 1;
            }
            (true, false) => {
                self.destinations -= 1;
                one_less(&mut self.addresses, address);
                one_less(&mut self.ports, port);
            }
            _ => (),
        }
    }
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Calls {
    /// Whether none of them was accepted.
    fn are_refused(&self) -> bool {
        self.established == 0
    }

    fn with(self, other: Self) -> Self {
        Self {
            attempts: self.attempts + other.attempts,
            established: self.established + other.established,
        }
    }
}

impl Fanout {
    /// Addresses and ports called.
    pub fn destinations(&self) -> usize {
        self.destinations.len()
    }

    /// Those of them that never accepted a connection.
    pub fn closed(&self) -> ClosedDestinations {
        ClosedDestinations {
            destinations: self.closed.destinations,
            addresses: self.closed.addresses.len(),
            ports: self.closed.ports.len(),
            attempts: self.closed.attempts,
        }
    }

    /// Attempts a second, from the first to the last; 0 where there are fewer than two.
    pub fn rate(&self) -> f64 {
        let span_ns = self.last_ns.saturating_sub(self.first_ns);
        if self.attempts < 2 || span_ns == 0 {
            return 0.0;
        }
        (self.attempts - 1) as f64 * 1e9 / span_ns as f64
    }
}

impl Fanout {
    fn new(pid: u32, comm: Option<Arc<str>>, at_ns: u64) -> Self {
        Self {
            pid,
            comm,
            first_ns: at_ns,
            ..Self::default()
        }
    }

    /// `most`: destinations that it may have.
    fn began(&mut self, c: &Connection, at_ns: u64, most: usize) {
        self.attempts += 1;
        self.last_ns = self.last_ns.max(at_ns);
        self.count(
            c,
            Calls {
                attempts: 1,
                established: 0,
            },
            most,
        );
    }

    /// One more connection of a destination was accepted.
    fn accepted(&mut self, c: &Connection, most: usize) {
        self.count(
            c,
            Calls {
                attempts: 0,
                established: 1,
            },
            most,
        );
    }

    /// Adds to the calls of a connection's destination, if there is room for it.
    fn count(&mut self, c: &Connection, calls: Calls, most: usize) {
        let Some(port) = c.peer_port else { return };
        let destination = (c.peer_addr, port);
        if self.destinations.len() < most || self.destinations.contains_key(&destination) {
            self.sum(destination, calls);
        } else {
            self.cut = true;
        }
    }

    fn sum(&mut self, destination: (IpAddr, u16), calls: Calls) {
        let before = self.destinations.get(&destination).copied();
        let now = before.unwrap_or_default().with(calls);
        self.destinations.insert(destination, now);
        self.closed.changes(destination, before, now);
    }

    fn add(&mut self, step: &Self) {
        self.attempts += step.attempts;
        self.first_ns = self.first_ns.min(step.first_ns);
        self.last_ns = self.last_ns.max(step.last_ns);
        self.cut |= step.cut;
        for (destination, calls) in &step.destinations {
            self.sum(*destination, *calls);
        }
    }
}

type Process = (u32, u32);

pub(super) struct Fanouts {
    /// Of the run, or of the window.
    processes: Bounded<Process, Fanout>,
    /// Of each step of the window, the present one last. Empty: there is no window.
    steps: VecDeque<BTreeMap<Process, Fanout>>,
    /// Destinations of `processes`, and of the present step.
    kept: usize,
    kept_in_step: usize,
    /// The bound of `kept`.
    all: usize,
}

/// How many destinations one process may have.
fn most(kept: usize, all: usize) -> usize {
    if kept < all { DESTINATIONS } else { FEW }
}

impl Default for Fanouts {
    fn default() -> Self {
        Self::new(TableBounds::default().destinations)
    }
}

impl Fanouts {
    /// Without processes. `all`: destinations of all processes before each is held to [`FEW`].
    pub(super) fn new(all: usize) -> Self {
        Self {
            processes: Bounded::new(PROCESSES),
            steps: VecDeque::new(),
            kept: 0,
            kept_in_step: 0,
            all,
        }
    }

    /// The bound of one step of a window, of which there are [`STEPS`] and the present one.
    fn all_of_step(&self) -> usize {
        self.all / 4
    }

    pub(super) fn began(&mut self, c: &Connection, at_ns: u64) {
        let Some(pid) = c.pid else { return };
        let key = (c.netns, pid);
        let fresh = || Fanout::new(pid, c.comm.clone(), at_ns);
        if self.processes.get(&key).is_none() {
            let (_, evicted) = self.processes.insert(key, fresh());
            self.kept -= evicted.map_or(0, |(_, fanout)| fanout.destinations.len());
        }
        if let Some(fanout) = self.processes.get_mut(&key) {
            let before = fanout.destinations.len();
            fanout.began(c, at_ns, most(self.kept, self.all));
            self.kept += fanout.destinations.len() - before;
        }
        let room = most(self.kept_in_step, self.all_of_step());
        if let Some(step) = self.steps.back_mut()
            && (step.len() < PROCESSES || step.contains_key(&key))
        {
            let fanout = step.entry(key).or_insert_with(fresh);
            let before = fanout.destinations.len();
            fanout.began(c, at_ns, room);
            self.kept_in_step += fanout.destinations.len() - before;
        }
    }

    pub(super) fn established(&mut self, c: &Connection) {
        let Some(pid) = c.pid else { return };
        let key = (c.netns, pid);
        let Some(fanout) = self.processes.get_mut(&key) else {
            return;
        };
        let destination = c.peer_port.map(|port| (c.peer_addr, port));
        let known = destination.is_some_and(|d| fanout.destinations.contains_key(&d));
        if known {
            fanout.accepted(c, DESTINATIONS);
        }
        let (comm, at_ns) = (fanout.comm.clone(), fanout.last_ns);
        let room = most(self.kept_in_step, self.all_of_step());
        if let Some(step) = self.steps.back_mut().filter(|_| known)
            && (step.len() < PROCESSES || step.contains_key(&key))
        {
            // It may have begun in an earlier step.
            let fanout = step
                .entry(key)
                .or_insert_with(|| Fanout::new(pid, comm, at_ns));
            let before = fanout.destinations.len();
            fanout.accepted(c, room);
            self.kept_in_step += fanout.destinations.len() - before;
        }
    }

    /// A step of the window begins: what is older than the window is forgotten.
    pub(super) fn step(&mut self) {
        let before = std::mem::replace(&mut self.processes, Bounded::new(PROCESSES));
        if self.steps.is_empty() {
            let all = before.iter().map(|(key, fanout)| (*key, fanout.clone()));
            self.steps.push_back(all.collect());
        }
        self.steps.push_back(BTreeMap::new());
        self.kept_in_step = 0;
        while self.steps.len() as u64 > STEPS + 1 {
            self.steps.pop_front();
        }
        for (key, step) in self.steps.iter().flatten() {
            if self.processes.get(key).is_none() {
                let fresh = Fanout::new(step.pid, step.comm.clone(), step.first_ns);
                self.processes.insert(*key, fresh);
            }
            if let Some(fanout) = self.processes.get_mut(key) {
                fanout.add(step);
            }
        }
        self.kept = self
            .processes
            .iter()
            .map(|(_, fanout)| fanout.destinations.len())
            .sum();
    }

    pub(super) fn of(&self, c: &Connection) -> Option<&Fanout> {
        self.processes.get(&(c.netns, c.pid?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Role, verdict::fixtures::connection};

    fn to(address: u8, port: u16) -> Connection {
        connection(Role::Client, &format!("10.1.0.{address}"), port)
    }

    /// What a walk over all destinations gives.
    fn walked(fanout: &Fanout) -> ClosedDestinations {
        let closed = fanout
            .destinations
            .iter()
            .filter(|(_, calls)| calls.are_refused());
        let closed: Vec<_> = closed.collect();
        let addresses: std::collections::HashSet<_> = closed.iter().map(|((a, _), _)| a).collect();
        let ports: std::collections::HashSet<_> = closed.iter().map(|((_, p), _)| p).collect();
        ClosedDestinations {
            destinations: closed.len(),
            addresses: addresses.len(),
            ports: ports.len(),
            attempts: closed.iter().map(|(_, calls)| calls.attempts).sum(),
        }
    }

    #[test]
    fn issue20_all_processes_share_one_bound_and_each_scan_is_seen() {
        let mut all = Fanouts::default();
        for step in 0..3_u32 {
            for pid in 0..PROCESSES as u32 {
                for n in 0..200_u16 {
                    let mut c = to((n % 250) as u8, 80 + n);
                    c.pid = Some(pid);
                    all.began(&c, u64::from(step));
                }
            }
            let most = TableBounds::default().destinations;
            let kept = |fanouts: &mut dyn Iterator<Item = &Fanout>| {
                fanouts
                    .map(|fanout| fanout.destinations.len())
                    .sum::<usize>()
            };
            let of_run = kept(&mut all.processes.iter().map(|(_, fanout)| fanout));
            assert!(of_run <= 2 * (most + PROCESSES * FEW), "{of_run}");
            assert_eq!(of_run, all.kept);
            for step in &all.steps {
                let of_step = kept(&mut step.values());
                // The first one has what there was before.
                assert!(of_step <= most + PROCESSES * FEW, "{of_step}");
            }
            for (_, fanout) in all.processes.iter() {
                assert!(
                    fanout.closed().ports >= FEW.min(200),
                    "{}",
                    fanout.closed().ports
                );
            }
            all.step();
        }
        assert!(all.processes.iter().any(|(_, fanout)| fanout.cut));
    }

    #[test]
    fn issue20_closed_destinations_are_summed_as_they_come() {
        let mut all = Fanouts::default();
        for round in 0..3_u64 {
            for n in 0..40_u8 {
                let c = to(n % 20, 80 + u16::from(n / 10));
                all.began(&c, round * 100 + u64::from(n));
                if n % 7 == 0 && round == 1 {
                    all.established(&c);
                }
                let fanout = all.of(&c).unwrap();
                assert_eq!(fanout.closed(), walked(fanout));
            }
            all.step();
            let fanout = all.of(&to(1, 80)).unwrap();
            assert_eq!(fanout.closed(), walked(fanout));
        }
        let closed = all.of(&to(1, 80)).unwrap().closed();
        assert!(closed.destinations < 40 && closed.addresses > 0 && closed.attempts > 60);
    }
}
