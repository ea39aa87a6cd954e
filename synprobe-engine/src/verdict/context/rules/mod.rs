//! Which rule of the packet filter dropped a packet: what was read of the rules, compared with what was dropped.
//!
//! A rule is named where it alone can have done it. Others are ruled out because a condition does not fit the
//! packet, or because their own counter did not rise while it was dropped. What is left are candidates.

mod fits;
mod walk;
mod words;

use std::collections::{BTreeMap, VecDeque};

use super::{Context, DroppedPacket, forwarding::question};
use crate::{
    model::{FilterBackend, FilterChain, FilterFound, FilterReading, Ruleset},
    util::bounded::Bounded,
};
pub use words::RuleWords;

use fits::{DroppedHeaders, LeavesBy};
use walk::{PacketWay, RuleAt, walk};

/// Readings remembered of one namespace.
const READINGS: usize = 8;
/// Namespaces whose rules are remembered.
const NAMESPACES: usize = 64;
/// Drops of one namespace that are compared with counters between two readings.
const DROPS: usize = 256;
/// Rules that these are compared with, at most, all drops together.
const COMPARISONS: usize = 500_000;
/// Rules are read again after this time at the earliest, nanoseconds.
const PAUSE_NS: u64 = 2_000_000_000;
/// And after this many times the duration of the last reading.
const PAUSE: u64 = 50;

/// What is known of the rules of one namespace.
#[derive(Default)]
struct KnownRules {
    /// Oldest first; all of the same rules, which only their counters tell apart.
    readings: VecDeque<RulesAt>,
    /// The rules have changed: older readings are gone.
    changed: bool,
    /// The last reading failed.
    refused: Option<FilterFound>,
    asked: bool,
    /// Rules were read for a drop, and not only at the beginning of the run.
    read_for_drop: bool,
    /// Drops by the packet filter since the last reading.
    drops: Vec<DroppedPacket>,
    /// How many drops between the first and the last reading each rule can have done.
    seen: BTreeMap<RuleAt, u64>,
    /// There were too many to count.
    uncounted: bool,
    last_drop_ns: u64,
}

/// The rules as they were at one time.
struct RulesAt {
    before_ns: u64,
    at_ns: u64,
    rules: Ruleset,
}

/// Namespaces outside the selection that are read at a time. They must not delay those of the selection: rules may
/// change meanwhile.
const OTHERS: usize = 2;

#[derive(Default)]
pub(super) struct FilterRules(Option<Bounded<u32, KnownRules>>);

impl FilterRules {
    fn of(&mut self, netns: u32) -> Option<&mut KnownRules> {
        let all = self.0.get_or_insert_with(|| Bounded::new(NAMESPACES));
        if all.get(&netns).is_none() {
            all.insert(netns, KnownRules::default());
        }
        all.get_mut(&netns)
    }

    fn known(&self, netns: u32) -> Option<&KnownRules> {
        self.0.as_ref()?.get(&netns)
    }
}

impl KnownRules {
    fn note(&mut self, reading: FilterReading) {
        self.read_for_drop |= std::mem::take(&mut self.asked);
        let rules = match reading.found {
            FilterFound::Rules(rules) => rules,
            other => {
                self.refused = Some(other);
                return;
            }
        };
        self.refused = None;
        let last = self.readings.back();
        if last.is_some_and(|last| !is_same(&last.rules, &rules)) {
            self.readings.clear();
            self.seen.clear();
            self.drops.clear();
            self.uncounted = false;
            self.changed = true;
        }
        if self.readings.len() >= READINGS {
            // The first and the last say most.
            self.readings.remove(READINGS / 2);
        }
        self.readings.push_back(RulesAt {
            before_ns: reading.before_ns,
            at_ns: reading.at_ns,
            rules,
        });
    }

