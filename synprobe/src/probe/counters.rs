//! The counters that the kernel side keeps, and those that the kernel keeps of each program.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
};

use aya::{Pod, maps::MapError};
use synprobe_ebpf::{
    config::{ROLE_CLIENT, ROLE_SERVER},
    histogram::{AcceptHistogram, BUCKETS, Histogram, OTHERS, PROBES, SLOTS, first_slot, key},
    stats::{STATS_SLOTS, Stats},
};

use super::{
    Probes,
    hooks::{Chosen, DROPS},
    info::runs_and_misses,
};
use crate::model::{AcceptCounts, Process, Role};

/// [`Stats`] as the map stores it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct PodStats(Stats);

// SAFETY: repr(transparent) over a repr(C) struct of u64 arrays: every byte pattern is a valid value.
unsafe impl Pod for PodStats {}

/// [`Histogram`] as the map stores it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct PodHistogram(Histogram);

// SAFETY: repr(transparent) over a repr(C) struct of integers: every byte pattern is a valid value.
unsafe impl Pod for PodHistogram {}

/// [`AcceptHistogram`] as the map stores it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct PodAcceptHistogram(AcceptHistogram);

// SAFETY: repr(transparent) over a repr(C) struct of integers: every byte pattern is a valid value.
unsafe impl Pod for PodAcceptHistogram {}

/// One histogram of one CPU: role, port (`None`: ports without a slot of their own), counts by bucket, and the
/// sum of the times in microseconds.
pub type CountedSlot = (Role, Option<u16>, [u64; BUCKETS], u64);

impl Probes {
    /// The kernel side's counters, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn stats(&self) -> Result<Stats, MapError> {
        let mut sum = Stats::default();
        self.stats.each(0..STATS_SLOTS, |_, cpus| {
            cpus.iter().for_each(|cpu| sum.add(&cpu.0));
        })?;
        Ok(sum)
    }

    /// The handshakes that the quiet mode only counts: by role and port, one entry a CPU.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counted(&self) -> Result<Vec<CountedSlot>, MapError> {
        self.counted_in(0..SLOTS + OTHERS)
    }

    /// The same of these ports of this host's servers, and of all ports without a slot of their own. It reads few
    /// slots: on a host with many CPUs a slot is long.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counted_of(&self, ports: &[u16]) -> Result<Vec<CountedSlot>, MapError> {
        let near = |port: &u16| {
            let first = first_slot(key(ROLE_SERVER, *port));
            (0..PROBES).map(move |step| (first + step) & (SLOTS - 1))
        };
        let slots: BTreeSet<u32> = ports.iter().flat_map(near).collect();
        self.counted_in(slots.into_iter().chain(SLOTS..SLOTS + OTHERS))
    }

    /// How long connections waited for accept(), by namespace and port; empty where accept() is not watched.
    /// Those of ports without a slot of their own are left out.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn accept_waits(&self) -> Result<Vec<AcceptCounts>, MapError> {
        let Some(map) = &self.accept_waits else {
            return Ok(Vec::new());
        };
        let mut sums: BTreeMap<(u32, u16), AcceptCounts> = BTreeMap::new();
        map.each(0..SLOTS, |_, cpus| {
            for PodAcceptHistogram(slot) in cpus {
                let port = slot.key as u16;
                if slot.key == 0 {
                    continue;
                }
                let sum = sums.entry((slot.netns, port)).or_default();
                (sum.netns, sum.port) = (slot.netns, port);
                sum.total_us += slot.total_us;
                sum.counts.resize(BUCKETS, 0);
                for (sum, count) in sum.counts.iter_mut().zip(slot.counts) {
                    *sum += count;
                }
                if slot.tgid != 0 {
                    let comm = slot.comm.map(u64::to_ne_bytes).concat();
                    let len = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
                    sum.accepted_by = Some(Process {
                        pid: slot.tgid as u32,
                        comm: String::from_utf8_lossy(&comm[..len]).into(),
                    });
                }
            }
        })?;
        Ok(sums.into_values().collect())
    }

    fn counted_in(&self, slots: impl Iterator<Item = u32>) -> Result<Vec<CountedSlot>, MapError> {
        let mut counted = Vec::new();
        self.histograms.each(slots, |index, cpus| {
            for PodHistogram(slot) in cpus {
                let (role, port) = match index.checked_sub(SLOTS) {
                    Some(other) => (other + 1, None),
                    None => (slot.key >> 16, Some(slot.key as u16)),
                };
                let role = match role {
                    ROLE_CLIENT => Role::Client,
                    ROLE_SERVER => Role::Server,
                    _ => continue,
                };
                if slot.counts.iter().any(|count| *count > 0) {
                    counted.push((role, port, slot.counts, slot.sum_us));
                }
            }
        })?;
        Ok(counted)
    }

    /// How often the kernel skipped one of the programs because it was already running on that CPU
    /// (`bpf_prog_info.recursion_misses`; for raw tracepoints since Linux 6.1, which added the check).
    /// These events are lost, except those that the stand-in program took ([`Stats::stood_in`]). The
    /// program on [`DROPS`] is not included: see [`Self::drops_skipped`].
    pub fn skipped(&self) -> u64 {
        self.misses(|chosen| chosen.hook.name != DROPS)
    }

    /// As [`Self::skipped`], of the program on [`DROPS`]. It runs for every dropped packet, and very few
    /// of those give a record.
    pub fn drops_skipped(&self) -> u64 {
        self.misses(|chosen| chosen.hook.name == DROPS)
    }

    fn misses(&self, of: impl Fn(&Chosen) -> bool) -> u64 {
        self.attached
            .iter()
            .filter(|(chosen, _)| of(chosen))
            .filter_map(|(chosen, _)| self.ebpf.program(chosen.program)?.fd().ok())
            .filter_map(|fd| runs_and_misses(fd.as_fd()))
            .map(|(_, misses)| misses)
            .sum()
    }
}
