//! nf_tables: chains and rules of every family (include/uapi/linux/netfilter/nf_tables.h).

use std::{
    collections::{HashMap, HashSet},
    io,
};

use super::{
    Budget,
    nft_expr::parse_rule,
    nft_maps::{MapLookup, expand},
    nft_sets,
    nft_socket::{DumpEnd, Next, NftSocket, attr, number, number64, string},
};
use crate::{
    diag::netlink::NetlinkAttributes,
    model::{
        FilterAction, FilterBackend, FilterBase, FilterChain, FilterFamily, FilterHook, FilterRule,
        Ruleset,
    },
};

/// A dump is repeated so often where the rules change meanwhile.
const TRIES: usize = 3;
/// `NFT_TABLE_F_DORMANT`: its chains are not entered.
const DORMANT: u32 = 1;
const ALL_FAMILIES: u8 = libc::NFPROTO_UNSPEC as u8;

/// A chain's place: family, table, name.
type ChainKey = (u8, String, String);

/// Adds all chains of nf_tables.
pub(super) fn read(budget: &mut Budget, rules: &mut Ruleset) -> io::Result<()> {
    for n in 0..TRIES {
        let mut found = Ruleset::default();
        let whole = read_once(budget, &mut found)?;
        if whole || n + 1 == TRIES {
            rules.is_partial |= found.is_partial || !whole;
            rules.rules_read += found.rules_read;
            rules.chains.append(&mut found.chains);
            break;
        }
    }
    Ok(())
}

/// Whether nothing changed meanwhile.
fn read_once(budget: &mut Budget, rules: &mut Ruleset) -> io::Result<bool> {
    let before = generation()?;
    let mut dormant: HashSet<(u8, String)> = HashSet::new();
    let mut socket = NftSocket::open()?;
    let mut whole = true;
    let mut dump = |socket: &mut NftSocket, kind, each: &mut dyn FnMut(u8, &[u8]) -> Next| {
        let end = socket.dump(kind, ALL_FAMILIES, &[], each)?;
        whole &= end != DumpEnd::Interrupted;
        io::Result::Ok(end)
    };
    dump(&mut socket, libc::NFT_MSG_GETTABLE, &mut |family, table| {
        if number(table, 2).unwrap_or(0) & DORMANT != 0
            && let Some(name) = string(table, 1)
        {
            dormant.insert((family, name));
        }
        Next::Go
    })?;
    let mut places: HashMap<ChainKey, usize> = HashMap::new();
    let mut is_early = false;
    dump(&mut socket, libc::NFT_MSG_GETCHAIN, &mut |family, chain| {
        let (Some(table), Some(name)) = (string(chain, 1), string(chain, 3)) else {
            return Next::Go;
        };
        if family == libc::NFPROTO_ARP as u8 || dormant.contains(&(family, table.clone())) {
            return Next::Go;
        }
        is_early |= is_before_conntrack(family, chain);
        places.insert((family, table.clone(), name.clone()), rules.chains.len());
        rules.chains.push(FilterChain {
            name: format!("table {} {table} chain {name}", family_name(family)),
            show: show(family, &table, &name),
            backend: FilterBackend::Nft,
            family: family_of(family),
            base: base(family, chain),
            rules: Vec::new(),
        });
        Next::Go
    })?;
    let sets = nft_sets::Sets::read(&mut socket)?;
    let mut lookups = Vec::new();
    let mut maps = Vec::new();
    let end = dump(&mut socket, libc::NFT_MSG_GETRULE, &mut |family, rule| {
        rules.rules_read += 1;
        if !budget.take() {
            return Next::Stop;
        }
        let (Some(table), Some(chain)) = (string(rule, 1), string(rule, 2)) else {
            return Next::Go;
        };
        let Some(at) = places.get(&(family, table.clone(), chain)) else {
            return Next::Go;
        };
        let expressions = NetlinkAttributes::new(attr(rule, 4).unwrap_or_default());
        let key_len = |set: &str| sets.key_len(&(family, table.clone(), set.to_owned()));
        let parsed = parse_rule(family, expressions.map(|(_, value)| value), &key_len);
        let to = |name: &Option<String>| {
            let key = (family, table.clone(), name.clone()?);
            Some(*places.get(&key)? as u32)
        };
        let action = match parsed.action {
            FilterAction::Jump(_) => to(&parsed.chain).map(FilterAction::Jump),
            FilterAction::Goto(_) => to(&parsed.chain).map(FilterAction::Goto),
            other => Some(other),
        };
        let chain = &mut rules.chains[*at];
        for (condition, set) in &parsed.lookups {
            let place = (*at, chain.rules.len(), *condition);
            lookups.push((
                place,
                (family, table.clone(), set.name.clone()),
                set.clone(),
            ));
        }
        maps.extend(parsed.map.map(|(name, key)| MapLookup {
            chain: *at,
            rule: chain.rules.len(),
            map: (family, table.clone(), name),
            key,
        }));
        chain.rules.push(FilterRule {
            handle: number64(rule, 3).unwrap_or(0),
            text: parsed.text,
            matches: parsed.matches,
            counter: parsed.counter,
            action: action.unwrap_or(FilterAction::Unknown),
        });
        Next::Go
    })?;
    if end == DumpEnd::Stopped {
        rules.is_partial = true;
    } else {
        sets.fill_in(&mut socket, budget, lookups, rules)?;
        let chain = |(family, table, _): &(u8, String, String), name: &str| {
            let key = (*family, table.clone(), name.to_owned());
            Some(*places.get(&key)? as u32)
        };
        expand(&sets, &mut socket, budget, maps, rules, chain)?;
    }
    if is_early {
        super::forget_invalid(&mut rules.chains);
    }
    Ok(whole && generation()? == before)
}

