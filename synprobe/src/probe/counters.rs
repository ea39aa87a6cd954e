//! The counters that the kernel side keeps, and those that the kernel keeps of each program.

use std::os::fd::AsFd;

use aya::{Pod, maps::MapError};
use synprobe_ebpf::{
    config::{ROLE_CLIENT, ROLE_SERVER},
    histogram::{BUCKETS, Histogram, OTHERS, SLOTS},
    stats::{STATS_SLOTS, Stats},
};

use super::{
    Probes,
    hooks::{Chosen, DROPS},
    info::runs_and_misses,
};
use crate::model::Role;

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

/// One histogram of one CPU: role, port (`None`: ports without a slot of their own), counts by bucket.
pub type CountedSlot = (Role, Option<u16>, [u64; BUCKETS]);

impl Probes {
    /// The kernel side's counters, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn stats(&self) -> Result<Stats, MapError> {
        let mut sum = Stats::default();
        for slot in 0..STATS_SLOTS {
            for cpu in self.stats.get(&slot, 0)?.iter() {
                sum.add(&cpu.0);
            }
        }
        Ok(sum)
    }

    /// The handshakes that the quiet mode only counts: by role and port, one entry a CPU.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counted(&self) -> Result<Vec<CountedSlot>, MapError> {
        let mut counted = Vec::new();
        for index in 0..SLOTS + OTHERS {
            for PodHistogram(slot) in self.histograms.get(&index, 0)?.iter() {
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
                    counted.push((role, port, slot.counts));
                }
            }
        }
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
