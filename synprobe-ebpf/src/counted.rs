//! The quiet mode's only write: one counter of this CPU's own.

use core::hint::black_box;

use synprobe_ebpf::histogram::{Histogram, PROBES, SLOTS, bucket, first_slot, key};

use crate::maps::HISTOGRAMS;

/// Counts a handshake; false: the kernel gave no slot, and a record has to tell of it.
#[inline(always)]
pub fn count(role: u32, port: u16, dwell_us: u32) -> bool {
    let key = key(role, port);
    // The compiler knows that it is in bounds and the verifier does not: the check must stay.
    let at = black_box(bucket(dwell_us));
    let first = first_slot(key);
    let mut step = 0;
    while step < PROBES {
        let Some(slot) = slot((first + step) & (SLOTS - 1)) else {
            return false;
        };
        if slot.key == key || slot.key == 0 {
            slot.key = key;
            return add(slot, at);
        }
        step += 1;
    }
    slot(SLOTS + role - 1).is_some_and(|others| add(others, at))
}

#[inline(always)]
fn slot<'a>(index: u32) -> Option<&'a mut Histogram> {
    // SAFETY: a per-CPU slot that only this CPU's program writes. From 6.1 a raw tracepoint program
    // does not re-enter itself on a CPU; before, a softirq that interrupts it may cost a count, never
    // memory safety.
    HISTOGRAMS
        .get_ptr_mut(index)
        .map(|slot| unsafe { &mut *slot })
}

#[inline(always)]
fn add(slot: &mut Histogram, at: usize) -> bool {
    slot.counts.get_mut(at).map(|count| *count += 1).is_some()
}