/// Whether a base chain sees packets before connection tracking does: all of them are INVALID there
/// (`nft_ct_get_eval()`), and conntrack has not counted them.
fn is_before_conntrack(family: u8, chain: &[u8]) -> bool {
    let Some(priority) = attr(chain, 4).and_then(|hook| number(hook, 2)) else {
        return false;
    };
    let layer2 = [libc::NFPROTO_NETDEV, libc::NFPROTO_BRIDGE].contains(&i32::from(family));
    layer2 || priority as i32 <= libc::NF_IP_PRI_CONNTRACK
}

/// The number of the ruleset's version (NFT_MSG_GETGEN): each transaction raises it.
fn generation() -> io::Result<Option<u32>> {
    let mut id = None;
    NftSocket::open()?.get(libc::NFT_MSG_GETGEN, |generation| {
        id = number(generation, 1)
    })?;
    Ok(id)
}

fn family_of(family: u8) -> FilterFamily {
    match libc::c_int::from(family) {
        libc::NFPROTO_IPV4 => FilterFamily::V4,
        libc::NFPROTO_IPV6 => FilterFamily::V6,
        _ => FilterFamily::Any,
    }
}

fn family_name(family: u8) -> &'static str {
    match libc::c_int::from(family) {
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_NETDEV => "netdev",
        libc::NFPROTO_BRIDGE => "bridge",
        _ => "?",
    }
}

fn show(family: u8, table: &str, chain: &str) -> Option<String> {
    let plain = |name: &str| {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        !name.is_empty() && !name.starts_with('-') && name.bytes().all(ok)
    };
    (plain(table) && plain(chain))
        .then(|| format!("nft -a list chain {} {table} {chain}", family_name(family)))
}

fn base(family: u8, chain: &[u8]) -> Option<FilterBase> {
    let hook = attr(chain, 4)?;
    let number_of_hook = number(hook, 1)?;
    let device = |value: &[u8]| {
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        String::from_utf8_lossy(&value[..end]).into_owned()
    };
    let mut devices: Vec<String> = attr(hook, 3).map(device).into_iter().collect();
    let more = NetlinkAttributes::new(attr(hook, 4).unwrap_or_default());
    devices.extend(more.map(|(_, value)| device(value)));
    devices.sort();
    devices.dedup();
    Some(FilterBase {
        hook: hook_of(family, number_of_hook)?,
        devices,
        // NFTA_CHAIN_POLICY: NF_DROP is 0.
        drops: number(chain, 5) == Some(libc::NF_DROP as u32),
        counter: attr(chain, 8).and_then(|counters| number64(counters, 2)),
    })
}

fn hook_of(family: u8, number: u32) -> Option<FilterHook> {
    if i32::from(family) == libc::NFPROTO_BRIDGE {
        return Some(FilterHook::Bridge);
    }
    if i32::from(family) == libc::NFPROTO_NETDEV {
        return [FilterHook::Ingress, FilterHook::Egress]
            .get(number as usize)
            .copied();
    }
    super::xt_layout::HOOKS.get(number as usize).copied()
}
