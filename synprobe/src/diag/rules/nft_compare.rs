//! Comparisons and look-ups of nf_tables: what a rule demands of the value in a register.

use super::{
    nft_expr::{RuleParser, data, register},
    nft_key::Key,
    nft_registers::{REGISTER_LEN, RegisterValue},
    nft_sets::SetLookup,
    nft_socket::{number, string},
    nft_text, xt_conditions,
};
use crate::model::{FilterAction, FilterComparison, FilterMatch};

impl RuleParser<'_> {
    pub(super) fn compare(&mut self, all: &[u8]) {
        use FilterComparison::{Above, AtLeast, AtMost, Below, Is, IsNot};
        let how = [Is, IsNot, Below, AtMost, Above, AtLeast]
            .get(number(all, 2).unwrap_or(u32::MAX) as usize)
            .copied();
        let value = data(all, 3);
        let Some(how) = how else {
            self.condition(FilterMatch::Unknown, "[cmp]".to_owned());
            return;
        };
        let key = Key::read(&self.registers, register(all, 1), value.len());
        if key.is_concatenation() {
            return self.compare_all(&key, how, value);
        }
        match self.registers.value(register(all, 1)) {
            RegisterValue::Field(field, mut mask) if mask.len() >= value.len() => {
                mask.truncate(value.len());
                let words = nft_text::comparison(self.family, field, &mask, how, value);
                let condition = FilterMatch::Bytes {
                    field,
                    mask,
                    how,
                    value: value.to_vec(),
                };
                self.condition(condition, words);
            }
            RegisterValue::Device(came_by) if matches!(how, Is | IsNot) => {
                let (name, is_prefix) = device_name(value);
                let star = if is_prefix { "*" } else { "" };
                let word = if came_by { "iifname" } else { "oifname" };
                let not = if how == IsNot { "!= " } else { "" };
                let words = format!("{word} {not}\"{name}{star}\"");
                let condition = FilterMatch::Device {
                    came_by,
                    name,
                    is_prefix,
                    is_not: how == IsNot,
                };
                self.condition(condition, words);
            }
            RegisterValue::CtState(mask) => self.compare_state(mask, how, value),
            RegisterValue::Undecided(name, _) => {
                let words = format!("{name} {}", nft_text::hex(how, value));
                self.condition(FilterMatch::Undecided, words);
            }
            _ => self.condition(FilterMatch::Unknown, "[cmp]".to_owned()),
        }
    }

    /// A concatenation is compared with one value: nft makes this of a set with one element.
    fn compare_all(&mut self, key: &Key, how: FilterComparison, value: &[u8]) {
        let is = || match key.has_len(value.len()) && key.is_understood() {
            true => key.is(value, None),
            false => FilterMatch::Unknown,
        };
        let (condition, not) = match how {
            FilterComparison::Is => (is(), ""),
            FilterComparison::IsNot => (FilterMatch::NoneOf(vec![is()]), "!= "),
            _ => (FilterMatch::Unknown, "… "),
        };
        let shown = key.text(self.family, value, None);
        let shown = shown.unwrap_or_else(|| nft_text::hex(FilterComparison::Is, value));
        self.condition(condition, format!("{} {not}{shown}", key.name(self.family)));
    }

    /// `ct state a,b` compares the bits with 0.
    fn compare_state(&mut self, mask: Option<u32>, how: FilterComparison, value: &[u8]) {
        let value = value.first_chunk().map_or(0, |v| u32::from_ne_bytes(*v));
        let is_plain = value == 0 && how == FilterComparison::IsNot;
        let (states, not) = match (mask, how) {
            (Some(mask), FilterComparison::IsNot) if is_plain => (mask, ""),
            (Some(mask), FilterComparison::Is) if value == 0 => (mask, "! "),
            (None, FilterComparison::Is) => (value, ""),
            (None, FilterComparison::IsNot) => (value, "!= "),
            _ => return self.condition(FilterMatch::Undecided, "ct state …".to_owned()),
        };
        let words = format!("ct state {not}{}", xt_conditions::states(states));
        let condition = match (states, not) {
            (xt_conditions::INVALID, "") => FilterMatch::Invalid,
            _ => FilterMatch::Undecided,
        };
        self.condition(condition, words);
    }

    pub(super) fn range(&mut self, all: &[u8]) {
        const NOT: u32 = 1;
        let (from, to) = (data(all, 3), data(all, 4));
        let RegisterValue::Field(field, mut mask) = self.registers.value(register(all, 1)) else {
            return self.condition(FilterMatch::Unknown, "[range]".to_owned());
        };
        if from.len() != to.len() || mask.len() < from.len() {
            return self.condition(FilterMatch::Unknown, "[range]".to_owned());
        }
        mask.truncate(from.len());
        let is_not = number(all, 2) == Some(NOT);
        let words = nft_text::range(self.family, field, from, to, is_not);
        let one = |how, value: &[u8]| FilterMatch::Bytes {
            field,
            mask: mask.clone(),
            how,
            value: value.to_vec(),
        };
        let both = FilterMatch::AllOf(vec![
            one(FilterComparison::AtLeast, from),
            one(FilterComparison::AtMost, to),
        ]);
        let condition = match is_not {
            true => FilterMatch::NoneOf(vec![both]),
            false => both,
        };
        self.condition(condition, words);
    }

    pub(super) fn lookup(&mut self, all: &[u8]) {
        const INVERTED: u32 = 1;
        let set = string(all, 1).unwrap_or_default();
        let is_not = number(all, 5).unwrap_or(0) & INVERTED != 0;
        let not = if is_not { "!= " } else { "" };
        let first = register(all, 2);
        let len = (self.key_len)(&set).or_else(|| self.registers.value(first).len());
        let key = Key::read(&self.registers, first, len.unwrap_or(REGISTER_LEN));
        let name = key.name(self.family);
        if let Some(to) = number(all, 3) {
            // A map. Register 0 is the verdict.
            match to {
                0 => {
                    self.act(FilterAction::Unknown, format!("{name} vmap @{set}"));
                    self.rule.map = Some((set, key));
                }
                _ => {
                    self.registers.set(register(all, 3), RegisterValue::Unknown);
                    self.condition(FilterMatch::Unknown, format!("{name} map @{set}"));
                }
            }
            return;
        }
        let condition = key.unread();
        if key.is_understood() {
            let lookup = SetLookup {
                name: set.clone(),
                key,
                is_not,
            };
            self.rule.lookups.push((self.rule.matches.len(), lookup));
        }
        self.condition(condition, format!("{name} {not}@{set}"));
    }
}

/// The name of a device as it is compared: with its zero it is whole, without it is a prefix.
fn device_name(value: &[u8]) -> (String, bool) {
    let end = value.iter().position(|b| *b == 0);
    let name = &value[..end.unwrap_or(value.len())];
    (String::from_utf8_lossy(name).into_owned(), end.is_none())
}
