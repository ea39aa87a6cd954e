//! The quiet mode's only write: one counter of this CPU's own.

use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use synprobe_ebpf::histogram::{Histogram, PROBES, SLOTS, bucket, first_slot, key};

use crate::maps::HISTOGRAMS;

/// Counts a handshake; false: the kernel gave no slot, and a record has to tell of it.
#[inline(always)]
pub fn count(role: u32, port: u16, dwell_us: u32) -> bool {
    let Some(slot) = slot_of(role, port) else {
        return false;
    };
    // Opaque, and after the last call: the compiler would leave the check out, for it knows that the
    // bucket is in bounds, or use a copy from the stack, of which the verifier of 6.1 and earlier knows
    // no bounds.
    let at = black_box(bucket(dwell_us));
    match slot.counts.get_mut(at) {
        Some(count) => {
            add_one(count);
            true
        }
        None => false,
    }
}

/// In one instruction (`BPF_ATOMIC | BPF_ADD`, once `BPF_XADD`): the program's stand-in may count in the
/// midst of it. The target has no atomic types.
#[inline(always)]
fn add_one(count: &mut u64) {
    // SAFETY: eight aligned bytes that are alive.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1) };
}

/// The slot that has this key, or takes it now; where there is none, that of all others.
#[inline(always)]
fn slot_of<'a>(role: u32, port: u16) -> Option<&'a mut Histogram> {
    let key = key(role, port);
    let first = first_slot(key);
    let mut step = 0;
    while step < PROBES {
        let slot = slot((first + step) & (SLOTS - 1))?;
        if slot.key == key || slot.key == 0 {
            slot.key = key;
            return Some(slot);
        }
        step += 1;
    }
    slot(SLOTS + role - 1)
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
