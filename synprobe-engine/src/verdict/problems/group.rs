//! The running sums of one problem.

use std::collections::{BTreeMap, HashSet};

use super::{facts::FactCounts, key::ProblemKey};
use crate::{
    model::{
        Confidence, Evidence, Handshake, OpenReason, Outcome, Problem, Role, VerdictKind, Workload,
    },
    util::format,
    verdict::{
        Context,
        context::{Ends, connections},
        find,
        parts::{
            callers::Processes,
            found::{connection_hash, pro},
            peer_counts::PeerCounts,
        },
        times,
    },
};

/// How much groups keep, or may keep.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// Different facts.
    pub facts: usize,
    /// Different peers, different connections, and different processes.
    pub peers: usize,
    /// Whole handshakes.
    pub whole: usize,
}

impl Kept {
    /// The sum of all groups, once one of them has changed.
    pub fn with(self, before: Self, after: Self) -> Self {
        Self {
            facts: self.facts + after.facts - before.facts,
            peers: self.peers + after.peers - before.peers,
            whole: self.whole + after.whole - before.whole,
        }
    }
}

/// Different connections, by their hash. Bounded.
#[derive(Clone, Debug, Default)]
struct Connections {
    seen: HashSet<u64>,
    /// There was no place for one: their number is not known.
    is_full: bool,
}

impl Connections {
    fn add(&mut self, h: &Handshake, limit: usize) {
        // A client without a local port has no connection yet.
        let Some(ends) = Ends::of(&h.connection) else {
            return;
        };
        let hash = connection_hash(&ends);
        match self.seen.len() < limit || self.seen.contains(&hash) {
            true => {
                self.seen.insert(hash);
            }
            false => self.is_full = true,
        }
    }

    fn merge(&mut self, other: &Self, limit: usize) {
        let mut hashes: Vec<u64> = other.seen.iter().copied().collect();
        hashes.sort_unstable();
        for hash in hashes {
            match self.seen.len() < limit || self.seen.contains(&hash) {
                true => {
                    self.seen.insert(hash);
                }
                false => self.is_full = true,
            }
        }
        self.is_full |= other.is_full;
    }

    fn count(&self) -> Option<u64> {
        (!self.is_full).then_some(self.seen.len() as u64)
    }
}

/// The longest dwell of a group, and how well it is known.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    /// The longest that is known, and the bound of its error.
    known_us: Option<(u64, u64)>,
    /// The largest lower bound of those that are not known.
    at_least_us: Option<u64>,
}

impl Longest {
    fn add(&mut self, h: &Handshake) {
        let dwell = h.dwell_us.map(|us| (us, h.dwell_error_us.unwrap_or(0)));
        self.known_us = self.known_us.max(dwell);
        self.at_least_us = self.at_least_us.max(h.dwell_at_least_us);
    }

    /// With its error where that shows in the first three digits.
    fn text(&self) -> Option<String> {
        match (self.known_us, self.at_least_us) {
            (known, Some(us)) if known.is_none_or(|(known, _)| known < us) => {
                Some(format!("at least {}", format::duration(us)))
            }
            (Some((us, error)), _) if error > us / 100 => Some(format!(
                "{} ± {}",
                format::duration(us),
                format::duration(error)
            )),
            (Some((us, _)), _) => Some(format::duration(us)),
            (None, _) => None,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The first of those whose verdict is the surest.
    pub surest: Box<Handshake>,
    handshakes: u64,
    certain: u64,
    still_open: u64,
    outcomes: BTreeMap<&'static str, u64>,
    longest: Longest,
    /// The least and the most SYNs or SYN-ACKs that were retransmitted.
    retransmits: (u32, u32),
    /// Handshakes whose peer repeated its SYN.
    repeated: u64,
    connections: Connections,
    peers: PeerCounts,
    /// Client: the callers.
    processes: Processes,
    /// Of a group with a caller: handshakes whose caller is not known.
    unknown: u64,
    facts: FactCounts,
    /// The first of them, whole.
    pub whole: Vec<Handshake>,
}

/// The surest first.
fn doubt(confidence: Confidence) -> u8 {
    match confidence {
        Confidence::Certain => 0,
        Confidence::Likely => 1,
        Confidence::Insufficient => 2,
    }
}

/// The outcome, in words; why one is open makes a difference.
fn outcome(h: &Handshake) -> &'static str {
    match (h.outcome, h.open_reason) {
        (_, Some(OpenReason::Evicted)) => "evicted",
        (_, Some(OpenReason::EndNotSeen)) => "end not seen",
        (Outcome::TimedOut, _) => "timed out",
        (other, _) => other.name(),
    }
}

impl Group {
    /// Of the first handshake, which has still to be added.
    pub fn new(first: &Handshake) -> Self {
        Self {
            surest: Box::new(first.clone()),
            handshakes: 0,
            certain: 0,
            still_open: 0,
            outcomes: BTreeMap::new(),
            longest: Longest::default(),
            retransmits: (u32::MAX, 0),
            repeated: 0,
            connections: Connections::default(),
            peers: PeerCounts::default(),
            processes: Processes::default(),
            unknown: 0,
            facts: FactCounts::default(),
            whole: Vec::new(),
        }
    }

