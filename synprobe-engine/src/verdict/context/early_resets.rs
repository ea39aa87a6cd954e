//! Connections that the peer reset right after their handshake, and how many completed.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{Context, Ends};
use crate::{
    model::{Connection, ConnectionReset, Handshake, Outcome, Role},
    verdict::parts::peer_counts::PeerCounts,
};

/// Places that are counted individually; more are not counted.
const PLACES: usize = 1024;
/// Resets of one place whose times and ends are kept.
const KEPT: usize = 1024;
/// Peers of one place that are counted individually.
const PEERS: usize = 1024;

/// Where connections are reset: what this host's clients call, or where its listener is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ResetPlace {
    netns: u32,
    is_server: bool,
    addr: IpAddr,
    port: u16,
    /// See [`EarlyResetSum::at_first_data`].
    at_first_data: bool,
}

/// Later than this after the handshake the RST answers the first data, microseconds.
const AT_ONCE_US: u64 = 1_000_000;

/// The resets of one place.
#[derive(Clone, Debug)]
pub struct EarlyResetSum {
    /// The first of them.
    pub first: Connection,
    /// Whether all are of the first one's process.
    pub one_process: bool,
    /// Whether all are of the first one's command, in the same unit, container and pod.
    pub one_command: bool,
    /// How many.
    pub count: u64,
    /// Those of them in which this end had sent data.
    pub with_data: u64,
    /// Those in which the peer had sent a FIN before.
    pub after_fin: u64,
    /// Those in which nothing of that was acknowledged.
    pub unacknowledged: u64,
    /// Whether the connections were older than a second, and the RST answered their first data.
    pub at_first_data: bool,
    /// The shortest and the longest time from ESTABLISHED to the RST, microseconds; from the first data where
    /// `at_first_data`.
    pub range_us: (u64, u64),
    /// Their peers.
    pub(in crate::verdict) peers: PeerCounts,
    /// The ends of the first ones.
    pub ends: Vec<Ends>,
    ages_us: Vec<u64>,
}

impl EarlyResetSum {
    fn new(first: &ConnectionReset) -> Self {
        Self {
            first: first.connection.clone(),
            one_process: true,
            one_command: true,
            count: 0,
            with_data: 0,
            after_fin: 0,
            unacknowledged: 0,
            at_first_data: is_at_first_data(first),
            range_us: (u64::MAX, 0),
            peers: PeerCounts::default(),
            ends: Vec::new(),
            ages_us: Vec::new(),
        }
    }

    fn add(&mut self, r: &ConnectionReset) {
        let c = &r.connection;
        let first = &self.first;
        self.one_process &= (c.pid, &c.comm) == (first.pid, &first.comm);
        self.one_command &= (&c.comm, &c.workload) == (&first.comm, &first.workload);
        self.count += 1;
        self.with_data += u64::from(r.bytes_sent > 0);
        self.after_fin += u64::from(r.fin_received);
        self.unacknowledged += u64::from(r.unacknowledged_us.is_some());
        let age_us = match (self.at_first_data, r.unacknowledged_us) {
            (true, Some(us)) => us,
            _ => r.age_us,
        };
        let (least, most) = self.range_us;
        self.range_us = (least.min(age_us), most.max(age_us));
        self.peers.add(c.peer_addr, 1, PEERS);
        if self.ages_us.len() < KEPT {
            self.ages_us.push(age_us);
            self.ends.extend(Ends::of(c));
        }
    }

    /// The median of the first ones, microseconds.
    pub fn median_us(&self) -> u64 {
        let mut ages_us = self.ages_us.clone();
        ages_us.sort_unstable();
        ages_us.get(ages_us.len() / 2).copied().unwrap_or(0)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct EarlyResets {
    places: BTreeMap<ResetPlace, EarlyResetSum>,
    /// Completed handshakes with a line, by role and called port.
    lines: HashMap<(Role, u16), u64>,
    /// Those that the kernel side only counted (the quiet mode).
    counted: HashMap<(Role, u16), u64>,
}

impl EarlyResets {
    pub(super) fn note(&mut self, r: &ConnectionReset) {
        let c = &r.connection;
        let is_server = c.role == Role::Server;
        let addr = if is_server { c.local_addr } else { c.peer_addr };
        let Some(port) = called_port(c) else { return };
        let place = ResetPlace {
            netns: c.netns,
            is_server,
            addr,
            port,
            at_first_data: is_at_first_data(r),
        };
        // A server that speaks first meets clients that have gone.
        if place.is_server && place.at_first_data {
            return;
        }
        if self.places.len() >= PLACES && !self.places.contains_key(&place) {
            return;
        }
        let new = || EarlyResetSum::new(r);
        self.places.entry(place).or_insert_with(new).add(r);
    }

    pub(super) fn completed(&mut self, h: &Handshake) {
        let c = &h.connection;
        if h.outcome == Outcome::Established
            && let Some(port) = called_port(c)
        {
            *self.lines.entry((c.role, port)).or_default() += 1;
        }
    }

    pub(super) fn counted(&mut self, role: Role, port: u16, count: u64) {
        self.counted.insert((role, port), count);
    }

    /// By place.
    pub(super) fn sums(&self) -> impl Iterator<Item = &EarlyResetSum> {
        self.places.values()
    }

    /// How many handshakes with the same called port completed in the run.
    pub(super) fn of_port(&self, c: &Connection) -> u64 {
        let count = |of: &HashMap<(Role, u16), u64>, port| of.get(&(c.role, port)).copied();
        called_port(c).map_or(0, |port| {
            count(&self.lines, port).unwrap_or(0) + count(&self.counted, port).unwrap_or(0)
        })
    }
}

fn is_at_first_data(r: &ConnectionReset) -> bool {
    r.age_us >= AT_ONCE_US && r.unacknowledged_us.is_some()
}

/// The port that the client calls.
fn called_port(c: &Connection) -> Option<u16> {
    match c.role {
        Role::Server => c.local_port,
        Role::Client => c.peer_port,
    }
}
impl Context {
    /// Connections that were reset right after their handshake, by the end that is called.
    pub fn early_resets(&self) -> impl Iterator<Item = &EarlyResetSum> {
        self.early_resets.sums()
    }

    /// Takes in how many handshakes of a role and called port the kernel side has only counted so far.
    pub fn counted(&mut self, role: Role, port: u16, count: u64) {
        self.early_resets.counted(role, port, count);
    }

    /// How many handshakes completed in this run whose called port is a connection's.
    pub fn completed_at_port_of(&self, c: &Connection) -> u64 {
        self.early_resets.of_port(c)
    }
}