    fn wants(&self, is_last: bool) -> bool {
        if self.asked || self.refused.is_some() || self.last_drop_ns == 0 {
            return false;
        }
        let Some(last) = self.readings.back() else {
            return true;
        };
        let pause = PAUSE_NS.max(last.at_ns.saturating_sub(last.before_ns) * PAUSE);
        let since = self.last_drop_ns.saturating_sub(last.at_ns);
        let is_due = is_last || !self.read_for_drop || since >= pause;
        is_due && self.last_drop_ns >= last.before_ns
    }

    /// The readings just around a moment.
    fn around(&self, at_ns: u64) -> Option<(&RulesAt, &RulesAt)> {
        let before = self.readings.iter().rev().find(|r| r.at_ns < at_ns)?;
        let after = self.readings.iter().find(|r| r.before_ns > at_ns)?;
        Some((before, after))
    }

    /// The first and the last reading.
    fn widest(&self) -> Option<(&RulesAt, &RulesAt)> {
        let both = self.readings.front().zip(self.readings.back())?;
        (self.readings.len() > 1).then_some(both)
    }
}

/// Whether two readings differ in their counters at most.
fn is_same(one: &Ruleset, other: &Ruleset) -> bool {
    let pairs = || one.chains.iter().zip(&other.chains);
    one.is_partial == other.is_partial
        && one.chains.len() == other.chains.len()
        && pairs().all(|(a, b)| {
            let base = |c: &FilterChain| {
                let base = c.base.as_ref();
                base.map(|b| (b.hook, b.devices.clone(), b.drops))
            };
            let rules = || a.rules.iter().zip(&b.rules);
            (&a.name, a.family, a.backend, base(a)) == (&b.name, b.family, b.backend, base(b))
                && a.rules.len() == b.rules.len()
                && rules().all(|(a, b)| {
                    (a.handle, &a.text, &a.matches, a.action)
                        == (b.handle, &b.text, &b.matches, b.action)
                })
        })
}

/// By how much a counter rose; `None`: it does not count, or was set back.
fn rise(at: RuleAt, between: (&RulesAt, &RulesAt)) -> Option<u64> {
    let (before, after) = (at.counter(&between.0.rules)?, at.counter(&between.1.rules)?);
    after.checked_sub(before)
}

/// What can have dropped a packet.
struct Suspects<'a> {
    known: &'a KnownRules,
    /// The rules, as last read.
    rules: &'a Ruleset,
    /// Not ruled out.
    left: Vec<RuleAt>,
    /// Nothing else in the packet filter can have done it, as far as it was read.
    is_whole: bool,
    /// The kernel's place shows that nf_tables did it.
    by_nft: bool,
}

impl Context {
    /// Takes in what was read of a namespace's rules.
    pub fn note_rules(&mut self, reading: FilterReading) {
        let (netns, before_ns) = (reading.netns, reading.before_ns);
        let Some(known) = self.rules.of(netns) else {
            return;
        };
        known.note(reading);
        let drops = std::mem::take(&mut known.drops);
        let (counted, later) = drops.into_iter().partition(|d| d.last_ns < before_ns);
        known.drops = later;
        self.count_drops(netns, counted);
    }

    /// Counts for each rule the drops that it can have done, of those between the first and the last reading.
    fn count_drops(&mut self, netns: u32, mut drops: Vec<DroppedPacket>) {
        let Some(known) = self.rules.known(netns) else {
            return;
        };
        let (Some(first), Some(last)) = (known.readings.front(), known.readings.back()) else {
            return;
        };
        let size: usize = last
            .rules
            .chains
            .iter()
            .map(|chain| chain.rules.len())
            .sum();
        let within = first.at_ns..last.before_ns;
        drops.retain(|d| within.start < d.last_ns && d.last_ns < within.end);
        let too_many = drops.len().saturating_mul(size) > COMPARISONS;
        let mut seen: Vec<RuleAt> = Vec::new();
        for d in drops.iter().filter(|_| !too_many) {
            let (headers, way) = self.seen_by_rules(d);
            seen.extend(walk(&last.rules, &headers, way, backend(d)).candidates);
        }
        if let Some(known) = self.rules.of(netns) {
            known.uncounted |= too_many;
            for at in seen {
                *known.seen.entry(at).or_default() += 1;
            }
        }
    }

