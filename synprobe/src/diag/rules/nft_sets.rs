//! Sets of nf_tables that rules look up: their elements become conditions.

use std::{collections::HashMap, io};

use super::{
    Budget,
    nft_key::Key,
    nft_socket::{DumpEnd, Next, NftSocket, attr, number, string, with_string},
};
use crate::{
    diag::netlink::NetlinkAttributes,
    model::{FilterComparison, FilterMatch, Ruleset},
};

/// Elements of one set, at most. A larger one is not looked into.
const MOST_ELEMENTS: usize = 1024;
/// `NFT_SET_INTERVAL`.
const INTERVAL: u32 = 4;
/// `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`: elements come and go by packets and time.
const MOVING: u32 = 0x10 | 0x20;
/// `NFT_SET_CONCAT`: each part of a key has an interval of its own, with both its ends in one element (Linux 5.6).
const CONCAT: u32 = 0x80;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;

/// A set's place: family, table, name.
pub(super) type SetKey = (u8, String, String);

/// A look-up in a set: what is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetLookup {
    pub name: String,
    pub key: Key,
    pub is_not: bool,
}

/// What is known of a set.
pub(super) struct SetFacts {
    flags: u32,
    pub key_len: usize,
}

/// See the module.
pub(super) struct Sets(HashMap<SetKey, SetFacts>);

/// A chain, a rule and a condition of it.
pub(super) type ConditionAt = (usize, usize, usize);

impl Sets {
    pub fn read(socket: &mut NftSocket) -> io::Result<Self> {
        let mut sets = HashMap::new();
        socket.dump(libc::NFT_MSG_GETSET, 0, &[], |family, set| {
            if let (Some(table), Some(name)) = (string(set, 1), string(set, 2)) {
                let facts = SetFacts {
                    flags: number(set, 3).unwrap_or(0),
                    key_len: number(set, 5).unwrap_or(0) as usize,
                };
                sets.insert((family, table, name), facts);
            }
            Next::Go
        })?;
        Ok(Self(sets))
    }

    /// Bytes of a set's key.
    pub fn key_len(&self, key: &SetKey) -> Option<usize> {
        Some(self.0.get(key)?.key_len)
    }

    /// The elements of a verdict map, each with its condition on the key; `None`: it cannot be looked into.
    pub fn map(
        &self,
        socket: &mut NftSocket,
        budget: &mut Budget,
        map: &SetKey,
        key: &Key,
    ) -> io::Result<Option<Vec<(SetElement, FilterMatch)>>> {
        let Some(facts) = self.0.get(map) else {
            return Ok(None);
        };
        let Some(elements) = elements(socket, budget, map, facts)? else {
            return Ok(None);
        };
        if !key.has_len(facts.key_len) {
            let beginnings = elements.into_iter().filter(|e| !e.is_end);
            return Ok(Some(
                beginnings.map(|e| (e, FilterMatch::Unknown)).collect(),
            ));
        }
        let all = conditions(&elements, facts, key).into_iter();
        Ok(Some(
            all.map(|(e, condition)| (e.clone(), condition)).collect(),
        ))
    }

    /// Puts the elements in place of the conditions that look them up.
    pub fn fill_in(
        &self,
        socket: &mut NftSocket,
        budget: &mut Budget,
        lookups: Vec<(ConditionAt, SetKey, SetLookup)>,
        rules: &mut Ruleset,
    ) -> io::Result<()> {
        let mut known: HashMap<SetKey, Option<Vec<SetElement>>> = HashMap::new();
        for ((chain, rule, condition), key, lookup) in lookups {
            let family = key.0;
            let Some(facts) = self.0.get(&key) else {
                continue;
            };
            let elements = match known.get(&key) {
                Some(elements) => elements,
                None => {
                    let read = elements(socket, budget, &key, facts)?;
                    known.entry(key).or_insert(read)
                }
            };
            let place = &mut rules.chains[chain].rules[rule];
            if facts.flags & MOVING != 0 {
                place.matches[condition] = FilterMatch::Undecided;
            } else if let Some(elements) = elements {
                place.matches[condition] = as_condition(elements, facts, &lookup);
                if let Some(text) = text_of(elements, facts, family, &lookup) {
                    place.text = place.text.replace(&format!("@{}", lookup.name), &text);
                }
            }
        }
        Ok(())
    }
}

/// An element of a set or a map.
#[derive(Clone, Debug)]
pub(super) struct SetElement {
    pub key: Vec<u8>,
    /// Of a set whose parts have intervals of their own: the last key.
    pub key_end: Option<Vec<u8>>,
    /// The end of an interval, which does not belong to it.
    is_end: bool,
    /// What a verdict map says, with the chain of a jump.
    pub verdict: Option<(i32, Option<String>)>,
}

