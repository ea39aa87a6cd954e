//! Which rules and policies of a ruleset can have dropped a packet: a walk through its chains as the kernel goes
//! (`nft_do_chain()`, `ipt_do_table()`), with what is known of the packet.

use super::fits::{DroppedHeaders, Fit};
use crate::model::{
    FilterAction, FilterBackend, FilterBase, FilterChain, FilterHook, FilterMatch, FilterRule,
    Ruleset,
};

/// Rules that one walk looks at, at most: jumps may meet again and again.
const STEPS: u32 = 100_000;
/// Jumps within each other (`NFT_JUMP_STACK_SIZE`).
const DEPTH: u8 = 16;

/// A rule or a policy, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleAt {
    pub chain: usize,
    /// `None`: the chain's policy.
    pub rule: Option<usize>,
}

impl RuleAt {
    pub fn chain_of(self, rules: &Ruleset) -> Option<&FilterChain> {
        rules.chains.get(self.chain)
    }

    pub fn rule_of(self, rules: &Ruleset) -> Option<&FilterRule> {
        self.chain_of(rules)?.rules.get(self.rule?)
    }

    /// What it has counted; `None`: it does not count.
    pub fn counter(self, rules: &Ruleset) -> Option<u64> {
        match self.rule {
            Some(_) => self.rule_of(rules)?.counter,
            None => self.chain_of(rules)?.base.as_ref()?.counter,
        }
    }

    /// Whether every condition and the action are understood.
    pub fn is_understood(self, rules: &Ruleset) -> bool {
        let Some(rule) = self.rule_of(rules) else {
            return self.rule.is_none();
        };
        rule.action != FilterAction::Unknown && rule.matches.iter().all(is_understood)
    }
}

fn is_understood(condition: &FilterMatch) -> bool {
    match condition {
        FilterMatch::Unknown => false,
        FilterMatch::AnyOf(all) | FilterMatch::NoneOf(all) | FilterMatch::AllOf(all) => {
            all.iter().all(is_understood)
        }
        _ => true,
    }
}

/// The hooks through which a packet can have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketWay {
    /// This host was sending it.
    Out,
    /// To this host.
    In,
    /// Through this host.
    Through,
    /// It came in, and it is not known where it was to go.
    InOrThrough,
}

impl PacketWay {
    fn passes(self, hook: FilterHook) -> bool {
        match hook {
            FilterHook::Bridge => true,
            FilterHook::Ingress | FilterHook::Prerouting => self != Self::Out,
            FilterHook::Input => matches!(self, Self::In | Self::InOrThrough),
            FilterHook::Forward => matches!(self, Self::Through | Self::InOrThrough),
            FilterHook::Output => self == Self::Out,
            FilterHook::Postrouting | FilterHook::Egress => self != Self::In,
        }
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct WalkResult {
    /// What can have dropped the packet, in the order of the rules.
    pub candidates: Vec<RuleAt>,
    /// The walk was cut short.
    pub is_cut: bool,
}

struct Walker<'a> {
    rules: &'a Ruleset,
    packet: &'a DroppedHeaders,
    found: WalkResult,
    steps: u32,
}

/// Where a packet is after a chain.
#[derive(PartialEq, Eq)]
enum After {
    /// It may come back to the calling chain.
    Back,
    /// It does not, whatever is not known of it.
    Ended,
}

/// What can have dropped a packet on its way. `only`: the backend that did it, where that is known.
pub(super) fn walk(
    rules: &Ruleset,
    packet: &DroppedHeaders,
    way: PacketWay,
    only: Option<FilterBackend>,
) -> WalkResult {
    let mut walker = Walker {
        rules,
        packet,
        found: WalkResult::default(),
        steps: 0,
    };
    for (at, chain) in rules.chains.iter().enumerate() {
        let Some(base) = &chain.base else { continue };
        let is_on_its_way = way.passes(base.hook)
            && packet.is_of(chain.family)
            && only.is_none_or(|only| only == chain.backend)
            && sees_device(base, packet);
        if is_on_its_way && walker.chain(at, 0) == After::Back && base.drops {
            let policy = RuleAt {
                chain: at,
                rule: None,
            };
            walker.found.candidates.push(policy);
        }
    }
    // A policy comes after its rules.
    let order = |at: &RuleAt| (at.chain, at.rule.unwrap_or(usize::MAX));
    walker.found.candidates.sort_unstable_by_key(order);
    walker.found.candidates.dedup();
    walker.found
}

/// Whether a base chain that belongs to devices can have seen the packet.
fn sees_device(base: &FilterBase, packet: &DroppedHeaders) -> bool {
    match packet.came_by() {
        Some(device) if base.hook == FilterHook::Ingress && !base.devices.is_empty() => {
            base.devices.iter().any(|d| d == device)
        }
        _ => true,
    }
}

impl Walker<'_> {
    fn chain(&mut self, at: usize, depth: u8) -> After {
        let rules = self.rules;
        let Some(chain) = rules.chains.get(at) else {
            // A chain that cannot drop is left out, and whether it accepts is not known.
            return After::Back;
        };
        if depth > DEPTH {
            self.found.is_cut = true;
            return After::Back;
        }
        for (n, rule) in chain.rules.iter().enumerate() {
            self.steps += 1;
            if self.steps > STEPS {
                self.found.is_cut = true;
                return After::Back;
            }
            let fit = self.packet.fit_all(&rule.matches);
            if fit == Fit::No {
                continue;
            }
            let is_sure = fit == Fit::Yes;
            let here = RuleAt {
                chain: at,
                rule: Some(n),
            };
            match rule.action {
                FilterAction::Continue => (),
                FilterAction::Unknown => self.found.candidates.push(here),
                FilterAction::Drop => {
                    self.found.candidates.push(here);
                    if is_sure {
                        return After::Ended;
                    }
                }
                FilterAction::Accept if is_sure => return After::Ended,
                FilterAction::Return if is_sure => return After::Back,
                FilterAction::Accept | FilterAction::Return => (),
                FilterAction::Jump(to) => {
                    let after = self.chain(to as usize, depth + 1);
                    if is_sure && after == After::Ended {
                        return After::Ended;
                    }
                }
                FilterAction::Goto(to) => {
                    let after = self.chain(to as usize, depth + 1);
                    if is_sure {
                        return after;
                    }
                }
            }
        }
        After::Back
    }
}
