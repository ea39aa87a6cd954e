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
pub(super) struct Processes {
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            MOST, ProblemGroups,
            group::{Group, Kept},
            key::ProblemKey,
        },
        *,
    };
    use crate::{
        model::{Confidence, Handshake, Outcome, Problem, VerdictKind, WorkloadNames},
        verdict::{Context, fixtures::*},
    };

    /// A refused connect of this process.
    fn refused_of(pid: u32, comm: &str) -> Handshake {
        let mut h = active(Outcome::Refused);
        (h.verdict, h.confidence) = (Some(VerdictKind::Refused), Confidence::Certain);
        (h.connection.pid, h.connection.comm) = (Some(pid), Some(comm.into()));
        h.connection.local_port = Some(10_000 + pid as u16 % 50_000);
        h
    }

    fn problems_of(all: impl IntoIterator<Item = Handshake>) -> Vec<Problem> {
        let mut groups = ProblemGroups::default();
        for h in all {
            groups.add(&h);
        }
        groups.problems(std::iter::empty(), &Context::default())
    }

    fn says(p: &Problem, fact: &str) -> bool {
        p.evidence.iter().any(|e| e.fact == fact)
    }

    #[test]
    fn clients_that_differ_by_their_pid_are_one_problem() {
        let found = problems_of((1..=300).map(|pid| refused_of(pid, "curl")));
        let [p] = &found[..] else {
            panic!("{found:#?}");
        };
        assert_eq!((p.handshakes, p.pid), (300, None));
        assert_eq!(p.comm.as_deref(), Some("curl"));
        let fact = "the connects were made by 300 processes, such as pid 1";
        assert!(says(p, fact), "{:?}", p.evidence);

        // One process keeps its pid, and nothing is said of processes.
        let found = problems_of((0..3).map(|_| refused_of(7, "curl")));
        assert_eq!((found.len(), found[0].pid), (1, Some(7)));
        let all: Vec<_> = found[0].evidence.iter().map(|e| &*e.fact).collect();
        assert!(all.iter().all(|f| !f.contains("processes")), "{all:?}");
    }

    #[test]
    fn clients_that_differ_by_more_than_their_pid_are_several() {
        let in_unit = |mut h: Handshake, unit: &str| {
            let names = WorkloadNames {
                unit: Some(unit.into()),
                ..WorkloadNames::default()
            };
            h.connection.workload = Workload(Some(names.into()));
            h
        };
        let to_port = |mut h: Handshake, port| {
            h.connection.peer_port = Some(port);
            h
        };
        let all = [
            refused_of(1, "curl"),
            refused_of(2, "wget"),
            in_unit(refused_of(3, "curl"), "a.service"),
            in_unit(refused_of(4, "curl"), "b.service"),
            to_port(refused_of(5, "curl"), 81),
            in_unit(refused_of(6, "curl"), "b.service"),
        ];
        let found = problems_of(all);
        let mut handshakes: Vec<_> = found.iter().map(|p| (p.handshakes, p.pid)).collect();
        handshakes.sort_unstable();
        let alone = [1, 2, 3, 5].map(|pid| (1, Some(pid)));
        assert_eq!(handshakes[..4], alone);
        assert_eq!(handshakes[4..], [(2, None)]);

        // Nothing is known of these but their pid.
        let unnamed = [1, 2].map(|pid| {
            let mut h = refused_of(pid, "");
            h.connection.comm = None;
            h
        });
        assert_eq!(problems_of(unnamed).len(), 2);
    }

    #[test]
    fn a_process_whose_threads_have_names_is_one() {
        let threads = (0..20).map(|n| refused_of(7, &format!("worker-{n}")));
        let found = problems_of(threads);
        let [p] = &found[..] else {
            panic!("{found:#?}");
        };
        assert_eq!((p.handshakes, p.pid), (20, Some(7)));
    }

    #[test]
    fn how_many_processes_is_a_lower_bound_beyond_the_bound() {
        let mut group = Group::new(&refused_of(1, "curl"));
        let limits = Kept { peers: 5, ..MOST };
        for pid in 1..=8 {
            group.add(&refused_of(pid, "curl"), limits);
        }
        let key = ProblemKey::of(&refused_of(1, "curl"), Caller::Unknown);
        let p = group.problem(&key, &[], &Context::default());
        let fact = "the connects were made by at least 5 processes, such as pid 1";
        assert!(says(&p, fact), "{:?}", p.evidence);
        assert_eq!(p.pid, None);
    }
}