/// `None`: there are too many, or it has keys of another kind.
fn elements(
    socket: &mut NftSocket,
    budget: &mut Budget,
    (family, table, name): &SetKey,
    facts: &SetFacts,
) -> io::Result<Option<Vec<SetElement>>> {
    if facts.flags & MOVING != 0 {
        return Ok(None);
    }
    let mut attributes = with_string(1, table);
    attributes.extend(with_string(2, name));
    let mut found = Vec::new();
    let mut is_other = false;
    let end = socket.dump(libc::NFT_MSG_GETSETELEM, *family, &attributes, |_, list| {
        for (_, element) in NetlinkAttributes::new(attr(list, 3).unwrap_or_default()) {
            let key = attr(element, 1).and_then(|key| attr(key, 1));
            let flags = number(element, 3).unwrap_or(0);
            // NFTA_SET_ELEM_KEY_END.
            let key_end = attr(element, 10);
            let end = key_end
                .and_then(|end| attr(end, 1))
                .filter(|end| end.len() >= facts.key_len);
            let has_both = end.is_some() && facts.flags & CONCAT != 0;
            // A catch-all element has no key.
            match key {
                Some(key) if (key_end.is_none() || has_both) && key.len() >= facts.key_len => {
                    let verdict = attr(element, 2).and_then(|data| attr(data, 2));
                    found.push(SetElement {
                        key: key[..facts.key_len].to_vec(),
                        key_end: end.map(|end| end[..facts.key_len].to_vec()),
                        is_end: flags & INTERVAL_END != 0,
                        verdict: verdict.map(|verdict| {
                            (number(verdict, 1).unwrap_or(0) as i32, string(verdict, 2))
                        }),
                    });
                }
                _ => is_other = true,
            }
        }
        match found.len() <= MOST_ELEMENTS && budget.take() {
            true => Next::Go,
            false => Next::Stop,
        }
    });
    if end.is_err() || end.is_ok_and(|end| end != DumpEnd::Whole) {
        // It is gone by now, or the rest of the answer is not read.
        *socket = NftSocket::open()?;
        return Ok(None);
    }
    // An end comes before the beginning of the next interval with the same key.
    found.sort_by(|a, b| a.key.cmp(&b.key).then(b.is_end.cmp(&a.is_end)));
    Ok((!is_other).then_some(found))
}

/// Each interval: its first element, and the key after its last one; `None`: up to the largest key.
fn intervals(elements: &[SetElement]) -> Vec<(&SetElement, Option<&[u8]>)> {
    let mut found = Vec::new();
    let mut elements = elements.iter().peekable();
    while let Some(first) = elements.next() {
        if !first.is_end {
            let end = elements.next_if(|next| next.is_end);
            found.push((first, end.map(|end| end.key.as_slice())));
        }
    }
    found
}

/// Every element with the condition that it is the one that the key finds.
fn conditions<'a>(
    elements: &'a [SetElement],
    facts: &SetFacts,
    key: &Key,
) -> Vec<(&'a SetElement, FilterMatch)> {
    if facts.flags & CONCAT != 0 || facts.flags & INTERVAL == 0 {
        let is = |e: &'a SetElement| (e, key.is(&e.key, e.key_end.as_deref()));
        return elements.iter().map(is).collect();
    }
    let between = |(first, end): (&'a SetElement, Option<&[u8]>)| {
        let Some((field, mask)) = key.field() else {
            return (first, key.unread());
        };
        let bytes = |how, value: &[u8]| FilterMatch::Bytes {
            field,
            mask: mask.to_vec(),
            how,
            value: value.to_vec(),
        };
        let mut both = vec![bytes(FilterComparison::AtLeast, &first.key)];
        both.extend(end.map(|end| bytes(FilterComparison::Below, end)));
        (first, FilterMatch::AllOf(both))
    };
    intervals(elements).into_iter().map(between).collect()
}

fn as_condition(elements: &[SetElement], facts: &SetFacts, lookup: &SetLookup) -> FilterMatch {
    if !lookup.key.has_len(facts.key_len) {
        return FilterMatch::Unknown;
    }
    let all = conditions(elements, facts, &lookup.key);
    let any = all.into_iter().map(|(_, condition)| condition).collect();
    match lookup.is_not {
        true => FilterMatch::NoneOf(any),
        false => FilterMatch::AnyOf(any),
    }
}

/// The elements of an anonymous set, as nft prints them.
fn text_of(
    elements: &[SetElement],
    facts: &SetFacts,
    family: u8,
    lookup: &SetLookup,
) -> Option<String> {
    const ANONYMOUS: u32 = 1;
    const SHOWN: usize = 8;
    if facts.flags & ANONYMOUS == 0 {
        return None;
    }
    let key = &lookup.key;
    let mut all: Vec<String> = match facts.flags & (INTERVAL | CONCAT) == INTERVAL {
        false => elements
            .iter()
            .take(SHOWN + 1)
            .map(|e| key.text(family, &e.key, e.key_end.as_deref()))
            .collect::<Option<_>>()?,
        true => intervals(elements)
            .into_iter()
            .take(SHOWN + 1)
            .map(|(from, to)| {
                let last = to.map_or_else(|| vec![0xff; from.key.len()], before);
                key.text(family, &from.key, Some(&last))
            })
            .collect::<Option<_>>()?,
    };
    if all.len() > SHOWN {
        all.truncate(SHOWN);
        all.push("…".to_owned());
    }
    Some(format!("{{ {} }}", all.join(", ")))
}

/// The key before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    key
}
