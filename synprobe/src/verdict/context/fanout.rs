//! How many destinations a process calls, and how many of them accept it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use super::window::STEPS;
use crate::{model::Connection, util::bounded::Bounded};

/// Processes remembered.
const PROCESSES: usize = 1024;
/// Destinations remembered of each.
const DESTINATIONS: usize = 4096;

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

impl Fanout {
    /// Addresses and ports called.
    pub fn destinations(&self) -> usize {
        self.destinations.len()
    }

    /// Those of them that never accepted a connection.
    pub fn closed(&self) -> ClosedDestinations {
        let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
        let mut closed = ClosedDestinations::default();
        for ((address, port), calls) in &self.destinations {
            if calls.established == 0 {
                closed.destinations += 1;
                closed.attempts += calls.attempts;
                addresses.insert(address);
                ports.insert(port);
            }
        }
        (closed.addresses, closed.ports) = (addresses.len(), ports.len());
        closed
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

    fn began(&mut self, c: &Connection, at_ns: u64) {
        self.attempts += 1;
        self.last_ns = self.last_ns.max(at_ns);
        if let Some(calls) = self.calls(c) {
            calls.attempts += 1;
        }
    }

    /// The calls of a connection's destination, if there is room for it.
    fn calls(&mut self, c: &Connection) -> Option<&mut Calls> {
        let destination = (c.peer_addr, c.peer_port?);
        let room = self.destinations.len() < DESTINATIONS;
        (room || self.destinations.contains_key(&destination))
            .then(|| self.destinations.entry(destination).or_default())
    }

    fn add(&mut self, step: &Self) {
        self.attempts += step.attempts;
        self.first_ns = self.first_ns.min(step.first_ns);
        self.last_ns = self.last_ns.max(step.last_ns);
        for (destination, calls) in &step.destinations {
            let sum = self.destinations.entry(*destination).or_default();
            sum.attempts += calls.attempts;
            sum.established += calls.established;
        }
    }
}

type Process = (u32, u32);

pub(super) struct Fanouts {
    /// Of the run, or of the window.
    processes: Bounded<Process, Fanout>,
    /// Of each step of the window, the present one last. Empty: there is no window.
    steps: VecDeque<BTreeMap<Process, Fanout>>,
}

impl Default for Fanouts {
    fn default() -> Self {
        Self {
            processes: Bounded::new(PROCESSES),
            steps: VecDeque::new(),
        }
    }
}

impl Fanouts {
    pub(super) fn began(&mut self, c: &Connection, at_ns: u64) {
        let Some(pid) = c.pid else { return };
        let key = (c.netns, pid);
        let fresh = || Fanout::new(pid, c.comm.clone(), at_ns);
        if self.processes.get(&key).is_none() {
            self.processes.insert(key, fresh());
        }
        if let Some(fanout) = self.processes.get_mut(&key) {
            fanout.began(c, at_ns);
        }
        if let Some(step) = self.steps.back_mut()
            && (step.len() < PROCESSES || step.contains_key(&key))
        {
            step.entry(key).or_insert_with(fresh).began(c, at_ns);
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
        if let Some(calls) = fanout.calls(c).filter(|_| known) {
            calls.established += 1;
        }
        let (comm, at_ns) = (fanout.comm.clone(), fanout.last_ns);
        if let Some(step) = self.steps.back_mut().filter(|_| known)
            && (step.len() < PROCESSES || step.contains_key(&key))
        {
            // It may have begun in an earlier step.
            let fanout = step
                .entry(key)
                .or_insert_with(|| Fanout::new(pid, comm, at_ns));
            if let Some(calls) = fanout.calls(c) {
                calls.established += 1;
            }
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
    }

    pub(super) fn of(&self, c: &Connection) -> Option<&Fanout> {
        self.processes.get(&(c.netns, c.pid?))
    }
}
