//! The sentences about rules that can have dropped a packet, and the commands that show them.

use super::{RuleAt, Suspects, rise};
use crate::{
    model::{FilterBackend, FilterFound, Ruleset},
    util::format::duration,
    verdict::context::{Context, DroppedPacket, times},
};

/// Candidates that are listed.
const LISTED: usize = 4;
/// Rules that were read first so long after a drop may be others than those that did it, nanoseconds.
const LATE_NS: u64 = 1_000_000_000;
/// The same for rules that were read before a drop, and not after it yet.
const EARLY_NS: u64 = 5_000_000_000;
/// The longest text of a rule that is quoted, characters.
const LONGEST: usize = 160;

/// What is known of the rule that dropped a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleWords {
    /// One sentence.
    pub fact: String,
    /// Commands that show the rule, or the candidates; `None`: the general ones.
    pub show: Option<String>,
    /// What the rule is called, where it is certain that it did it.
    pub name: Option<String>,
}

/// Before the time that passed between a drop and the only reading next to it.
const READ_AT: &str = " (rules read ";

impl RuleWords {
    /// The sentence without the time between the drop and the reading: drops by one rule differ in nothing else.
    fn without_time(&self) -> &str {
        let end = self.fact.find(READ_AT);
        &self.fact[..end.unwrap_or(self.fact.len())]
    }
}

impl Context {
    /// The sentences about the rules that dropped some packets, each once and `most` at most.
    pub fn rules_of_drops<'a>(
        &self,
        drops: impl IntoIterator<Item = &'a DroppedPacket>,
        most: usize,
    ) -> Vec<String> {
        let mut found: Vec<RuleWords> = Vec::new();
        for words in drops.into_iter().filter_map(|d| self.rule_of_drop(d)) {
            let is_known = |known: &RuleWords| known.without_time() == words.without_time();
            if found.len() < most && !found.iter().any(is_known) {
                found.push(words);
            }
        }
        let mut facts: Vec<String> = found.into_iter().map(|words| words.fact).collect();
        facts.sort_unstable();
        facts
    }

    /// Which rule dropped a packet, or which can have; `None`: nothing was read, or connection tracking did it.
    pub fn rule_of_drop(&self, d: &DroppedPacket) -> Option<RuleWords> {
        if &*d.reason != "NETFILTER_DROP" || self.is_of_conntrack(d) {
            return None;
        }
        let known = self.rules.known(d.netns)?;
        let plain = |fact: String| RuleWords {
            fact,
            show: None,
            name: None,
        };
        let Some(first) = known.readings.front() else {
            return match known.refused.as_ref()? {
                FilterFound::NotPermitted => Some(plain(
                    "which rule did it was not looked at: reading rules needs CAP_NET_ADMIN"
                        .to_owned(),
                )),
                FilterFound::Failed(why) => {
                    Some(plain(format!("the rules could not be read: {why}")))
                }
                FilterFound::Rules(_) => None,
            };
        };
        let after_ns = first.before_ns.saturating_sub(d.last_ns);
        if known.changed && after_ns > LATE_NS {
            return Some(plain(
                "the rules were changed after it: which one did it is not known".to_owned(),
            ));
        }
        let suspects = self.suspects(d, known)?;
        let (fact, is_sure) = Self::sentence(d, &suspects);
        let only = suspects
            .left
            .first()
            .map(|one| name_of(*one, suspects.rules));
        Some(RuleWords {
            name: only.filter(|_| is_sure),
            fact,
            show: suspects.show(),
        })
    }

    /// What dropped these packets, where it is one and the same: the namespace, and the name of the rule or what
    /// connection tracking did.
    pub fn cause_of_drops<'a>(
        &self,
        drops: impl IntoIterator<Item = &'a DroppedPacket>,
    ) -> Option<(u32, String)> {
        let cause = |d: &DroppedPacket| match self.conntrack_fact(d) {
            Some(_) => Some((d.netns, d.words.to_string())),
            None => Some((d.netns, self.rule_of_drop(d)?.name?)),
        };
        let mut all = drops.into_iter().map(cause);
        let first = all.next()??;
        all.all(|other| other.as_ref() == Some(&first))
            .then_some(first)
    }

    /// And whether the rule that it names did it for certain.
    fn sentence(d: &DroppedPacket, s: &Suspects<'_>) -> (String, bool) {
        let (late, is_late) = s.distance(d);
        let [one] = s.left[..] else {
            let text = match s.left.is_empty() {
                true => s.none(d),
                false => format!("rules that can have done it: {}{late}", s.list()),
            };
            return (text, false);
        };
        let name = name_of(one, s.rules);
        if !one.is_understood(s.rules) {
            let text = match is_tproxy(&name) {
                true => format!(
                    "of the rules that drop, this one can have done it: {name}; TPROXY drops what no transparent \
                     socket (IP_TRANSPARENT) takes at its port{late}"
                ),
                false => format!(
                    "of the rules that drop, this one can have done it: {name} (not fully understood){late}"
                ),
            };
            return (text, false);
        }
        if is_late {
            return (format!("this rule can have done it: {name}{late}"), false);
        }
        if !s.is_whole {
            let text = format!(
                "of the {} rules that were read, this one can have done it: {name}{late}",
                s.rules.rules_read
            );
            return (text, false);
        }
        let Some((rose, seen)) = s.counted(one) else {
            let text = match s.by_nft {
                true => format!(
                    "the rule: {name}; no other rule or policy of nf_tables that drops fits the packet{late}"
                ),
                false => {
                    format!("of all rules and policies that drop, only this one fits: {name}{late}")
                }
            };
            return (text, s.by_nft);
        };
        let is_sure = seen.map_or(s.by_nft, |seen| rose >= seen && (seen > 0 || s.by_nft));
        let text = match seen {
            Some(seen) if rose < seen => format!(
                "this rule can have done it: {name}; but its counter rose by {rose} while packets that \
                 it fits were dropped {}",
                times(seen)
            ),
            Some(1) => format!(
                "the rule: {name}; its counter rose by {rose} between two readings, and 1 packet that it fits \
                 was seen to be dropped then"
            ),
            Some(seen) if seen > 0 => format!(
                "the rule: {name}; its counter rose by {rose} between two readings, and {seen} packets that \
                 it fits were seen to be dropped then"
            ),
            _ => match s.by_nft {
                true => format!("the rule: {name}; no other that drops fits the packet{late}"),
                false => {
                    format!("of all rules and policies that drop, only this one fits: {name}{late}")
                }
            },
        };
        (text, is_sure)
    }
}