    /// How many handshakes it has.
    pub fn handshakes(&self) -> u64 {
        self.handshakes
    }

    /// What it keeps.
    pub fn kept(&self) -> Kept {
        Kept {
            facts: self.facts.len(),
            peers: self.peers.len() + self.connections.seen.len() + self.processes.len(),
            whole: self.whole.len(),
        }
    }

    /// Adds a judged handshake.
    pub fn add(&mut self, h: &Handshake, limits: Kept) {
        if doubt(h.confidence) < doubt(self.surest.confidence) {
            *self.surest = h.clone();
        }
        self.handshakes += 1;
        self.certain += u64::from(h.confidence == Confidence::Certain);
        self.still_open += u64::from(h.is_still_open());
        *self.outcomes.entry(outcome(h)).or_default() += 1;
        self.longest.add(h);
        let (least, most) = self.retransmits;
        self.retransmits = (least.min(h.retransmits), most.max(h.retransmits));
        self.repeated += u64::from(h.repeated_syns() > 0);
        self.connections.add(h, limits.peers);
        self.peers.add(h.connection.peer_addr, 1, limits.peers);
        let pid = h
            .connection
            .pid
            .filter(|_| h.connection.role == Role::Client);
        if let Some(pid) = pid {
            self.processes.add(pid, limits.peers);
        }
        self.facts.add(&h.evidence, limits.facts);
        if self.whole.len() < limits.whole {
            self.whole.push(h.clone());
        }
    }

    /// Adds the sums of another group of the same key.
    pub fn merge(&mut self, other: &Self, limits: Kept) {
        if doubt(other.surest.confidence) < doubt(self.surest.confidence) {
            self.surest = other.surest.clone();
        }
        self.handshakes += other.handshakes;
        self.certain += other.certain;
        self.still_open += other.still_open;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        let longest = other.longest;
        self.longest.known_us = self.longest.known_us.max(longest.known_us);
        self.longest.at_least_us = self.longest.at_least_us.max(longest.at_least_us);
        let (least, most) = other.retransmits;
        self.retransmits = (self.retransmits.0.min(least), self.retransmits.1.max(most));
        self.repeated += other.repeated;
        self.connections.merge(&other.connections, limits.peers);
        self.peers.merge(&other.peers, limits.peers);
        self.processes.merge(&other.processes, limits.peers);
        self.unknown += other.unknown;
        self.facts.merge(&other.facts, limits.facts);
        let room = limits.whole.saturating_sub(self.whole.len());
        self.whole.extend(other.whole.iter().take(room).cloned());
    }

    /// With those like them whose caller is not known: they have the same cause.
    pub fn with_unknown(&self, unknown: &Self, limits: Kept) -> Self {
        let mut both = self.clone();
        both.merge(unknown, limits);
        both.unknown = unknown.handshakes;
        let (whose, c) = (&self.surest.connection, &mut both.surest.connection);
        (c.pid, c.comm, c.workload) = (whose.pid, whose.comm.clone(), whose.workload.clone());
        both
    }

    /// Its connections, as far as there was room, by [`connection_hash`].
    pub fn connections(&self) -> &HashSet<u64> {
        &self.connections.seen
    }

    /// The listener that its clients called, where that is on this host: namespace and port.
    pub fn called_listener(&self, context: &Context) -> Option<(u32, u16)> {
        let c = &self.surest.connection;
        let called = context
            .called_listener(c)
            .filter(|_| c.role == Role::Client)?;
        Some((called.last.netns, called.last.local_port))
    }

