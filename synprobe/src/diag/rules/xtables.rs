//! x_tables: the tables of iptables-legacy and ip6tables-legacy (include/uapi/linux/netfilter_ipv4/ip_tables.h).

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{
    Budget,
    xt_entries::parse,
    xt_layout::{CHAINS, EntryLayout, HookPlace, LAYOUTS},
};
use crate::model::{FilterAction, Ruleset};

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; those of IPv6 are the same.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_getinfo`: name, hooks, entry of each, underflow of each, number of entries, size.
const INFO: usize = NAME + 4 + 5 * 4 + 5 * 4 + 4 + 4;
/// `struct ipt_get_entries`: name, size, and aligned to 8 the entries.
const ENTRIES: usize = 40;
/// The largest table that is read, bytes.
const LARGEST: usize = 32 << 20;

/// Adds all chains of the tables that exist.
pub(super) fn read(budget: &mut Budget, rules: &mut Ruleset) -> io::Result<()> {
    for layout in &LAYOUTS {
        let names = match fs::read_to_string(layout.names) {
            Ok(names) => names,
            // x_tables is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => {
                rules.is_partial = true;
                continue;
            }
        };
        for name in names.lines() {
            table(layout, name, budget, rules)?;
        }
    }
    Ok(())
}

fn table(
    layout: &EntryLayout,
    name: &str,
    budget: &mut Budget,
    rules: &mut Ruleset,
) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let raw = unsafe { libc::socket(layout.domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nothing else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut info = vec![0; INFO];
    let named = |bytes: &mut Vec<u8>| {
        let len = name.len().min(NAME - 1);
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    };
    named(&mut info);
    get(&fd, layout, GET_INFO, &mut info)?;
    let size = word(&info, INFO - 4);
    if size > LARGEST {
        rules.is_partial = true;
        return Ok(());
    }
    let mut entries = vec![0; ENTRIES + size];
    named(&mut entries);
    entries[NAME..NAME + 4].copy_from_slice(&(size as u32).to_ne_bytes());
    get(&fd, layout, GET_ENTRIES, &mut entries)?;
    let mut parsed = parse(layout, name, &hooks(&info), &entries[ENTRIES..], budget);
    if name == "raw" {
        // It comes before connection tracking: all packets are INVALID there (`conntrack_mt()`).
        super::forget_invalid(&mut parsed.chains);
    }
    rules.rules_read += parsed.rules_read;
    rules.is_partial |= parsed.is_partial;
    let first = rules.chains.len() as u32;
    rules
        .chains
        .extend(parsed.chains.into_iter().map(|mut chain| {
            for rule in &mut chain.rules {
                if let FilterAction::Jump(to) | FilterAction::Goto(to) = &mut rule.action {
                    *to += first;
                }
            }
            chain
        }));
    Ok(())
}

fn get(fd: &OwnedFd, layout: &EntryLayout, what: libc::c_int, bytes: &mut [u8]) -> io::Result<()> {
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: the kernel writes no more than the length of the live slice.
    let got = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            layout.level,
            what,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match got {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn hooks(info: &[u8]) -> Vec<HookPlace> {
    let valid = (0..CHAINS.len()).filter(|hook| word(info, NAME) >> hook & 1 == 1);
    let place = |hook| HookPlace {
        hook,
        entry: word(info, NAME + 4 + hook * 4),
        policy: word(info, NAME + 24 + hook * 4),
    };
    valid.map(place).collect()
}

/// The chains of a table of IPv4 as two calls returned it, one after the other.
#[cfg(test)]
pub(super) fn of_iptables(bytes: &[u8]) -> Ruleset {
    let (info, entries) = bytes.split_at(INFO.min(bytes.len()));
    let entries = entries.get(ENTRIES..).unwrap_or_default();
    let mut budget = Budget {
        rules_left: 100,
        deadline: std::time::Instant::now() + super::PATIENCE,
    };
    parse(&LAYOUTS[0], "filter", &hooks(info), entries, &mut budget)
}

/// 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    u32::from_ne_bytes(bytes.unwrap_or_default()) as usize
}
