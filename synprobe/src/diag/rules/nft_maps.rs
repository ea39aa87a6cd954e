//! Verdict maps of nf_tables: a rule that looks one up becomes one rule for each element.

use std::io;

use super::{
    Budget,
    nft_key::Key,
    nft_sets::{SetElement, SetKey, Sets},
    nft_socket::NftSocket,
};
use crate::model::{FilterAction, FilterMatch, FilterRule, Ruleset};

/// Elements that become rules of their own. Of a larger map each verdict becomes one.
const MOST_RULES: usize = 64;

/// A rule that looks up a verdict map.
pub(super) struct MapLookup {
    pub chain: usize,
    pub rule: usize,
    pub map: SetKey,
    pub key: Key,
}

/// Puts the rules of the elements in place of those that look them up. `chain`: the place of a chain by its name.
pub(super) fn expand(
    sets: &Sets,
    socket: &mut NftSocket,
    budget: &mut Budget,
    mut lookups: Vec<MapLookup>,
    rules: &mut Ruleset,
    chain: impl Fn(&SetKey, &str) -> Option<u32>,
) -> io::Result<()> {
    // From the end on: the places of those before stay.
    lookups.sort_by_key(|lookup| std::cmp::Reverse((lookup.chain, lookup.rule)));
    for lookup in lookups {
        let Some(elements) = sets.map(socket, budget, &lookup.map, &lookup.key)? else {
            continue;
        };
        let of_chain = &mut rules.chains[lookup.chain].rules;
        let plain = of_chain[lookup.rule].clone();
        let mut expanded: Vec<FilterRule> = Vec::new();
        for (element, condition) in elements {
            let action = action(&element, |to| chain(&lookup.map, to));
            let mut rule = plain.clone();
            if let Some(words) = words(&element, &lookup) {
                let name = format!("vmap @{}", lookup.map.2);
                rule.text = rule.text.replace(&name, &format!("vmap {{ {words}, … }}"));
            }
            rule.action = action;
            rule.matches.push(condition);
            expanded.push(rule);
        }
        if expanded.len() > MOST_RULES {
            // Which element it was is not decided.
            expanded.sort_by_key(|rule| format!("{:?}", rule.action));
            expanded.dedup_by_key(|rule| rule.action);
            for rule in &mut expanded {
                rule.text.clone_from(&plain.text);
                rule.matches.pop();
                rule.matches.push(FilterMatch::Unknown);
            }
        }
        of_chain.splice(lookup.rule..=lookup.rule, expanded);
    }
    Ok(())
}

fn action(element: &SetElement, chain: impl Fn(&str) -> Option<u32>) -> FilterAction {
    let Some((code, to)) = &element.verdict else {
        return FilterAction::Unknown;
    };
    let to = to.as_deref().and_then(chain);
    match (*code, to) {
        (libc::NF_DROP, _) => FilterAction::Drop,
        (libc::NF_ACCEPT, _) => FilterAction::Accept,
        (libc::NFT_RETURN, _) => FilterAction::Return,
        (libc::NFT_CONTINUE, _) => FilterAction::Continue,
        (libc::NFT_JUMP, Some(to)) => FilterAction::Jump(to),
        (libc::NFT_GOTO, Some(to)) => FilterAction::Goto(to),
        _ => FilterAction::Unknown,
    }
}

/// An element as nft prints it, where it is no interval.
fn words(element: &SetElement, lookup: &MapLookup) -> Option<String> {
    let verdict = match element.verdict.as_ref()? {
        (libc::NF_DROP, _) => "drop".to_owned(),
        (libc::NF_ACCEPT, _) => "accept".to_owned(),
        (libc::NFT_JUMP, Some(to)) => format!("jump {to}"),
        (libc::NFT_GOTO, Some(to)) => format!("goto {to}"),
        _ => return None,
    };
    let (family, to) = (lookup.map.0, element.key_end.as_deref());
    let key = lookup.key.text(family, &element.key, to)?;
    Some(format!("{key} : {verdict}"))
}
