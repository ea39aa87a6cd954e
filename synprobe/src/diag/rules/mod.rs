//! The packet filter's rules of a namespace, as far as they can drop a packet, with their counters.
//!
//! They are read only: dumps of nf_tables (nfnetlink) and the table copies of x_tables (`IPT_SO_GET_ENTRIES`).
//! Both need CAP_NET_ADMIN in the namespace's user namespace at the time of the request
//! (`netlink_net_capable()` in net/netfilter/nfnetlink.c, `do_ipt_get_ctl()`). No module is loaded and no table made
//! by it: x_tables would make one that is asked for (`xt_find_table_lock()`, Linux 5.15), so only tables that exist
//! are asked for.

mod nft;
mod nft_compare;
mod nft_expr;
mod nft_key;
mod nft_maps;
mod nft_registers;
mod nft_sets;
mod nft_socket;
mod nft_text;
mod prune;
mod xt_conditions;
mod xt_entries;
mod xt_layout;
mod xtables;

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    model::{FilterChain, FilterFound, FilterMatch, FilterReading, Ruleset},
    sys::{clock::monotonic_ns, netns::NetNs},
};

/// Rules that are read, at most.
const MOST_RULES: usize = 16_384;
/// Rules that are kept, at most: those of chains that can drop.
const MOST_KEPT: usize = 4096;
/// The longest that one reading takes.
const PATIENCE: Duration = Duration::from_millis(500);

/// What bounds one reading.
struct Budget {
    rules_left: usize,
    deadline: Instant,
}

impl Budget {
    /// Takes one rule from it; false: it is used up.
    fn take(&mut self) -> bool {
        if self.rules_left == 0 || Instant::now() > self.deadline {
            return false;
        }
        self.rules_left -= 1;
        true
    }
}

/// Reads the rules of a namespace. Blocks for half a second at most.
pub fn read(netns: &NetNs) -> FilterReading {
    let before_ns = monotonic_ns();
    let read = netns.run(read_here).and_then(|read| read);
    let found = match read {
        Ok(rules) => FilterFound::Rules(rules),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => FilterFound::NotPermitted,
        Err(error) => FilterFound::Failed(error.to_string()),
    };
    FilterReading {
        netns: netns.inode(),
        before_ns,
        at_ns: monotonic_ns(),
        found,
    }
}

/// The same in the calling thread's namespace.
fn read_here() -> io::Result<Ruleset> {
    let mut budget = Budget {
        rules_left: MOST_RULES,
        deadline: Instant::now() + PATIENCE,
    };
    let mut rules = Ruleset::default();
    match is_nf_tables_there() {
        Some(true) => nft::read(&mut budget, &mut rules)?,
        Some(false) => (),
        None => rules.is_partial = true,
    }
    xtables::read(&mut budget, &mut rules)?;
    prune::prune(&mut rules);
    if rules.chains.iter().map(|c| c.rules.len()).sum::<usize>() > MOST_KEPT {
        rules.chains.clear();
        rules.is_partial = true;
    }
    Ok(rules)
}

/// Leaves open which packets are INVALID, where conntrack's counter does not tell.
fn forget_invalid(chains: &mut [FilterChain]) {
    let rules = chains.iter_mut().flat_map(|chain| &mut chain.rules);
    rules.flat_map(|rule| &mut rule.matches).for_each(forget_it);
}

fn forget_it(condition: &mut FilterMatch) {
    match condition {
        FilterMatch::Invalid => *condition = FilterMatch::Undecided,
        FilterMatch::AnyOf(all) | FilterMatch::NoneOf(all) | FilterMatch::AllOf(all) => {
            all.iter_mut().for_each(forget_it);
        }
        _ => (),
    }
}

/// Whether the kernel has nf_tables now. A request would load the module. `None`: not known.
fn is_nf_tables_there() -> Option<bool> {
    if Path::new("/sys/module/nf_tables").exists() {
        return Some(true);
    }
    // Without modules a request cannot load one.
    let Ok(modules) = fs::read_to_string("/proc/modules") else {
        return Some(true);
    };
    if modules.lines().any(|line| line.starts_with("nf_tables ")) {
        return Some(true);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let builtin = format!("/lib/modules/{}/modules.builtin", release.trim());
    let builtin = fs::read_to_string(builtin).ok()?;
    Some(builtin.lines().any(|line| line.ends_with("/nf_tables.ko")))
}

#[cfg(test)]
mod tests;
