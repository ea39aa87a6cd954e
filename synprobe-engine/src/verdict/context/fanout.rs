//! How many destinations a process calls, and how many of them accept it.

use std::{collections::HashMap, hash::Hash, net::IpAddr, sync::Arc};

use super::windowed::{Room, Sums, Windowed};
use crate::{model::Connection, util::table_bounds::TableBounds};

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
}

impl Sums for Fanout {
    fn empty(&self) -> Self {
        Self::new(self.pid, self.comm.clone(), self.first_ns)
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

    fn kept(&self) -> usize {
        self.destinations.len()
    }
}

/// By namespace and pid.
pub(super) struct Fanouts(Windowed<(u32, u32), Fanout>);

/// How many destinations one process may have.
fn most(room: Room) -> usize {
    match room {
        Room::Ample => DESTINATIONS,
        Room::Scarce => FEW,
    }
}

impl Default for Fanouts {
    fn default() -> Self {
        Self::new(TableBounds::default().destinations)
    }
}

impl Fanouts {
    /// Without processes. `all`: destinations of all processes before each is held to [`FEW`].
    pub(super) fn new(all: usize) -> Self {
        Self(Windowed::new(PROCESSES, all))
    }

    pub(super) fn began(&mut self, c: &Connection, at_ns: u64) {
        let Some(pid) = c.pid else { return };
        let fresh = || Fanout::new(pid, c.comm.clone(), at_ns);
        let began = |fanout: &mut Fanout, room| fanout.began(c, at_ns, most(room));
        self.0.update((c.netns, pid), fresh, began);
    }

    pub(super) fn established(&mut self, c: &Connection) {
        let (Some(pid), Some(port)) = (c.pid, c.peer_port) else {
            return;
        };
        let key = (c.netns, pid);
        let destination = (c.peer_addr, port);
        let is_known = |fanout: &&Fanout| fanout.destinations.contains_key(&destination);
        let Some(known) = self.0.get(&key).filter(is_known) else {
            return;
        };
        // It may have begun in an earlier step.
        let (comm, at_ns) = (known.comm.clone(), known.last_ns);
        let fresh = || Fanout::new(pid, comm.clone(), at_ns);
        let accepted = |fanout: &mut Fanout, room| fanout.accepted(c, most(room));
        self.0.update(key, fresh, accepted);
    }

    /// A step of the window begins: what is older than the window is forgotten.
    pub(super) fn step(&mut self) {
        self.0.step();
    }

    pub(super) fn of(&self, c: &Connection) -> Option<&Fanout> {
        self.0.get(&(c.netns, c.pid?))
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
            let (of_run, of_steps) = all.0.kept_by_step();
            assert!(of_run <= 2 * (most + PROCESSES * FEW), "{of_run}");
            for of_step in of_steps {
                // The first one has what there was before.
                assert!(of_step <= most + PROCESSES * FEW, "{of_step}");
            }
            for (_, fanout) in all.0.iter() {
                let ports = fanout.closed().ports;
                assert!(ports >= FEW.min(200), "{ports}");
            }
            all.step();
        }
        assert!(all.0.iter().any(|(_, fanout)| fanout.cut));
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
