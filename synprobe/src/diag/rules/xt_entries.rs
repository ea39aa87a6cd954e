//! The entries of a table of x_tables, as one block of memory: to chains and rules.

use std::{collections::HashMap, path::Path};

use super::{
    Budget,
    nft_expr::xt_target,
    nft_text, xt_conditions,
    xt_layout::{CHAINS, EntryLayout, HOOKS, HookPlace},
};
use crate::model::{
    FilterAction, FilterBackend, FilterBase, FilterChain, FilterComparison, FilterFamily,
    FilterMatch, FilterRule, PacketField, Ruleset,
};

/// The header of a match and of a target: size, name, revision.
const XT_HEADER: usize = 32;

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes).into())
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The chains of a table's entries: those of hooks first in their order, each begins where its hook does or at an
/// entry with the target ERROR, which names it.
pub(super) fn parse(
    layout: &EntryLayout,
    table: &str,
    hooks: &[HookPlace],
    entries: &[u8],
    budget: &mut Budget,
) -> Ruleset {
    let mut rules = Ruleset::default();
    // Chains by the offset of their first rule.
    let mut places: HashMap<usize, u32> = HashMap::new();
    let mut jumps: Vec<(usize, usize, usize)> = Vec::new();
    let mut at = 0;
    while at + layout.entry <= entries.len() {
        let entry = &entries[at..];
        let (Some(target), Some(next)) = (
            half(entry, layout.target_offset),
            half(entry, layout.target_offset + 2),
        ) else {
            break;
        };
        let Some(entry) = entry.get(..next).filter(|e| {
            next >= layout.entry + XT_HEADER
                && target >= layout.entry
                && target + XT_HEADER <= e.len()
        }) else {
            rules.is_partial = true;
            break;
        };
        let target = &entry[target..];
        let name = text(&target[2..31]);
        let hook = hooks.iter().find(|hook| hook.entry == at);
        if let Some(hook) = hook {
            places.insert(at, rules.chains.len() as u32);
            rules
                .chains
                .push(chain(layout, table, CHAINS[hook.hook], Some(hook.hook)));
        } else if name == "ERROR" && at + next == entries.len() {
            break;
        } else if name == "ERROR" {
            let user = text(target.get(XT_HEADER..).unwrap_or_default());
            places.insert(at + next, rules.chains.len() as u32);
            rules.chains.push(chain(layout, table, &user, None));
            at += next;
            continue;
        }
        rules.rules_read += 1;
        if !budget.take() {
            rules.is_partial = true;
            break;
        }
        let counter = entry
            .get(layout.counters..layout.counters + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_ne_bytes);
        let policy = hooks.iter().find(|hook| hook.policy == at);
        let Some(last) = rules.chains.len().checked_sub(1) else {
            break;
        };
        let chain = &mut rules.chains[last];
        if let (Some(_), Some(base)) = (policy, &mut chain.base) {
            base.drops = verdict(target) == Some(-1);
            base.counter = counter;
        } else {
            let mut rule = rule(layout, entry, target, &name, chain.rules.len() as u64 + 1);
            rule.counter = counter;
            if let FilterAction::Jump(_) | FilterAction::Goto(_) = rule.action {
                let to = verdict(target).unwrap_or(0) as usize;
                match to == at + next {
                    // A rule without a target goes on.
                    true => rule.action = FilterAction::Continue,
                    false => jumps.push((last, chain.rules.len(), to)),
                }
            }
            chain.rules.push(rule);
        }
        at += next;
    }
    for (chain, rule, to) in jumps {
        let place = places.get(&to).copied();
        let name = place.map(|place| rules.chains[place as usize].name.clone());
        let rule = &mut rules.chains[chain].rules[rule];
        rule.action = match (rule.action, place) {
            (FilterAction::Jump(_), Some(place)) => FilterAction::Jump(place),
            (_, Some(place)) => FilterAction::Goto(place),
            (_, None) => FilterAction::Unknown,
        };
        if let Some(name) = name.as_deref().and_then(|name| name.rsplit(' ').next()) {
            rule.text.push_str(&format!(" -j {name}"));
            rule.text = rule.text.trim_start().to_owned();
        }
    }
    rules
}

fn chain(layout: &EntryLayout, table: &str, name: &str, hook: Option<usize>) -> FilterChain {
    let plain = |name: &str| {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
        !name.is_empty() && !name.starts_with('-') && name.bytes().all(ok)
    };
    // Where iptables is that of nf_tables, the other one has this name.
    let legacy = ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|dir| {
        Path::new(dir)
            .join(format!("{}-legacy", layout.command))
            .exists()
    });
    let suffix = if legacy { "-legacy" } else { "" };
    let command = format!("{}{suffix}", layout.command);
    FilterChain {
        name: format!("{} table {table} chain {name}", layout.command),
        show: (plain(name) && plain(table))
            .then(|| format!("{command} -t {table} -L {name} -v -n --line-numbers")),
        backend: FilterBackend::Legacy,
        family: if layout.v6 {
            FilterFamily::V6
        } else {
            FilterFamily::V4
        },
        base: hook.map(|hook| FilterBase {
            hook: HOOKS[hook],
            devices: Vec::new(),
            drops: false,
            counter: None,
        }),
        rules: Vec::new(),
    }
}

