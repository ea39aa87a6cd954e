//! What is wrong, worst first: many handshakes under one verdict, summed as they come.
//!
//! A judged handshake in trouble is in the count of exactly one problem, however many there are. All sums are
//! bounded; a problem states what its bounds left out.

#[cfg(test)]
mod caller_tests;
mod dropped;
mod explained;
mod facts;
mod group;
mod key;
mod listeners;
mod one_cause;
mod refused_silently;
#[cfg(test)]
mod tests;
pub(super) mod unexplained;

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use explained::ExplainedClients;
use group::{Group, Kept};
use key::ProblemKey;

pub(super) use one_cause::merged;

use super::{
    Context, data_unacknowledged, dropped_here, find,
    parts::{callers::Callers, found::Found},
    reset_after_handshake,
    server::{accept_slow, existing_connection, refused},
};
use crate::model::{Confidence, Handshake, Problem, Role, VerdictKind};

/// Problems that are listed each. Beyond them the smaller half is summed by verdict and role: who makes problems of one
/// connect each by the thousand hides nobody else's.
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
    callers: Callers,
    explained: ExplainedClients,
}

impl ProblemGroups {
    /// Adds a judged handshake that is in trouble.
    pub fn add(&mut self, h: &Handshake) {
        self.explained.note(h);
        self.callers.note(&h.connection);
        let key = self.key_of(h);
        self.make_room(&key);
        let limits = self.limits(&key);
        let group = self.groups.entry(key).or_insert_with(|| Group::new(h));
        let before = group.kept();
        group.add(h, limits);
        self.kept = self.kept.with(before, group.kept());
    }

    fn key_of(&self, h: &Handshake) -> ProblemKey {
        ProblemKey::of(h, self.callers.of(&h.connection))
    }

    /// Adds the sums of others, as if their handshakes had been added here.
    pub fn merge(&mut self, other: &Self) {
        let mut groups: Vec<(&ProblemKey, &Group)> = other.groups.iter().collect();
        groups.sort_unstable_by_key(|(key, _)| *key);
        self.callers.merge(&other.callers);
        for (key, group) in groups {
            self.make_room(key);
            self.merge_group(key.clone(), group);
        }
        self.explained.merge(&other.explained);
    }

    fn merge_group(&mut self, key: ProblemKey, group: &Group) {
        let limits = self.limits(&key);
        let mut before = Kept::default();
        let merged = match self.groups.get_mut(&key) {
            Some(known) => {
                before = known.kept();
                known.merge(group, limits);
                known.kept()
            }
            None => {
                self.groups.insert(key, group.clone());
                group.kept()
            }
        };
        self.kept = self.kept.with(before, merged);
    }