    /// As a problem. `whole`: those of its handshakes that are still there, from the first on.
    pub fn problem(&self, key: &ProblemKey, whole: &[&Handshake], context: &Context) -> Problem {
        let mut evidence = vec![pro(self.summary())];
        evidence.extend(self.processes.fact(self.surest.connection.pid).map(pro));
        if self.unknown > 0 {
            let n = self.unknown;
            evidence.push(pro(format!("the process of {n} of them is not known")));
        }
        if self.certain > 0 && self.certain < self.handshakes {
            evidence.push(pro(format!(
                "seen itself in {} of them, the likeliest reason for the others",
                self.certain
            )));
        }
        evidence.extend(self.quoted(key, whole, context));
        evidence.extend(self.peers.left_out().map(pro));
        if key.is_rest {
            evidence.push(pro(
                "these are of several ports, processes or namespaces: there are too many to list each"
                    .to_owned(),
            ));
        }
        let (peers, peers_more) = self.peers.most();
        let surest = &self.surest;
        let c = &surest.connection;
        let is_server = key.role == Role::Server && !key.is_rest;
        let listener = context.listener(c).filter(|_| is_server);
        // The socket that is full, not the one that a half-open may have been on.
        let full = listener
            .filter(|l| key.verdict == Some(VerdictKind::AcceptQueueFull) && l.was_full())
            .map(|l| (l.last.pid, l.last.comm.clone(), l.last.workload.clone()));
        let (pid, comm, workload) =
            full.unwrap_or_else(|| (c.pid, c.comm.clone(), c.workload.clone()));
        let one_process = !key.is_rest && !self.processes.are_several();
        Problem {
            rank: 0,
            verdict: key.verdict,
            confidence: surest.confidence,
            role: key.role.into(),
            forward: None,
            netns: c.netns,
            netns_name: c.netns_name.clone(),
            local_addr: is_server.then(|| listener.map_or(c.local_addr, |l| l.last.local_addr)),
            local_port: key.port.filter(|_| key.role == Role::Server),
            peer_port: key.port.filter(|_| key.role == Role::Client),
            pid: pid.filter(|_| one_process),
            comm: comm.filter(|_| !key.is_rest),
            workload: match key.is_rest {
                true => Workload::default(),
                false => workload,
            },
            handshakes: self.handshakes,
            open: self.still_open,
            peers,
            peers_more,
            evidence,
            remedy: surest.remedy.clone(),
            effects: Vec::new(),
            life: Default::default(),
        }
    }

    /// The verdict's own sums over whole handshakes, or the facts that they share.
    fn quoted(&self, key: &ProblemKey, whole: &[&Handshake], context: &Context) -> Vec<Evidence> {
        let summed = key
            .verdict
            .and_then(find)
            .filter(|_| !whole.is_empty())
            .and_then(|v| v.facts_of_many(whole, context));
        let Some(mut summed) = summed else {
            return self.facts.quoted(self.handshakes);
        };
        let counted = whole.len() as u64;
        if counted < self.handshakes {
            for e in &mut summed {
                e.fact
                    .push_str(&format!(" (counted in {counted} of the handshakes)"));
            }
        }
        summed
    }

    /// `307 half-opens: 290 open, 17 expired; the longest 48.0 s; retransmitted 1 to 5 times`
    fn summary(&self) -> String {
        let mut outcomes: Vec<_> = self.outcomes.iter().collect();
        outcomes.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let outcomes: Vec<String> = outcomes.iter().map(|(o, n)| format!("{n} {o}")).collect();
        let role = self.surest.connection.role;
        let what = match (role, self.handshakes) {
            (Role::Server, 1) => "half-open",
            (Role::Server, _) => "half-opens",
            (Role::Client, 1) => "connect",
            (Role::Client, _) => "connects",
        };
        let of = match self.connections.count() {
            // A peer that repeats its SYN after its half-open has ended makes another one.
            Some(n) if role == Role::Server && n < self.handshakes => {
                format!(" of {}", connections(n))
            }
            _ => String::new(),
        };
        let mut text = format!("{} {what}{of}: {}", self.handshakes, outcomes.join(", "));
        if let Some(longest) = self.longest.text() {
            text.push_str(&format!("; the longest {longest}"));
        }
        match self.retransmits {
            (_, 0) => (),
            (a, b) if a == b => text.push_str(&format!("; retransmitted {}", times(a))),
            (a, b) => text.push_str(&format!("; retransmitted {a} to {b} times")),
        }
        if self.repeated > 0 {
            text.push_str(&format!("; {} whose peer repeated its SYN", self.repeated));
        }
        text
    }
}