/// The verdict of a standard target.
fn verdict(target: &[u8]) -> Option<i32> {
    let bytes = target.get(XT_HEADER..XT_HEADER + 4)?.try_into().ok()?;
    Some(i32::from_ne_bytes(bytes))
}

fn rule(layout: &EntryLayout, entry: &[u8], target: &[u8], name: &str, number: u64) -> FilterRule {
    let mut matches = Vec::new();
    let mut words = Vec::new();
    header(layout, entry, &mut matches, &mut words);
    let mut at = layout.entry;
    let end = half(entry, layout.target_offset).unwrap_or(at);
    while at + XT_HEADER <= end {
        let Some(size) = half(entry, at).filter(|size| *size >= XT_HEADER && at + size <= end)
        else {
            matches.push(FilterMatch::Unknown);
            break;
        };
        let one = &entry[at..at + size];
        let (condition, text) =
            xt_conditions::condition(&text(&one[2..31]), one[31].into(), &one[XT_HEADER..]);
        matches.push(condition);
        words.push(text);
        at += size;
    }
    let action = match (name, verdict(target).unwrap_or(0)) {
        ("", -1) => (FilterAction::Drop, "-j DROP"),
        ("", -2) => (FilterAction::Accept, "-j ACCEPT"),
        ("", -5) => (FilterAction::Return, "-j RETURN"),
        ("", 0..) if entry[layout.flags] & layout.goto != 0 => (FilterAction::Goto(0), ""),
        ("", 0..) => (FilterAction::Jump(0), ""),
        ("", _) => (FilterAction::Unknown, "-j ?"),
        (name, _) => (xt_target(name), ""),
    };
    let (action, word) = action;
    words.push(match name {
        "" => word.to_owned(),
        name => format!("-j {name}"),
    });
    words.retain(|word| !word.is_empty());
    FilterRule {
        handle: number,
        text: words.join(" "),
        matches,
        counter: None,
        action,
    }
}

/// Addresses, devices and protocol of an entry.
fn header(
    layout: &EntryLayout,
    entry: &[u8],
    matches: &mut Vec<FilterMatch>,
    words: &mut Vec<String>,
) {
    const DEVICE: usize = 16;
    /// `IPT_INV_…`, `IP6T_INV_…`.
    const VIA_IN: u8 = 1;
    const VIA_OUT: u8 = 2;
    const TOS: u8 = 4;
    const SOURCE: u8 = 8;
    const DESTINATION: u8 = 0x10;
    const FRAGMENT: u8 = 0x20;
    const PROTOCOL: u8 = 0x40;
    let inverted = entry[layout.inverted];
    let not = |bit: u8| if inverted & bit != 0 { "! " } else { "" };
    let is = |bit: u8| match inverted & bit != 0 {
        true => FilterComparison::IsNot,
        false => FilterComparison::Is,
    };
    let len = layout.address;
    let (source, destination) = if layout.v6 { (8, 24) } else { (12, 16) };
    for (n, at, bit, word) in [
        (0, source, SOURCE, "-s"),
        (1, destination, DESTINATION, "-d"),
    ] {
        let value = &entry[n * len..(n + 1) * len];
        let mask = &entry[(n + 2) * len..(n + 3) * len];
        if mask.iter().all(|b| *b == 0) {
            continue;
        }
        let shown = nft_text::network(layout.v6, mask, value).unwrap_or_default();
        words.push(format!("{}{word} {shown}", not(bit)));
        matches.push(FilterMatch::Bytes {
            field: PacketField::Network(at),
            mask: mask.to_vec(),
            how: is(bit),
            value: value.to_vec(),
        });
    }
    for (n, came_by, bit, word) in [(0, true, VIA_IN, "-i"), (1, false, VIA_OUT, "-o")] {
        let at = layout.devices + n * DEVICE;
        let mask = &entry[at + 2 * DEVICE..at + 3 * DEVICE];
        if mask.iter().all(|b| *b == 0) {
            continue;
        }
        // The mask of a whole name includes its zero; that of a prefix leaves out the +.
        let mut named = text(&entry[at..at + DEVICE]);
        let masked = mask.iter().filter(|b| **b != 0).count();
        let is_prefix = masked <= named.len();
        if is_prefix && named.is_char_boundary(masked) {
            named.truncate(masked);
        }
        let plus = if is_prefix { "+" } else { "" };
        words.push(format!("{}{word} {named}{plus}", not(bit)));
        matches.push(FilterMatch::Device {
            came_by,
            name: named,
            is_prefix,
            is_not: inverted & bit != 0,
        });
    }
    let protocol = half(entry, layout.protocol).unwrap_or(0);
    if protocol != 0 {
        let shown = match protocol {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            1 => "icmp".to_owned(),
            58 => "ipv6-icmp".to_owned(),
            other => other.to_string(),
        };
        words.push(format!("{}-p {shown}", not(PROTOCOL)));
        matches.push(FilterMatch::Bytes {
            field: PacketField::Protocol,
            mask: vec![0xff],
            how: is(PROTOCOL),
            value: vec![protocol as u8],
        });
    }
    let is_fragment = !layout.v6 && entry[layout.flags] & 1 != 0;
    if is_fragment || inverted & (FRAGMENT | TOS) != 0 {
        words.push("-f".to_owned());
        matches.push(FilterMatch::Undecided);
    }
}