    /// Sums the smaller half of the groups where there is no place for a new one.
    fn make_room(&mut self, new: &ProblemKey) {
        if self.groups.len() < GROUPS || self.groups.contains_key(new) {
            return;
        }
        let own = self.groups.iter().filter(|(key, _)| !key.is_rest);
        let mut smallest: Vec<(u64, ProblemKey)> = own
            .map(|(key, group)| (group.handshakes(), key.clone()))
            .collect();
        smallest.sort_unstable();
        smallest.truncate(smallest.len().div_ceil(2));
        for (_, key) in smallest {
            if let Some(group) = self.groups.remove(&key) {
                self.kept = self.kept.with(group.kept(), Kept::default());
                self.merge_group(key.rest(), &group);
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
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
        let (of_handshakes, without) = self.found(held, context);
        ranked(merged(of_handshakes.into_iter().chain(without).collect()))
    }

    /// The same in no order: the problems of handshakes, and those that no handshake shows.
    pub(super) fn found<'h>(
        &self,
        held: impl Iterator<Item = &'h Handshake>,
        context: &Context,
    ) -> (Vec<Found>, Vec<Found>) {
        let mut whole: HashMap<ProblemKey, Vec<&Handshake>> = HashMap::new();
        let sums = |h: &&Handshake| {
            h.verdict
                .and_then(find)
                .is_some_and(|v| v.sums_handshakes())
        };
        for h in held.filter(sums) {
            whole.entry(self.key_of(h)).or_default().push(h);
        }
        let mut groups: Vec<(&ProblemKey, &Group)> = self.groups.iter().collect();
        groups.sort_by_key(|(key, _)| key.order());
        let joined = without_caller(&groups);
        let in_another: HashSet<&ProblemKey> = joined.values().collect();
        let problems: Vec<Found> = groups
            .into_iter()
            .filter(|(key, _)| !in_another.contains(key))
            .map(|(key, group)| {
                let unknown = joined.get(key);
                let group = match unknown.and_then(|unknown| self.groups.get(unknown)) {
                    Some(unknown) => Cow::Owned(group.with_unknown(unknown, MOST)),
                    None => Cow::Borrowed(group),
                };
                let kept: Vec<&Handshake> = group.whole.iter().collect();
                let mut held = whole.remove(key).unwrap_or_default();
                held.extend(
                    unknown
                        .and_then(|key| whole.remove(key))
                        .into_iter()
                        .flatten(),
                );
                // Those that are held are judged again, and mostly more.
                let whole = if held.len() < kept.len() { kept } else { held };
                Found {
                    problem: group.problem(key, &whole, context),
                    connections: group.connections().clone(),
                    called: group.called_listener(context),
                    cause: match key.verdict {
                        Some(VerdictKind::DroppedHere) => dropped_here::cause_of(&whole, context),
                        _ => None,
                    },
                }
            })
            .collect();
        let without = self.without_handshake(&problems, context);
        (problems, without)
    }

    /// What no handshake shows: dropped packets, full queues and counters. `of_handshakes`: the other problems.
    fn without_handshake(&self, of_handshakes: &[Found], context: &Context) -> Vec<Found> {
        let places = |of: &[Found], verdict| -> HashSet<(u32, Option<u16>)> {
            of.iter()
                .map(|f| &f.problem)
                .filter(|p| p.verdict == Some(verdict) && p.role == Role::Server)
                .map(|p| (p.netns, p.local_port))
                .collect()
        };
        let with_drops = places(of_handshakes, VerdictKind::DroppedHere);
        let mut problems = dropped::refused_at_the_door(&self.explained, context);
        problems.extend(existing_connection::problems(context));
        problems.extend(refused::problems(
            &|seq| self.explained.has_seq(seq),
            context,
        ));
        problems.extend(dropped::dropped_synacks(context, &with_drops));
        problems.extend(dropped::forwarded_answers(&self.explained, context));
        let mut full = places(of_handshakes, VerdictKind::AcceptQueueFull);
        for l in context.listeners() {
            let place = (l.last.netns, Some(l.last.local_port));
            // Of a group the socket that is worst off; the others are in its evidence.
            if l.was_full() && context.selects_listener(&l.last) && full.insert(place) {
                let group = context.group_of(&l.last);
                let worst = group.into_iter().max_by_key(|l| l.trouble()).unwrap_or(l);
                problems.push(Found::alone(listeners::full_listener(worst, context)));
            }
        }
        let mut closed = places(of_handshakes, VerdictKind::ListenerClosed);
        for of_close in context.closed_with_queue() {
            let l = &of_close.listener;
            let place = (l.netns, Some(l.local_port));
            if !closed.contains(&place)
                && let Some(problem) = listeners::closed_with_queue(of_close, context)
            {
                closed.insert(place);
                problems.push(Found::alone(problem));
            }
        }
        for l in context.listeners() {
            let place = (l.last.netns, Some(l.last.local_port));
            if context.selects_listener(&l.last)
                && !closed.contains(&place)
                && let Some(problem) = listeners::closed_listener(l, context)
            {
                closed.insert(place);
                problems.push(Found::alone(problem));
            }
        }
        let silent = refused_silently::refused_silently(context, |counted, netns| {
            let others = of_handshakes.iter().chain(&problems).map(|f| &f.problem);
            explained::explained(others, counted, netns)
        });
        full.extend(silent.iter().filter_map(|p| {
            let is_full = p.verdict == Some(VerdictKind::AcceptQueueFull);
            is_full.then_some((p.netns, p.local_port))
        }));
        problems.extend(silent.into_iter().map(Found::alone));
        // A full queue says more.
        let slow = accept_slow::problems(context, |place| full.contains(&place));
        problems.extend(slow.into_iter().map(Found::alone));
        problems.extend(data_unacknowledged::problems(context));
        problems.extend(reset_after_handshake::problems(context));
        problems
    }

    /// What they explain of what no handshake shows.
    pub(super) fn explained(&self) -> &ExplainedClients {
        &self.explained
    }
}

/// Connects whose process is not known, by the group that they are one problem with: the only one of the same verdict,
/// namespace and port, and not the smaller one.
fn without_caller(groups: &[(&ProblemKey, &Group)]) -> HashMap<ProblemKey, ProblemKey> {
    let mut callers: HashMap<ProblemKey, Vec<(&ProblemKey, u64)>> = HashMap::new();
    for (key, group) in groups {
        if key.role == Role::Client && key.verdict.is_some() && !key.is_rest {
            let of_place = callers.entry(key.of_anybody()).or_default();
            of_place.push((key, group.handshakes()));
        }
    }
    let joined = callers.into_iter().filter_map(|(unknown, mut keys)| {
        keys.sort_by_key(|(key, _)| **key == unknown);
        let [(known, many), (last, few)] = keys[..] else {
            return None;
        };
        (*last == unknown && many >= few).then(|| (known.clone(), unknown))
    });
    joined.collect()
}

/// Worst first.
pub(super) fn ranked(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|p| {
        (
            p.verdict.is_none(),
            !p.verdict.and_then(find).is_none_or(|v| v.is_fault())
                || reset_after_handshake::is_usual(p),
            Reverse(weight(p)),
        )
    });
    for (rank, problem) in (1..).zip(&mut problems) {
        problem.rank = rank;
    }
    problems
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
