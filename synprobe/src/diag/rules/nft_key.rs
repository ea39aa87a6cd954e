//! Keys of nf_tables: the value that a look-up or a comparison takes from the registers, or several of them, one
//! after the other. Each part of such a concatenation begins at a register of its own
//! (`nft_parse_register_load()`, net/netfilter/nf_tables_api.c).

use super::{
    nft_registers::{REGISTER_LEN, RegisterValue, Registers},
    nft_text, xt_conditions,
};
use crate::model::{FilterComparison, FilterMatch, PacketField};

/// A key, part by part, with the bytes that each covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(Vec<(RegisterValue, usize)>);

impl Key {
    /// The key of `len` bytes that begins at a register.
    pub fn read(registers: &Registers, first: u32, len: usize) -> Self {
        let (mut parts, mut at) = (Vec::new(), 0);
        let register = |at: usize| first.saturating_add((at / REGISTER_LEN) as u32);
        while at < len {
            let value = registers.value(register(at));
            let mut size = value.len().unwrap_or(REGISTER_LEN).max(1);
            // One of unknown length goes on to the next value.
            let goes_on = |end: usize| end < len && !registers.has(register(end));
            while value.len().is_none() && goes_on(at + size) {
                size += REGISTER_LEN;
            }
            parts.push((value, size));
            at += size.next_multiple_of(REGISTER_LEN);
        }
        Self(parts)
    }

    /// Whether it has several parts.
    pub fn is_concatenation(&self) -> bool {
        self.0.len() > 1
    }

    /// Whether it is `len` bytes long.
    pub fn has_len(&self, len: usize) -> bool {
        let Some(((_, last), others)) = self.0.split_last() else {
            return false;
        };
        let padded = |size: usize| size.next_multiple_of(REGISTER_LEN);
        let before: usize = others.iter().map(|(_, size)| padded(*size)).sum();
        before + last == len || before + padded(*last) == len
    }

    /// Whether every part is understood.
    pub fn is_understood(&self) -> bool {
        let is = |part: &RegisterValue| *part != RegisterValue::Unknown;
        !self.0.is_empty() && self.0.iter().all(|(part, _)| is(part))
    }

    /// What is known of a look-up while the elements are not: a part that a record does not have is never decided.
    pub fn unread(&self) -> FilterMatch {
        let is_decided = |part: &RegisterValue| {
            matches!(part, RegisterValue::Field(..) | RegisterValue::Device(_))
        };
        match self.is_understood() && !self.0.iter().all(|(part, _)| is_decided(part)) {
            true => FilterMatch::Undecided,
            false => FilterMatch::Unknown,
        }
    }

    /// Its only part, where that is a part of the packet.
    pub fn field(&self) -> Option<(PacketField, &[u8])> {
        match &self.0[..] {
            [(RegisterValue::Field(field, mask), _)] => Some((*field, mask)),
            _ => None,
        }
    }

    /// The condition that it is this value; with `to`, that each of its parts is between those of both. The values
    /// are as long as the key.
    pub fn is(&self, from: &[u8], to: Option<&[u8]>) -> FilterMatch {
        let condition = |(part, from, to)| match (from, to) {
            (Some(from), Some(to)) => between(part, from, to),
            _ => FilterMatch::Unknown,
        };
        let mut all: Vec<FilterMatch> = self.parts(from, to).map(condition).collect();
        match all.len() {
            1 => all.remove(0),
            _ => FilterMatch::AllOf(all),
        }
    }

    /// `ip saddr . tcp dport`
    pub fn name(&self, family: u8) -> String {
        let name = |part: &RegisterValue| match part {
            RegisterValue::Field(field, _) => nft_text::field_name(family, *field),
            RegisterValue::CtState(_) => "ct state".to_owned(),
            RegisterValue::Undecided(name, _) => name.clone(),
            RegisterValue::Device(true) => "iifname".to_owned(),
            RegisterValue::Device(false) => "oifname".to_owned(),
            RegisterValue::Unknown => "[…]".to_owned(),
        };
        let names: Vec<String> = self.0.iter().map(|(part, _)| name(part)).collect();
        names.join(" . ")
    }

