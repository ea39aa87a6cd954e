//! Leaves out what cannot drop: a host may have tens of thousands of rules for NAT.

use std::collections::HashSet;

use crate::model::{FilterAction, Ruleset};

/// Keeps the base chains from which a drop can be reached, with all chains that they lead to.
pub(super) fn prune(rules: &mut Ruleset) {
    let targets = |at: usize| {
        let rules = rules.chains[at].rules.iter();
        rules.filter_map(|rule| match rule.action {
            FilterAction::Jump(to) | FilterAction::Goto(to) => Some(to as usize),
            _ => None,
        })
    };
    let mut kept: HashSet<usize> = HashSet::new();
    for (at, chain) in rules.chains.iter().enumerate() {
        let Some(base) = &chain.base else { continue };
        let mut reached = HashSet::from([at]);
        let mut left = vec![at];
        let mut drops = base.drops;
        while let Some(at) = left.pop() {
            let Some(chain) = rules.chains.get(at) else {
                continue;
            };
            drops |= chain
                .rules
                .iter()
                .any(|r| matches!(r.action, FilterAction::Drop | FilterAction::Unknown));
            left.extend(targets(at).filter(|to| reached.insert(*to)));
        }
        if drops {
            kept.extend(reached);
        }
    }
    let mut places = vec![None; rules.chains.len()];
    let mut next = 0;
    for (at, place) in places.iter_mut().enumerate() {
        if kept.contains(&at) {
            *place = Some(next);
            next += 1;
        }
    }
    let mut at = 0;
    rules.chains.retain(|_| {
        at += 1;
        kept.contains(&(at - 1))
    });
    for rule in rules.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        if let FilterAction::Jump(to) | FilterAction::Goto(to) = &mut rule.action
            && let Some(Some(place)) = places.get(*to as usize)
        {
            *to = *place;
        }
    }
}
