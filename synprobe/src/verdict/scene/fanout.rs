//! How many destinations a process calls, and how many of them let it in.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use crate::{model::Connection, track::Bounded};

/// Processes remembered.
const PROCESSES: usize = 1024;
/// Destinations told apart for each.
const DESTINATIONS: usize = 4096;

/// What one process has called.
#[derive(Debug, Default)]
pub struct Fanout {
    /// Handshakes begun.
    pub attempts: u64,
    /// Handshakes established.
    pub established: u64,
    /// Addresses called.
    pub addresses: HashSet<IpAddr>,
    /// Addresses and ports called.
    pub destinations: HashSet<(IpAddr, u16)>,
    /// Ports called.
    pub ports: HashSet<u16>,
    /// Its name.
    pub comm: Option<Arc<str>>,
    /// Its pid.
    pub pid: u32,
    first_ns: u64,
    last_ns: u64,
}

impl Fanout {
    /// Attempts a second, from the first to the last; 0 where there are too few to tell.
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
        if fanout.destinations.len() < DESTINATIONS
            && let Some(port) = c.peer_port
        {
            fanout.destinations.insert((c.peer_addr, port));
            fanout.addresses.insert(c.peer_addr);
            fanout.ports.insert(port);
        }
    }

    pub(super) fn ended(&mut self, c: &Connection, established: bool, _at_ns: u64) {
        if let Some(pid) = c.pid
            && established
            && let Some(fanout) = self.0.get_mut(&(c.netns, pid))
        {
            fanout.established += 1;
        }
    }

    pub(super) fn of(&self, c: &Connection) -> Option<&Fanout> {
        self.0.get(&(c.netns, c.pid?))
    }
}
