//! x_tables: the tables of iptables-legacy and ip6tables-legacy (include/uapi/linux/netfilter_ipv4/ip_tables.h).

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{Budget, xt_entries::parse};
use crate::model::{FilterAction, FilterHook, Ruleset};

/// By number (`enum nf_inet_hooks`).
pub(super) const HOOKS: [FilterHook; 6] = [
    FilterHook::Prerouting,
    FilterHook::Input,
    FilterHook::Forward,
    FilterHook::Output,
    FilterHook::Postrouting,
    FilterHook::Ingress,
];
/// Names of the chains of hooks.
pub(super) const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
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

/// What differs between IPv4 and IPv6.
pub(super) struct EntryLayout {
    pub v6: bool,
    /// Where tables are listed that exist.
    pub names: &'static str,
    pub domain: libc::c_int,
    pub level: libc::c_int,
    /// Bytes of an address, and where the interfaces, the protocol, the flags and the inversions stand.
    pub address: usize,
    pub devices: usize,
    pub protocol: usize,
    pub flags: usize,
    pub inverted: usize,
    /// Where the offset of the target stands, and the counters.
    pub target_offset: usize,
    pub counters: usize,
    pub entry: usize,
    /// The flag of a goto (`IPT_F_GOTO`, `IP6T_F_GOTO`).
    pub goto: u8,
    pub command: &'static str,
}

/// `struct ipt_entry` with `struct ipt_ip`, `struct ip6t_entry` with `struct ip6t_ip6`.
const LAYOUTS: [EntryLayout; 2] = [
    EntryLayout {
        v6: false,
        names: "/proc/thread-self/net/ip_tables_names",
        domain: libc::AF_INET,
        level: libc::IPPROTO_IP,
        address: 4,
        devices: 16,
        protocol: 80,
        flags: 82,
        inverted: 83,
        target_offset: 88,
        counters: 96,
        entry: 112,
        goto: 2,
        command: "iptables",
    },
    EntryLayout {
        v6: true,
        names: "/proc/thread-self/net/ip6_tables_names",
        domain: libc::AF_INET6,
        level: libc::IPPROTO_IPV6,
        address: 16,
        devices: 64,
        protocol: 128,
        flags: 131,
        inverted: 132,
        target_offset: 140,
        counters: 152,
        entry: 168,
        goto: 4,
        command: "ip6tables",
    },
];

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

/// Where a hook's chain begins, and the entry of its policy.
pub(super) struct HookPlace {
    pub hook: usize,
    pub entry: usize,
    pub policy: usize,
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
