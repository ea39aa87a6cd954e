//! Who calls: a process, or all that differ only by their pid.
//!
//! A shell loop starts a process for each connect, and a cron job one a minute. What they have in common is the
//! command, and the unit, container and pod that they run in.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use crate::model::{Connection, Role, Workload};

/// Processes whose command is remembered; the others go by the name of the thread that calls.
const REMEMBERED: usize = 65_536;

/// Clients that are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::verdict) enum Caller {
    /// Not a client, or not known.
    Unknown,
    /// A process whose command is not known.
    Process(u32),
    /// All processes of a command in one unit, container and pod.
    Command(Arc<str>, Workload),
}

impl Caller {
    /// By this connection alone.
    fn of(c: &Connection) -> Self {
        match (&c.comm, c.pid) {
            (Some(comm), _) => Self::Command(Arc::clone(comm), c.workload.clone()),
            (None, Some(pid)) => Self::Process(pid),
            (None, None) => Self::Unknown,
        }
    }
}

/// What each process was called first: each of its threads may have a name of its own, and its container a name
/// that is known later.
#[derive(Clone, Debug, Default)]
pub(in crate::verdict) struct Callers(BTreeMap<u32, Caller>);

impl Callers {
    /// Who called.
    pub fn of(&self, c: &Connection) -> Caller {
        if c.role != Role::Client {
            return Caller::Unknown;
        }
        let known = c.pid.and_then(|pid| self.0.get(&pid));
        known.cloned().unwrap_or_else(|| Caller::of(c))
    }

    /// Remembers who called.
    pub fn note(&mut self, c: &Connection) {
        if let Some(pid) = c.pid.filter(|_| c.role == Role::Client)
            && self.0.len() < REMEMBERED
        {
            self.0.entry(pid).or_insert_with(|| Caller::of(c));
        }
    }

    /// Adds those of another, as if they had called later.
    pub fn merge(&mut self, other: &Self) {
        for (pid, caller) in &other.0 {
            if self.0.len() < REMEMBERED {
                self.0.entry(*pid).or_insert_with(|| caller.clone());
            }
        }
    }
}

/// Different processes, by their pid. Bounded.
#[derive(Clone, Debug, Default)]
pub(in crate::verdict) struct Processes {
    pids: HashSet<u32>,
    /// There was no place for one.
    is_full: bool,
}

impl Processes {
    pub fn add(&mut self, pid: u32, limit: usize) {
        if self.pids.len() < limit {
            self.pids.insert(pid);
        } else {
            self.is_full |= !self.pids.contains(&pid);
        }
    }

    pub fn merge(&mut self, other: &Self, limit: usize) {
        // In an order that no hash decides.
        let mut pids: Vec<u32> = other.pids.iter().copied().collect();
        pids.sort_unstable();
        for pid in pids {
            self.add(pid, limit);
        }
        self.is_full |= other.is_full;
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.pids.len()
    }

    /// Whether it is more than one.
    pub fn are_several(&self) -> bool {
        self.pids.len() > 1 || self.is_full
    }

    /// `the connects were made by 312 processes, such as pid 4711`; `None`: not by several.
    pub fn fact(&self, example: Option<u32>) -> Option<String> {
        if !self.are_several() {
            return None;
        }
        let at_least = if self.is_full { "at least " } else { "" };
        let n = self.pids.len().max(2);
        let example = example.map(|pid| format!(", such as pid {pid}"));
        Some(format!(
            "the connects were made by {at_least}{n} processes{}",
            example.unwrap_or_default()
        ))
    }
}
