//! What is wrong, worst first: many handshakes under one verdict, summed as they come.
//!
//! A judged handshake in trouble is in the count of exactly one problem, however many there are. All sums are
//! bounded; a problem states what its bounds left out.

mod facts;
mod group;
mod key;
mod one_cause;
mod peers;
#[cfg(test)]
mod tests;
mod without_handshake;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use group::{Group, Kept};
use key::ProblemKey;
use one_cause::Found;

pub(super) use peers::PeerCounts;

use super::{Context, data_unacknowledged, find};
use crate::model::{Confidence, Evidence, Handshake, Problem, VerdictKind};

/// Problems that are listed each; what exceeds them is summed by verdict and role.
const GROUPS: usize = 4096;
/// What all groups together keep before each is held to [`FEW`]. There is room for all peers and
/// connections of the handshakes that are held back, so their numbers are exact.
const ALL: Kept = Kept {
    facts: 65_536,
    peers: 262_144,
    whole: 4096,
};
/// The most that one group keeps.
const MOST: Kept = Kept {
    facts: 1024,
    peers: 65_536,
    whole: 256,
};
/// The most that one group keeps once all together have reached [`ALL`].
const FEW: Kept = Kept {
    facts: 16,
    peers: 64,
    whole: 0,
};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct ProblemGroups {
    groups: HashMap<ProblemKey, Group>,
    /// In all of them together.
    kept: Kept,
}

impl ProblemGroups {
    /// Adds a judged handshake that is in trouble.
    pub fn add(&mut self, h: &Handshake) {
        let mut key = ProblemKey::of(h);
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&key) {
            key = key.rest();
        }
        let limits = self.limits(&key);
        let group = self.groups.entry(key).or_insert_with(|| Group::new(h));
        let before = group.kept();
        group.add(h, limits);
        self.kept = self.kept.with(before, group.kept());
    }

    /// How much a group may keep.
    fn limits(&self, key: &ProblemKey) -> Kept {
        let sums = key
            .verdict
            .and_then(find)
            .is_some_and(|v| v.sums_handshakes());
        let limit = |all: fn(&Kept) -> usize| match all(&self.kept) < all(&ALL) {
            true => all(&MOST),
            false => all(&FEW),
        };
        Kept {
            facts: limit(|kept| kept.facts),
            peers: limit(|kept| kept.peers),
            whole: if sums { limit(|kept| kept.whole) } else { 0 },
        }
    }

    /// What is wrong, worst first. `held`: handshakes that were added and are still there, whole. Listeners
    /// without a half-open, and SYNs that this host dropped, are problems too.
    pub fn problems<'h>(
        &self,
        held: impl Iterator<Item = &'h Handshake>,
        context: &Context,
    ) -> Vec<Problem> {
        let mut whole: HashMap<ProblemKey, Vec<&Handshake>> = HashMap::new();
        let sums = |h: &&Handshake| {
            h.verdict
                .and_then(find)
                .is_some_and(|v| v.sums_handshakes())
        };
        for h in held.filter(sums) {
            whole.entry(ProblemKey::of(h)).or_default().push(h);
        }
        let mut groups: Vec<(&ProblemKey, &Group)> = self.groups.iter().collect();
        groups.sort_by_key(|(key, _)| key.order());
        let mut found: Vec<Found> = groups
            .into_iter()
            .map(|(key, group)| {
                let kept: Vec<&Handshake> = group.whole.iter().collect();
                let held = whole.remove(key).unwrap_or_default();
                // Those that are held are judged again, and mostly more.
                let whole = if held.len() < kept.len() { kept } else { held };
                Found {
                    problem: group.problem(key, &whole, context),
                    connections: group.connections().clone(),
                    called: group.called_listener(context),
                }
            })
            .collect();
        found.extend(without_handshake::refused_at_the_door(self, context));
        let listed: HashSet<(u32, Option<u16>)> = found
            .iter()
            .map(|f| &f.problem)
            .filter(|p| p.verdict == Some(VerdictKind::AcceptQueueFull))
            .map(|p| (p.netns, p.local_port))
            .collect();
        let silent = context.listeners().filter(|l| {
            let place = (l.last.netns, Some(l.last.local_port));
            l.was_full() && !listed.contains(&place) && context.selects_listener(&l.last)
        });
        let lone = silent.map(|l| without_handshake::full_listener(l, context));
        let lone = lone.chain(data_unacknowledged::problems(context));
        found.extend(lone.map(|problem| Found {
            problem,
            connections: HashSet::new(),
            called: None,
        }));
        let mut problems = one_cause::merged(found);
        problems.sort_by_key(|p| {
            (
                p.verdict.is_none(),
                !p.verdict.and_then(find).is_none_or(|v| v.is_fault()),
                Reverse(weight(p)),
            )
        });
        for (rank, problem) in (1..).zip(&mut problems) {
            problem.rank = rank;
        }
        problems
    }

    /// What people call a namespace, where a handshake of a group has it.
    fn netns_name(&self, netns: u32) -> Option<std::sync::Arc<str>> {
        let connections = self.groups.values().map(|group| &group.surest.connection);
        // The oldest: not the one that a hash puts first.
        let known = connections
            .filter(|c| c.netns == netns)
            .min_by_key(|c| c.id)?;
        known.netns_name.clone()
    }
}

/// How bad it is: how many it concerns, half as much where it is only likely.
fn weight(p: &Problem) -> u64 {
    let sure = if p.confidence == Confidence::Certain {
        2
    } else {
        1
    };
    // A handshake that completed late weighs less.
    let late = matches!(
        p.verdict,
        Some(VerdictKind::SlowPeer | VerdictKind::SynLostThenOk | VerdictKind::FlashCrowd)
    );
    p.handshakes * sure * if late { 1 } else { 4 }
}

pub(super) fn pro(fact: String) -> Evidence {
    Evidence {
        fact,
        supports: true,
    }
}
