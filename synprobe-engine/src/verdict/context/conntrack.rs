//! What is known of the place of a drop: the device, and of netfilter drops whether a rule did it.
//!
//! Netfilter drops: by a rule, or by connection tracking.
//!
//! The kernel gives all of them the reason NETFILTER_DROP. `nft_do_chain()` as the place is a rule or a policy of
//! nftables. `nf_hook_slow()` is any hook that returned NF_DROP: `ipt_do_table()`, `nf_conntrack_in()` (the table
//! is full), `nf_conntrack_confirm()` (the tuple is taken). The counters of conntrack tell those apart: it raises
//! `drop`, and for a tuple that is taken also `insert_failed`, with each packet that it drops. They are read before a drop is taken in.

use std::sync::Arc;

use super::{Context, DroppedPacket, window::Marks};
use crate::{
    model::{ConntrackCounts, ConntrackReading},
    util::bounded::Bounded,
};

/// The table is called full from this share on: early drops keep it just below its limit.
const FULL: f64 = 0.95;

const TABLE_FULL: &str = "the connection tracking table is full (nf_conntrack_max)";
const NOT_TRACKED: &str = "connection tracking could not track it (conntrack's drop counter rose)";
const TAKEN: &str = "connection tracking could not insert it: another connection has its tuple after NAT \
                     (conntrack's insert_failed rose)";
const NFT: &str = "a rule or a chain's policy of nftables (iptables-nft too)";
const NFT_INVALID: &str = "a rule or a chain's policy of nftables (iptables-nft too); conntrack counted an \
                           INVALID packet with it, which rules with \"ct state invalid drop\" mean";
const HOOK: &str = "a netfilter hook, not conntrack, whose counters did not rise: a rule of iptables-legacy or \
                    of nftables";
const HOOK_OR_CONNTRACK: &str = "a netfilter hook: a rule (iptables-legacy, nftables) or connection tracking; \
                                 conntrack's counters were not read around it";

/// Of a packet of this host's own: a rule of the output hook may mark or change it, and `ip_route_me_harder()` then looks
/// for its route again.
const OUT_HOOK: &str = "a netfilter hook, not conntrack, whose counters did not rise: a rule of iptables-legacy or of \
                        nftables, or no route was left once a rule had marked or changed it (fwmark)";
const OUT_HOOK_OR_CONNTRACK: &str = "a netfilter hook: a rule (iptables-legacy, nftables), no route once a rule had marked or \
                                     changed it (fwmark), or connection tracking; conntrack's counters were not read \
                                     around it";

const RAISE_MAX: &str = "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max; sysctl -w \
                         net.netfilter.nf_conntrack_max=<twice>";
const NAT_RANGE: &str = "conntrack -S; nft list ruleset; iptables-save -t nat; ip6tables-save -t nat # give the SNAT or masquerade rule \
                         fully-random (iptables: --random-fully), and a port range with room";
const HOOKS: &str = "iptables-save -c; ip6tables-save -c; nft list ruleset; conntrack -S";
const OUT_HOOKS: &str = "iptables-save -c; ip6tables-save -c; nft list ruleset; conntrack -S; ip rule; ip -6 rule; \
                         ip route show table all; ip -6 route show table all";

/// The words and the commands of a drop at a hook that nothing tells apart. `is_around`: conntrack's counters were read
/// around it.
fn tell_hook(d: &mut DroppedPacket, is_around: bool) {
    let (words, remedy) = match (d.incoming, is_around) {
        (true, true) => (HOOK, HOOKS),
        (true, false) => (HOOK_OR_CONNTRACK, HOOKS),
        (false, true) => (OUT_HOOK, OUT_HOOKS),
        (false, false) => (OUT_HOOK_OR_CONNTRACK, OUT_HOOKS),
    };
    (d.words, d.remedy) = (words.into(), remedy.into());
}

/// What rose between two readings.
#[derive(Clone, Copy, Debug, Default)]
struct Risen {
    drop: u64,
    insert_failed: u64,
    invalid: u64,
}

impl Risen {
    fn between(before: &ConntrackCounts, now: &ConntrackCounts) -> Self {
        let rose = |before: Option<u64>, now: Option<u64>| match (before, now) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => 0,
        };
        Self {
            drop: rose(before.drop, now.drop),
            insert_failed: rose(before.insert_failed, now.insert_failed),
            invalid: rose(before.invalid, now.invalid),
        }
    }
}

struct ConntrackHistory {
    first: ConntrackReading,
    last: ConntrackReading,
    /// Rises that no drop has accounted for yet, since this reading.
    left: Risen,
    /// INVALID packets counted since then, whatever was dropped.
    invalid: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    since_ns: u64,
    marks: Marks<ConntrackReading>,
}

