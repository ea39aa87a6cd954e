//! `--max-memory`: the ring, the tables, and the limits that the process itself has.

use super::{Failure, USAGE};
use crate::{
    cli::TuningArgs,
    filter::Detail,
    ring,
    sys::{
        journal::{Priority, message},
        memory_limit, process,
    },
    util::table_bounds::{LEAST_MEMORY, TableBounds, largest_ring, least_memory},
};

/// Another remedy than to raise a limit, of which `beside` is not for `--max-memory`: what fits, where that is enough.
fn or_give_less(limit: u64, beside: u64) -> String {
    match limit.saturating_sub(beside) >> 20 {
        fits if fits >= LEAST_MEMORY >> 20 => format!(", or give --max-memory {fits}M"),
        _ => String::new(),
    }
}

/// What a run needs of the address space beside `--max-memory`: stacks of threads, the ring's second mapping.
const ADDRESSES: u64 = 64 << 20;

/// A run that reaches the limit of the address space ends at once, without a summary.
fn warn_of_address_space(limit: Option<u64>, max_memory: u64) -> Option<String> {
    let limit = limit.filter(|limit| *limit < max_memory + ADDRESSES)?;
    let needed = (max_memory + ADDRESSES) >> 10;
    let less = or_give_less(limit, ADDRESSES);
    Some(format!(
        "the limit of the address space ({} KiB) is too small for --max-memory {}M: a run that fills its tables is ended \
         by it; raise it (ulimit -v {needed}){less}",
        limit >> 10,
        max_memory >> 20,
    ))
}

/// What the kernel counts for a cgroup beside `--max-memory`: maps and other objects of its own, 3 MiB at the start.
const OF_KERNEL: u64 = 16 << 20;

/// The kernel ends a run that reaches the limit of its cgroup, without a word of the run.
fn warn_of_cgroup(limit: Option<u64>, max_memory: u64) -> Option<String> {
    let limit = limit.filter(|limit| *limit < max_memory + OF_KERNEL)?;
    let needed = (max_memory + OF_KERNEL) >> 20;
    let less = or_give_less(limit, OF_KERNEL);
    Some(format!(
        "the memory limit of the cgroup ({} MiB) is too small for --max-memory {}M: the kernel ends a run that fills its \
         tables; raise it to {needed} MiB (MemoryMax= of a unit, limits.memory of a pod){less}",
        limit >> 20,
        max_memory >> 20,
    ))
}

/// The ring's size. It counts against `--max-memory`, and leaves the tables their share of it.
pub(super) fn ring_bytes(args: &TuningArgs, detail: Detail) -> Result<u32, Failure> {
    let warnings = [
        warn_of_address_space(process::address_space(), args.max_memory),
        warn_of_cgroup(memory_limit::of_cgroup(), args.max_memory),
    ];
    for text in warnings.iter().flatten() {
        message(Priority::Warning, text);
    }
    let largest = largest_ring(args.max_memory);
    let Some(requested) = args.ring_size else {
        let mut usual = match detail {
            Detail::Quiet { .. } => 1 << 20,
            _ => 16 << 20,
        };
        while u64::from(usual) > largest {
            usual /= 2;
        }
        return Ok(usual);
    };
    let usable = ring::usable_size(requested)
        .ok_or_else(|| Failure("--ring-size is too large: at most 1G".to_owned(), USAGE))?;
    if u64::from(usable) > largest {
        let text = format!(
            "a ring of {}M does not fit into --max-memory {}M: give --max-memory {}M, or --ring-size {}M",
            usable >> 20,
            args.max_memory >> 20,
            least_memory(usable.into()).div_ceil(1 << 20),
            (1 << largest.ilog2()) >> 20,
        );
        return Err(Failure(text, USAGE));
    }
    if usable != requested {
        let text = format!(
            "ring size {requested} rounded up to {usable}: the kernel needs a power of two of whole pages"
        );
        message(Priority::Info, &text);
    }
    Ok(usable)
}

/// The tables that fit into `--max-memory` beside the ring, and what else takes `other_bytes`; what was given by number
/// is taken as given.
pub(super) fn tables(args: &TuningArgs, other_bytes: u64) -> TableBounds {
    let mut tables = TableBounds::within(args.max_memory, other_bytes);
    if let Some(handshakes) = args.max_handshakes {
        tables.half_opens = handshakes as usize;
        tables.clients = handshakes as usize;
    }
    if let Some(peers) = args.max_peers {
        tables.peers = peers as usize;
        tables.silent_peers = tables.silent_peers.min(tables.peers);
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_address_space_is_told_with_what_fits() {
        const MIB: u64 = 1 << 20;
        assert_eq!(warn_of_address_space(None, 256 * MIB), None);
        assert_eq!(warn_of_address_space(Some(320 * MIB), 256 * MIB), None);
        let small = warn_of_address_space(Some(200 * MIB), 256 * MIB).unwrap();
        assert!(
            small.contains("(ulimit -v 327680), or give --max-memory 136M"),
            "{small}"
        );
        let tiny = warn_of_address_space(Some(100 * MIB), 64 * MIB).unwrap();
        assert!(tiny.ends_with("raise it (ulimit -v 131072)"), "{tiny}");
    }

    #[test]
    fn a_small_cgroup_is_told_with_what_fits() {
        const MIB: u64 = 1 << 20;
        assert_eq!(warn_of_cgroup(None, 256 * MIB), None);
        assert_eq!(warn_of_cgroup(Some(272 * MIB), 256 * MIB), None);
        let small = warn_of_cgroup(Some(128 * MIB), 256 * MIB).unwrap();
        assert!(small.contains("raise it to 272 MiB"), "{small}");
        assert!(small.ends_with("or give --max-memory 112M"), "{small}");
        let tiny = warn_of_cgroup(Some(48 * MIB), 64 * MIB).unwrap();
        assert!(!tiny.contains("or give"), "{tiny}");
    }
}