    /// Takes in a packet that netfilter dropped, and that connection tracking did not.
    pub(super) fn note_drop_by_rule(&mut self, d: &DroppedPacket) {
        let Some(known) = self.rules.of(d.netns) else {
            return;
        };
        known.last_drop_ns = known.last_drop_ns.max(d.last_ns);
        if known.refused.is_some() {
            return;
        }
        let is_late = known
            .readings
            .back()
            .is_some_and(|last| d.last_ns < last.before_ns);
        if is_late {
            // It was read before the drop became known.
            self.count_drops(d.netns, vec![d.clone()]);
        } else if known.drops.len() < DROPS {
            known.drops.push(d.clone());
        } else {
            known.uncounted = true;
        }
    }

    /// Namespaces whose rules should be read now. Each is returned once. `is_last`: the run ends.
    pub fn wanted_rules(&mut self, is_last: bool) -> Vec<u32> {
        let Some(all) = &mut self.rules.0 else {
            return Vec::new();
        };
        let due = all.iter().filter(|(_, known)| known.wants(is_last));
        let is_selected =
            |netns: &u32| (self.selection.netns).is_none_or(|only| only.contains(netns));
        let (mut due, mut others): (Vec<u32>, Vec<u32>) =
            due.map(|(netns, _)| *netns).partition(is_selected);
        others.truncate(OTHERS);
        due.extend(others);
        for netns in &due {
            if let Some(known) = all.get_mut(netns) {
                known.asked = true;
            }
        }
        due
    }

    fn suspects<'a>(&'a self, d: &DroppedPacket, known: &'a KnownRules) -> Option<Suspects<'a>> {
        let last = known.readings.back()?;
        let (headers, way) = self.seen_by_rules(d);
        let only = backend(d);
        let mut found = walk(&last.rules, &headers, way, only);
        if let Some(around) = known.around(d.last_ns) {
            // A counter that did not rise rules its rule out.
            found.candidates.retain(|at| rise(*at, around) != Some(0));
        }
        Some(Suspects {
            known,
            rules: &last.rules,
            left: found.candidates,
            is_whole: !found.is_cut && !last.rules.is_partial,
            by_nft: only.is_some(),
        })
    }

    /// A dropped packet as rules see it, and the way on which it was.
    fn seen_by_rules(&self, d: &DroppedPacket) -> (DroppedHeaders, PacketWay) {
        let is_local = || {
            let routed = self.forwarding.known(&question(d)).and_then(|a| a.is_local);
            // A list of addresses may be old, or not complete yet: it proves presence only.
            let has = self.histories.has_address(d.netns, d.to.ip());
            routed.or(has.filter(|has| *has))
        };
        let is_local = match d.to.ip().is_loopback() {
            true => Some(true),
            false => is_local(),
        };
        let (way, leaves_by) = match (d.incoming, is_local) {
            (true, Some(true)) => (PacketWay::In, LeavesBy::Nothing),
            (true, Some(false)) => (PacketWay::Through, LeavesBy::NotLoopback),
            (true, None) => (PacketWay::InOrThrough, LeavesBy::Unknown),
            (false, Some(true)) => (PacketWay::Out, LeavesBy::Loopback),
            (false, Some(false)) => (PacketWay::Out, LeavesBy::NotLoopback),
            (false, None) => (PacketWay::Out, LeavesBy::Unknown),
        };
        (DroppedHeaders::of(d, leaves_by), way)
    }
}

/// The backend that dropped a packet, where the place in the kernel shows it.
fn backend(d: &DroppedPacket) -> Option<FilterBackend> {
    let by_nft = d.place.as_deref().is_some_and(|p| p.starts_with("nft_"));
    by_nft.then_some(FilterBackend::Nft)
}

#[cfg(test)]
mod tests;