#[derive(Default)]
pub(super) struct ConntrackHistories(Bounded<u32, ConntrackHistory>);

impl ConntrackHistories {
    fn note(&mut self, reading: ConntrackReading) {
        let Some(known) = self.0.get_mut(&reading.netns) else {
            let history = ConntrackHistory {
                first: reading,
                last: reading,
                left: Risen::default(),
                invalid: 0,
                since_ns: reading.at_ns,
                marks: Marks::default(),
            };
            self.0.insert(reading.netns, history);
            return;
        };
        // The poller's readings come later than they were made.
        if reading.at_ns < known.last.at_ns {
            return;
        }
        let risen = Risen::between(&known.last.counts, &reading.counts);
        known.last = reading;
        known.invalid = if reading.at_drop {
            known.invalid + risen.invalid
        } else {
            0
        };
        // What rose without a drop that was seen is not kept for a later one.
        known.left = match reading.at_drop {
            true => Risen {
                drop: known.left.drop + risen.drop,
                insert_failed: known.left.insert_failed + risen.insert_failed,
                invalid: known.left.invalid + risen.invalid,
            },
            false => {
                known.since_ns = reading.at_ns;
                Risen::default()
            }
        };
    }

    /// A step of the window begins: numbers are counted from where the window begins.
    pub(super) fn step(&mut self, at_ns: u64, cutoff_ns: u64) {
        self.0.retain(|_, known| {
            known.marks.mark(at_ns, cutoff_ns, known.last);
            if let Some((at, first)) = known.marks.first()
                && at <= cutoff_ns
            {
                known.first = *first;
            }
            true
        });
    }

    /// Says in words what dropped a packet of the reason NETFILTER_DROP.
    fn tell(&mut self, d: &mut DroppedPacket) {
        let by_nft = d.place.as_deref().is_some_and(|p| p.starts_with("nft_"));
        let Some(known) = self.0.get_mut(&d.netns) else {
            if by_nft {
                d.words = NFT.into();
            } else {
                tell_hook(d, false);
            }
            return;
        };
        // Otherwise the counters say nothing of this drop: they were read after it only, or before it only.
        let is_around = known.since_ns < d.last_ns && d.last_ns <= known.last.at_ns;
        d.invalid = is_around.then_some(known.invalid > 0);
        let left = &mut known.left;
        if by_nft {
            let invalid = left.invalid > 0;
            left.invalid = left.invalid.saturating_sub(1);
            d.words = if invalid { NFT_INVALID } else { NFT }.into();
        } else if left.insert_failed > 0 {
            // `__nf_conntrack_confirm()` raises both.
            left.insert_failed -= 1;
            left.drop = left.drop.saturating_sub(1);
            (d.words, d.remedy) = (TAKEN.into(), NAT_RANGE.into());
        } else if left.drop > 0 {
            left.drop -= 1;
            let (entries, max) = (known.last.counts.entries, known.last.max);
            let full = match (entries, max) {
                (Some(entries), Some(max)) => entries as f64 >= max as f64 * FULL,
                _ => false,
            };
            d.words = if full { TABLE_FULL } else { NOT_TRACKED }.into();
            let twice = max.map_or_else(|| "524288".to_owned(), |max| (max * 2).to_string());
            d.remedy = RAISE_MAX.replace("<twice>", &twice).into();
        } else {
            tell_hook(d, is_around);
        }
    }
}

impl Context {
    /// Takes in the name of a device.
    pub fn set_device(&mut self, netns: u32, index: u32, name: Option<Arc<str>>) {
        self.devices.insert((netns, index), name);
    }

    /// The name of a device; `None`: not known.
    pub fn device(&self, netns: u32, index: u32) -> Option<Arc<str>> {
        self.devices.get(&(netns, index)).cloned().flatten()
    }

    /// Takes in the state of a namespace's connection tracking.
    pub fn note_conntrack(&mut self, reading: ConntrackReading) {
        self.conntrack.note(reading);
    }

    /// Says in words what dropped a packet: of NETFILTER_DROP, whether a rule or connection tracking.
    pub fn tell_filter_from_conntrack(&mut self, d: &mut DroppedPacket) {
        if &*d.reason == "NETFILTER_DROP" {
            self.conntrack.tell(d);
            if !self.is_of_conntrack(d) {
                self.note_drop_by_rule(d);
            }
        }
    }

    /// Whether connection tracking dropped a packet, and no rule.
    pub(super) fn is_of_conntrack(&self, d: &DroppedPacket) -> bool {
        [TABLE_FULL, NOT_TRACKED, TAKEN].contains(&&*d.words)
    }