    /// A value of it as nft prints it: `10.0.0.1 . 80`; `None`: a part has no better form.
    pub fn text(&self, family: u8, from: &[u8], to: Option<&[u8]>) -> Option<String> {
        let text = |(part, from, to): (&RegisterValue, Option<&[u8]>, Option<&[u8]>)| {
            let (from, to) = (from?, to?);
            match part {
                RegisterValue::Field(field, _) => nft_text::element(family, *field, from, to),
                RegisterValue::Device(_) => device(from, to).map(|(name, is_prefix)| {
                    let star = if is_prefix { "*" } else { "" };
                    format!("\"{name}{star}\"")
                }),
                RegisterValue::CtState(None) if from == to => Some(xt_conditions::states(
                    u32::from_ne_bytes(*from.first_chunk()?),
                )),
                _ => None,
            }
        };
        let parts: Option<Vec<String>> = self.parts(from, to).map(text).collect();
        Some(parts?.join(" . "))
    }

    /// Every part with its bytes of both values.
    fn parts<'a>(
        &'a self,
        from: &'a [u8],
        to: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a RegisterValue, Option<&'a [u8]>, Option<&'a [u8]>)> {
        let mut next = 0;
        self.0.iter().map(move |(part, size)| {
            let at = next;
            next += size.next_multiple_of(REGISTER_LEN);
            let of = |value: &'a [u8]| value.get(at..at + size);
            (part, of(from), of(to.unwrap_or(from)))
        })
    }
}

/// The condition that a part is between two values, or one of them.
fn between(part: &RegisterValue, from: &[u8], to: &[u8]) -> FilterMatch {
    let is_one = from == to;
    match part {
        RegisterValue::Field(field, mask) => {
            let one = |how, value: &[u8]| FilterMatch::Bytes {
                field: *field,
                mask: mask.clone(),
                how,
                value: value.to_vec(),
            };
            // 0.0.0.0/0, or any port.
            let is_any = from.iter().all(|b| *b == 0) && to.iter().all(|b| *b == 0xff);
            match (is_one, is_any, field) {
                (true, ..) => one(FilterComparison::Is, from),
                (_, true, _) => FilterMatch::AllOf(Vec::new()),
                // It is compared byte by byte, and is in the host's byte order.
                (.., PacketField::CameByIndex) => FilterMatch::Unknown,
                _ => FilterMatch::AllOf(vec![
                    one(FilterComparison::AtLeast, from),
                    one(FilterComparison::AtMost, to),
                ]),
            }
        }
        RegisterValue::Device(came_by) => match device(from, to) {
            Some((name, is_prefix)) => FilterMatch::Device {
                came_by: *came_by,
                name,
                is_prefix,
                is_not: false,
            },
            None => FilterMatch::Unknown,
        },
        // The state as a number in the host's byte order.
        RegisterValue::CtState(None) => {
            match from.first_chunk().map(|state| u32::from_ne_bytes(*state)) {
                Some(xt_conditions::INVALID) if is_one => FilterMatch::Invalid,
                _ => FilterMatch::Undecided,
            }
        }
        RegisterValue::CtState(Some(_)) | RegisterValue::Undecided(..) => FilterMatch::Undecided,
        RegisterValue::Unknown => FilterMatch::Unknown,
    }
}

/// The device that a range of names stands for, and whether it is every one that begins so.
fn device(from: &[u8], to: &[u8]) -> Option<(String, bool)> {
    let same = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let is_prefix = same < from.len();
    let (rest, rest_to) = (&from[same..], &to[same..]);
    if rest.iter().any(|b| *b != 0) || rest_to.iter().any(|b| *b != 0xff) {
        return None;
    }
    let name = from[..same].split(|b| *b == 0).next()?;
    Some((String::from_utf8_lossy(name).into_owned(), is_prefix))
}
