//! A problem, and what ties it to others.

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use crate::{
    model::{Confidence, Evidence, Listener, Problem, ProblemRole, VerdictKind},
    verdict::context::Ends,
};

/// A connection, whichever end names it.
pub(in crate::verdict) fn connection_hash(ends: &Ends) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(ends)
}

/// A problem, and what ties it to others.
#[derive(Clone)]
pub(in crate::verdict) struct Found {
    pub problem: Problem,
    /// Its connections, by [`connection_hash`].
    pub connections: HashSet<u64>,
    /// The listener that its clients called, where that is on this host: namespace and port.
    pub called: Option<(u32, u16)>,
    /// What dropped its packets, where it is one thing: see `Context::cause_of_drops()`.
    pub cause: Option<(u32, String)>,
}

impl Found {
    /// A problem of the connections with these ends.
    pub fn of(problem: Problem, ends: impl IntoIterator<Item = Ends>) -> Self {
        Self {
            problem,
            connections: ends
                .into_iter()
                .map(|ends| connection_hash(&ends))
                .collect(),
            called: None,
            cause: None,
        }
    }

    /// A problem whose connections are not known.
    pub fn alone(problem: Problem) -> Self {
        Self::of(problem, [])
    }
}

/// A problem of a listener itself, likely: no handshake and no packet shows it.
pub(in crate::verdict) fn of_listener(
    l: &Listener,
    verdict: VerdictKind,
    handshakes: u64,
    evidence: Vec<Evidence>,
    remedy: String,
) -> Problem {
    Problem {
        rank: 0,
        verdict: Some(verdict),
        confidence: Confidence::Likely,
        role: ProblemRole::Server,
        forward: None,
        netns: l.netns,
        netns_name: l.netns_name.clone(),
        local_addr: Some(l.local_addr),
        local_port: Some(l.local_port),
        peer_port: None,
        pid: l.pid,
        comm: l.comm.clone(),
        workload: l.workload.clone(),
        handshakes,
        open: 0,
        peers: Vec::new(),
        peers_more: 0,
        evidence,
        remedy: Some(remedy),
        effects: Vec::new(),
        life: Default::default(),
    }
}

pub(in crate::verdict) fn contra(fact: String) -> Evidence {
    Evidence {
        fact,
        supports: false,
    }
}

pub(in crate::verdict) fn pro(fact: String) -> Evidence {
    Evidence {
        fact,
        supports: true,
    }
}