    /// The numbers of connection tracking where it dropped a packet.
    pub fn conntrack_fact(&self, d: &DroppedPacket) -> Option<String> {
        if !self.is_of_conntrack(d) {
            return None;
        }
        let known = self.conntrack.0.get(&d.netns)?;
        let (first, last) = (&known.first.counts, &known.last.counts);
        let risen = Risen::between(first, last);
        let number =
            |n: Option<u64>| n.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string());
        Some(format!(
            "conntrack: {} of {} entries (net.netfilter.nf_conntrack_max); {} drop rose by {}, \
             insert_failed by {}",
            number(last.entries),
            number(known.last.max),
            self.during(),
            risen.drop,
            risen.insert_failed
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{context::Packet, fixtures::*};

    fn reading(entries: u64, drop: u64, insert_failed: u64, at_drop: bool) -> ConntrackReading {
        ConntrackReading {
            netns: NETNS,
            // A drop of the fixtures lies between the two.
            at_ns: if at_drop { u64::MAX } else { 1 },
            at_drop,
            max: Some(800),
            counts: ConntrackCounts {
                entries: Some(entries),
                drop: Some(drop),
                early_drop: Some(0),
                insert_failed: Some(insert_failed),
                invalid: Some(0),
            },
        }
    }

    fn at_hook(context: &mut Context) -> DroppedPacket {
        let h = active(crate::model::Outcome::TimedOut);
        let mut d = DroppedPacket {
            place: Some("nf_hook_slow".into()),
            incoming: true,
            ..discard(&h, Packet::Syn, 1)
        };
        context.tell_filter_from_conntrack(&mut d);
        d
    }

    #[test]
    fn each_rise_explains_one_drop() {
        let mut context = Context::default();
        context.note_conntrack(reading(10, 5, 7, false));
        context.note_conntrack(reading(850, 6, 7, true));
        let d = at_hook(&mut context);
        assert_eq!(d.words, TABLE_FULL);
        assert!(d.remedy.ends_with("nf_conntrack_max=1600"), "{}", d.remedy);
        assert_eq!(
            context.conntrack_fact(&d).unwrap(),
            "conntrack: 850 of 800 entries (net.netfilter.nf_conntrack_max); in this run drop rose by 1, \
             insert_failed by 0"
        );
        // No further rise: not conntrack.
        assert_eq!(at_hook(&mut context).words, HOOK);
        context.note_conntrack(reading(10, 8, 9, true));
        assert_eq!(at_hook(&mut context).words, TAKEN);
        assert_eq!(at_hook(&mut context).words, TAKEN);
        assert_eq!(at_hook(&mut context).words, HOOK);
        context.note_conntrack(reading(10, 9, 9, true));
        assert_eq!(at_hook(&mut context).words, NOT_TRACKED);
    }

    #[test]
    fn a_rise_before_is_not_kept_and_without_counters_neither_is_named() {
        let mut context = Context::default();
        let d = at_hook(&mut context);
        assert_eq!(d.words, HOOK_OR_CONNTRACK);
        assert_eq!(context.conntrack_fact(&d), None);
        context.note_conntrack(reading(10, 0, 0, false));
        context.note_conntrack(reading(10, 50, 50, false));
        assert_eq!(at_hook(&mut context).words, HOOK_OR_CONNTRACK);
        context.note_conntrack(reading(10, 50, 50, true));
        assert_eq!(at_hook(&mut context).words, HOOK);
        // The first reading of all came after the drop: what rose before it is not known.
        let mut context = Context::default();
        context.note_conntrack(reading(10, 50, 50, true));
        assert_eq!(at_hook(&mut context).words, HOOK_OR_CONNTRACK);
    }

    /// The kernel looks for its route again once a rule of the output hook has changed it.
    #[test]
    fn what_a_host_sends_may_have_lost_its_route_at_the_hook() {
        let mut context = Context::default();
        let mut d = DroppedPacket {
            place: Some("nf_hook_slow".into()),
            incoming: false,
            ..discard(&active(crate::model::Outcome::TimedOut), Packet::Syn, 1)
        };
        context.tell_filter_from_conntrack(&mut d);
        assert!(d.words.contains("no route once a rule had marked"));
        assert!(d.remedy.contains("ip rule"), "{}", d.remedy);
        context.note_conntrack(reading(10, 0, 0, false));
        context.note_conntrack(reading(10, 0, 0, true));
        context.tell_filter_from_conntrack(&mut d);
        assert_eq!(d.words, OUT_HOOK);
    }

    #[test]
    fn the_place_shows_a_rule_of_nftables() {
        let mut context = Context::default();
        context.note_conntrack(reading(10, 0, 0, false));
        context.note_conntrack(reading(800, 9, 9, true));
        let h = active(crate::model::Outcome::TimedOut);
        let mut d = discard(&h, Packet::Syn, 1);
        context.tell_filter_from_conntrack(&mut d);
        assert_eq!((&*d.words, &*d.remedy), (NFT, "nft list ruleset"));
    }
}
