//! Which ports have a label of their own. Once a port is in `port="other"`, it stays there: else the counters of
//! `other` would go back.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::buckets;
use crate::{
    engine::{ConfidenceRank, EngineSnapshot, PortKey, PortTotals},
    model::{Outcome, Role, VerdictKind},
};

/// The label of ports without one of their own.
pub(super) const OTHER: &str = "other";
/// Series that all ports with a label of their own may have together.
const SERIES: usize = 1400;
/// Series of a server's port: the histogram of durations, the outcomes, half-opens, the listener.
const OF_SERVER: usize = buckets::SERIES + 5 + 2 + 5;
/// Series of a client's port.
const OF_CLIENT: usize = buckets::SERIES + Outcome::ALL.len() - 1 + 2;
/// The mode in which accept() can be seen: a port has a histogram of its waits too.
const SEES_ACCEPT: &str = "exact (fentry)";
/// Series of verdicts that have the label of their port.
const VERDICTS: usize = 160;
/// Ports in `other` that are counted.
const COUNTED: usize = 1 << 17;

/// See the module.
#[derive(Default)]
pub(super) struct PortLabels {
    own: BTreeSet<(Role, u16)>,
    series: usize,
    limited: BTreeSet<(Role, u16)>,
    /// The engine has ports that it does not tell apart.
    beyond: BTreeSet<Role>,
    verdicts: BTreeSet<VerdictSeries>,
    limited_verdicts: BTreeSet<VerdictSeries>,
}

/// Role, port, verdict, confidence.
pub(super) type VerdictSeries = (Role, u16, VerdictKind, ConfidenceRank);

impl PortLabels {
    /// Gives ports that are new a label of their own while there is room, those with most handshakes first.
    pub fn admit(&mut self, ports: &BTreeMap<PortKey, PortTotals>, snapshot: &EngineSnapshot) {
        let mut found: BTreeMap<(Role, u16), u64> = BTreeMap::new();
        for ((role, port), totals) in ports {
            match port {
                Some(port) => {
                    *found.entry((*role, *port)).or_default() +=
                        totals.outcomes.iter().sum::<u64>();
                }
                None => {
                    self.beyond.insert(*role);
                }
            }
        }
        for state in &snapshot.ports {
            if let Some(port) = state.port {
                *found.entry((state.role, port)).or_default() += state.open;
            }
        }
        for listener in &snapshot.listeners {
            found
                .entry((Role::Server, listener.local_port))
                .or_default();
        }
        let mut fresh: Vec<((Role, u16), u64)> = found
            .into_iter()
            .filter(|(key, _)| !self.own.contains(key) && !self.limited.contains(key))
            .collect();
        let of_accept = match &*snapshot.start.mode == SEES_ACCEPT {
            true => buckets::OF_WAITS,
            false => 0,
        };
        fresh.sort_by_key(|(key, handshakes)| (Reverse(*handshakes), *key));
        for (key, _) in fresh {
            let cost = match key.0 {
                Role::Server => OF_SERVER + of_accept,
                Role::Client => OF_CLIENT,
            };
            // What found no place once finds none later: the room never grows.
            if self.limited.is_empty() && self.series + cost <= SERIES {
                self.series += cost;
                self.own.insert(key);
            } else if self.limited.len() < COUNTED {
                self.limited.insert(key);
            }
        }
    }

    /// The label of a port; `None`: it is not known.
    pub fn label(&self, role: Role, port: Option<u16>) -> String {
        match port.filter(|port| self.own.contains(&(role, *port))) {
            Some(port) => port.to_string(),
            None => OTHER.to_owned(),
        }
    }

    /// The label of the port in a verdict's series. Each such series has a place of its own.
    pub fn of_verdict(&mut self, series: VerdictSeries) -> String {
        let (role, port, ..) = series;
        let own = self.own.contains(&(role, port));
        if own && self.verdicts.len() < VERDICTS {
            self.verdicts.insert(series);
        }
        match self.verdicts.contains(&series) {
            true => port.to_string(),
            false => {
                if own {
                    self.limited_verdicts.insert(series);
                }
                OTHER.to_owned()
            }
        }
    }

    /// The ports of a role that have a label of their own.
    pub fn own(&self, role: Role) -> impl Iterator<Item = u16> {
        let all = self.own.iter().filter(move |(of, _)| *of == role);
        all.map(|(_, port)| *port)
    }

    /// Roles and ports that are in `other`.
    pub fn limited_total(&self) -> u64 {
        (self.limited.len() + self.beyond.len() + self.limited_verdicts.len()) as u64
    }
}