impl Suspects<'_> {
    /// By how much a rule's counter rose between the first reading and the last, and how many packets that it
    /// fits were seen to be dropped then.
    fn counted(&self, at: RuleAt) -> Option<(u64, Option<u64>)> {
        let (from, to) = self.known.widest()?;
        let seen = self.known.seen.get(&at).copied().unwrap_or(0);
        Some((
            rise(at, (from, to))?,
            (!self.known.uncounted).then_some(seen),
        ))
    }

    /// How long before or after the drop the rules were read, where no equal reading is on its other side; and
    /// whether that is too long to say that they did it.
    fn distance(&self, d: &DroppedPacket) -> (String, bool) {
        let readings = &self.known.readings;
        let after = readings.iter().find(|r| r.before_ns > d.last_ns);
        let before = readings.iter().rev().find(|r| r.at_ns < d.last_ns);
        let (ns, most_ns, word) = match (before, after) {
            (Some(before), None) => (d.last_ns - before.at_ns, EARLY_NS, "before"),
            (None, Some(after)) => (after.before_ns - d.last_ns, LATE_NS, "after"),
            _ => return (String::new(), false),
        };
        let words = format!("{READ_AT}{} {word} it)", duration(ns / 1000));
        (words, ns > most_ns)
    }

    fn none(&self, d: &DroppedPacket) -> String {
        let read = self.rules.rules_read;
        let packet = d.packet.name();
        match self.is_whole {
            // The rules are read after the drop: the one that did it may have been deleted meanwhile.
            true if self.by_nft => format!(
                "no rule of nf_tables that was read can have dropped this {packet} ({read} were read): the one that did it is \
                 gone, or it or its sets have changed"
            ),
            true => format!(
                "no rule of nf_tables or iptables that was read can have dropped this {packet} ({read} were read): the one that \
                 did it is gone, or none did it (connection tracking, IPVS, BPF programs and security modules drop \
                 at hooks too)"
            ),
            false => format!(
                "which rule did it is not known: not all rules could be read and compared ({read} were read)"
            ),
        }
    }

    fn list(&self) -> String {
        let mut all: Vec<String> = self
            .left
            .iter()
            .take(LISTED)
            .map(|at| {
                let mut text = name_of(*at, self.rules);
                if !at.is_understood(self.rules) {
                    text.push_str(" (not fully understood)");
                }
                if let Some(rose) = self.known.widest().and_then(|both| rise(*at, both)) {
                    text.push_str(&format!(" (it counted {})", times(rose)));
                }
                text
            })
            .collect();
        let more = self.left.len().saturating_sub(LISTED);
        if more > 0 {
            all.push(format!("and {more} more"));
        }
        if !self.is_whole {
            all.push("and perhaps others: not all could be read".to_owned());
        }
        all.join("; ")
    }

    /// The commands that show the candidates.
    fn show(&self) -> Option<String> {
        let chains = self.left.iter().take(LISTED);
        let mut all: Vec<&str> = chains
            .map(|at| at.chain_of(self.rules)?.show.as_deref())
            .collect::<Option<_>>()?;
        all.dedup();
        if let [one] = self.left[..]
            && is_tproxy(&name_of(one, self.rules))
        {
            all.push("iptables-save -c -t mangle; ip6tables-save -c -t mangle; ss -ltnp");
        }
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Whether a rule hands connections to a proxy's socket (iptables' TPROXY). That of nftables does not drop.
fn is_tproxy(name: &str) -> bool {
    name.split([' ', ':']).any(|word| word == "TPROXY")
}

/// `table inet filter chain input handle 7: tcp dport 8080 drop`
fn name_of(at: RuleAt, rules: &Ruleset) -> String {
    let Some(chain) = at.chain_of(rules) else {
        return String::new();
    };
    let Some(rule) = at.rule_of(rules) else {
        return format!("{}: policy drop", chain.name);
    };
    let word = match chain.backend {
        FilterBackend::Nft => "handle",
        FilterBackend::Legacy => "rule",
    };
    let mut text: String = rule.text.chars().take(LONGEST).collect();
    if text.len() < rule.text.len() {
        text.push('…');
    }
    format!("{} {word} {}: {text}", chain.name, rule.handle)
}
