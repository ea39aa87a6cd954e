//! Writes records to the ring. Counts every record, and every lost record by its reason.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    maps::PerCpuArray,
};
use synprobe_ebpf::{
    event::{Header, KIND_EARLY_RESET, KINDS, Wire},
    stats::{REGULAR, Stats},
};

use crate::{
    kread::ReadError,
    maps::{EVENTS, RecordSecond, STATS},
};

const SECOND_NS: u64 = 1_000_000_000;

#[inline(always)]
fn count(slot: u32, kind: u16, pick: fn(&mut Stats) -> &mut [u64; KINDS]) {
    with_stats(slot, |stats| {
        if let Some(n) = pick(stats).get_mut(kind as usize) {
            *n += 1;
        }
    });
}

/// Increments a counter that is not per kind.
#[inline(always)]
pub fn tally(slot: u32, pick: fn(&mut Stats) -> &mut u64) {
    with_stats(slot, |stats| *pick(stats) += 1);
}

#[inline(always)]
fn with_stats(slot: u32, change: impl FnOnce(&mut Stats)) {
    if let Some(stats) = STATS.get_ptr_mut(slot) {
        // SAFETY: only this CPU's programs write the slot, each counter one of them. From 6.1 a raw
        // tracepoint program does not re-enter itself on a CPU. Before, an interrupting softirq may cost a
        // count, never memory safety.
        change(unsafe { &mut *stats });
    }
}

/// Reserves a record of type `R`, lets `fill` write it, and submits it. A record that `fill` cannot
/// complete is discarded and counted as unread.
#[inline(always)]
pub fn emit<R: Wire>(fill: impl FnOnce(&mut R, Header) -> Result<(), ReadError>) {
    emit_by(REGULAR, fill);
}

/// As [`emit`], counting in the given slot.
#[inline(always)]
pub fn emit_by<R: Wire>(slot: u32, fill: impl FnOnce(&mut R, Header) -> Result<(), ReadError>) {
    count(slot, R::KIND, |s| &mut s.produced);
    let Some(mut entry) = EVENTS.reserve::<R>(0) else {
        count(slot, R::KIND, |s| &mut s.dropped);
        return;
    };
    let record = zeroed(entry.as_mut_ptr());
    let header = Header {
        kind: R::KIND,
        len: size_of::<R>() as u16,
        // SAFETY: a helper without arguments.
        cpu: unsafe { bpf_get_smp_processor_id() },
        // SAFETY: a helper without arguments.
        ts_ns: unsafe { bpf_ktime_get_ns() },
    };
    match fill(record, header) {
        // Flags 0: the kernel wakes the agent only if it has read all earlier records
        // (kernel/bpf/ringbuf.c, bpf_ringbuf_commit). The agent lets records accumulate before it reads,
        // so under load there is no wake-up per record.
        Ok(()) => entry.submit(0),
        Err(_) => {
            entry.discard(0);
            count(slot, R::KIND, |s| &mut s.unread);
        }
    }
}

/// Zeroes a record word by word. `Default` would compile to a memset, which on this target is a loop over
/// bytes.
#[inline(always)]
fn zeroed<'a, R: Wire>(record: *mut R) -> &'a mut R {
    let words = record.cast::<u64>();
    let mut n = 0;
    while n < size_of::<R>() / size_of::<u64>() {
        // SAFETY: inside the record, which is word-aligned and all integers (`Wire`). Volatile prevents a
        // memset.
        unsafe { words.add(n).write_volatile(0) };
        n += 1;
    }
    // SAFETY: valid for every byte pattern, and there is no other reference.
    unsafe { &mut *record }
}

/// Counts a record as unread because its filter or a member could not be evaluated.
#[inline(always)]
pub fn unread(slot: u32, kind: u16) {
    count(slot, kind, |s| &mut s.produced);
    count(slot, kind, |s| &mut s.unread);
}

/// Counts a record as held back because a limit per second is reached; `which` limit.
#[inline(always)]
pub fn held_back(kind: u16, which: fn(&mut Stats) -> &mut u64) {
    count(REGULAR, kind, |s| &mut s.produced);
    tally(REGULAR, which);
}

/// As [`held_back`], for a connection that was reset early.
#[inline(always)]
pub fn reset_held_back() {
    count(REGULAR, KIND_EARLY_RESET, |s| &mut s.produced);
    tally(REGULAR, |s| &mut s.resets_held_back);
}

/// Whether this CPU may write another record in this second; `slot` of `seconds` has its count.
#[inline(always)]
pub fn within_limit(seconds: &PerCpuArray<RecordSecond>, slot: u32, most: u64) -> bool {
    let Some(second) = seconds.get_ptr_mut(slot) else {
        return false;
    };
    // SAFETY: a per-CPU slot that only one program uses; see `with_stats`.
    let second = unsafe { &mut *second };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.wrapping_sub(second.began_ns) >= SECOND_NS {
        second.began_ns = now;
        second.records = 0;
    }
    second.records += 1;
    second.records <= most
}
