//! How many destinations a process calls, and how many of them accept it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

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
#[derive(Debug, Default)]
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

pub(super) struct Fanouts(Bounded<(u32, u32), Fanout>);

impl Default for Fanouts {
    fn default() -> Self {
        Self(Bounded::new(PROCESSES))
    }
}

impl Fanouts {
    pub(super) fn began(&mut self, c: &Connection, at_ns: u64) {
        let Some(pid) = c.pid else { return };
        let key = (c.netns, pid);
        if self.0.get(&key).is_none() {
            let fresh = Fanout {
                pid,
                comm: c.comm.clone(),
                first_ns: at_ns,
                ..Fanout::default()
            };
            self.0.insert(key, fresh);
        }
        let Some(fanout) = self.0.get_mut(&key) else {
            return;
        };
        fanout.attempts += 1;
        fanout.last_ns = fanout.last_ns.max(at_ns);
        let Some(port) = c.peer_port else { return };
        let destination = (c.peer_addr, port);
        if fanout.destinations.len() < DESTINATIONS
            || fanout.destinations.contains_key(&destination)
        {
            fanout.destinations.entry(destination).or_default().attempts += 1;
        }
    }

    pub(super) fn established(&mut self, c: &Connection) {
        if let (Some(pid), Some(port)) = (c.pid, c.peer_port)
            && let Some(fanout) = self.0.get_mut(&(c.netns, pid))
            && let Some(calls) = fanout.destinations.get_mut(&(c.peer_addr, port))
        {
            calls.established += 1;
        }
    }

    pub(super) fn of(&self, c: &Connection) -> Option<&Fanout> {
        self.0.get(&(c.netns, c.pid?))
    }
}
