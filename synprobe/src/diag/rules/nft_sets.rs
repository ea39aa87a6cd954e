//! Sets of nf_tables that rules look up: their elements become conditions.

use std::{collections::HashMap, io};

use super::{
    Budget,
    nft_socket::{DumpEnd, Next, NftSocket, attr, number, string, with_string},
};
use crate::{
    diag::netlink::NetlinkAttributes,
    model::{FilterComparison, FilterMatch, PacketField, Ruleset},
};

/// Elements of one set, at most. A larger one is not looked into.
const MOST_ELEMENTS: usize = 1024;
/// `NFT_SET_INTERVAL`.
const INTERVAL: u32 = 4;
/// `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`: elements come and go by packets and time.
const MOVING: u32 = 0x10 | 0x20;
/// `NFT_SET_CONCAT`.
const CONCAT: u32 = 0x80;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;

/// A set's place: family, table, name.
pub(super) type SetKey = (u8, String, String);

/// A look-up in a set: what is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetLookup {
    pub name: String,
    pub field: PacketField,
    pub mask: Vec<u8>,
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

    /// The elements of a verdict map, each with its condition on a field's value (a field and a mask); `None`: it
    /// cannot be looked into. Without a field the conditions are not understood.
    pub fn map(
        &self,
        socket: &mut NftSocket,
        budget: &mut Budget,
        key: &SetKey,
        field: Option<(PacketField, &[u8])>,
    ) -> io::Result<Option<Vec<(SetElement, FilterMatch)>>> {
        let Some(facts) = self.0.get(key) else {
            return Ok(None);
        };
        let Some(elements) = elements(socket, budget, key, facts)? else {
            return Ok(None);
        };
        let known = field.filter(|(_, mask)| mask.len() == facts.key_len);
        let Some((field, mask)) = known else {
            let beginnings = elements.into_iter().filter(|e| !e.is_end);
            return Ok(Some(
                beginnings.map(|e| (e, FilterMatch::Unknown)).collect(),
            ));
        };
        let all = conditions(&elements, facts, field, mask).into_iter();
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
                if let Some(text) = text_of(elements, facts, &lookup) {
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
    if facts.flags & (MOVING | CONCAT) != 0 {
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
            // A catch-all element has no key, a range in one element has a second one.
            match key {
                Some(key) if attr(element, 10).is_none() && key.len() >= facts.key_len => {
                    let verdict = attr(element, 2).and_then(|data| attr(data, 2));
                    found.push(SetElement {
                        key: key[..facts.key_len].to_vec(),
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

/// Every element with the condition that it is the one that a field's value finds.
fn conditions<'a>(
    elements: &'a [SetElement],
    facts: &SetFacts,
    field: PacketField,
    mask: &[u8],
) -> Vec<(&'a SetElement, FilterMatch)> {
    let bytes = |how, value: &[u8]| FilterMatch::Bytes {
        field,
        mask: mask.to_vec(),
        how,
        value: value.to_vec(),
    };
    if facts.flags & INTERVAL == 0 {
        let is = |e: &'a SetElement| (e, bytes(FilterComparison::Is, &e.key));
        return elements.iter().map(is).collect();
    }
    let between = |(first, end): (&'a SetElement, Option<&[u8]>)| {
        let mut both = vec![bytes(FilterComparison::AtLeast, &first.key)];
        both.extend(end.map(|end| bytes(FilterComparison::Below, end)));
        (first, FilterMatch::AllOf(both))
    };
    intervals(elements).into_iter().map(between).collect()
}

fn as_condition(elements: &[SetElement], facts: &SetFacts, lookup: &SetLookup) -> FilterMatch {
    if lookup.mask.len() != facts.key_len {
        return FilterMatch::Unknown;
    }
    let all = conditions(elements, facts, lookup.field, &lookup.mask);
    let any = all.into_iter().map(|(_, condition)| condition).collect();
    match lookup.is_not {
        true => FilterMatch::NoneOf(any),
        false => FilterMatch::AnyOf(any),
    }
}

/// The elements of an anonymous set of ports, as nft prints them.
fn text_of(elements: &[SetElement], facts: &SetFacts, lookup: &SetLookup) -> Option<String> {
    const ANONYMOUS: u32 = 1;
    const SHOWN: usize = 8;
    let is_port = matches!(lookup.field, PacketField::Transport(0 | 2)) && facts.key_len == 2;
    if facts.flags & ANONYMOUS == 0 || !is_port {
        return None;
    }
    let port = |key: &[u8]| key.first_chunk().map(|key| u16::from_be_bytes(*key));
    let mut all: Vec<String> = match facts.flags & INTERVAL != 0 {
        false => elements
            .iter()
            .map(|e| Some(port(&e.key)?.to_string()))
            .collect::<Option<_>>()?,
        true => intervals(elements)
            .into_iter()
            .map(|(from, to)| {
                let last = to.map_or(Some(u16::MAX), |to| port(to)?.checked_sub(1));
                let (from, last) = (port(&from.key)?, last?);
                Some(match from == last {
                    true => from.to_string(),
                    false => format!("{from}-{last}"),
                })
            })
            .collect::<Option<_>>()?,
    };
    if all.len() > SHOWN {
        all.truncate(SHOWN);
        all.push("…".to_owned());
    }
    Some(format!("{{ {} }}", all.join(", ")))
}
