//! Counts a healthy handshake in quiet mode: two additions to counters of this CPU.

use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use synprobe_ebpf::histogram::{Histogram, PROBES, SLOTS, bucket, first_slot, key};

use crate::maps::HISTOGRAMS;

/// Counts a handshake. Returns false where there is no slot; a record is needed then.
#[inline(always)]
pub fn count(role: u32, port: u16, dwell_us: u32) -> bool {
    let Some(slot) = slot_of(role, port) else {
        return false;
    };
    add(&mut slot.sum_us, dwell_us.into());
    // Opaque, and after the last call. The compiler knows that the bucket is in bounds and would omit the
    // check, or use a copy on the stack, whose bounds the verifier of 6.1 and earlier does not track.
    let at = black_box(bucket(dwell_us));
    match slot.counts.get_mut(at) {
        Some(count) => {
            add(count, 1);
            true
        }
        None => false,
    }
}

/// Adds in one instruction (`BPF_ATOMIC | BPF_ADD`, formerly `BPF_XADD`), because the program's
/// stand-in may interrupt it. The target has no atomic types.
#[inline(always)]
fn add(count: &mut u64, more: u64) {
    // SAFETY: the pointer is to eight live, aligned bytes.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, more) };
}

/// The slot of a key, claiming a free one; the role's overflow slot where none is free.
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
    // SAFETY: a per-CPU slot that only this CPU's program writes. From 6.1 a raw tracepoint program does
    // not re-enter itself on a CPU. Before, an interrupting softirq may cost a count, never memory safety.
    HISTOGRAMS
        .get_ptr_mut(index)
        .map(|slot| unsafe { &mut *slot })
}
