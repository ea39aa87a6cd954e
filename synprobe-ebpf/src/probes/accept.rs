//! fexit of `inet_csk_accept()`: how long a connection waited in the accept queue, and who took it.
//!
//! No map is needed: `tcp_init_buffer_space()` notes in `rcvq_space.time` when a connection became ESTABLISHED, and
//! only a read changes it. A Fast Open child that is accepted before has 0 there, and no value.

use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::fexit,
    programs::FExitContext,
};
use synprobe_ebpf::{
    config::{MISSING, ROLE_SERVER},
    histogram::{AcceptHistogram, LONG_WAIT_US, PROBES, SLOTS, bucket, first_slot, key},
};

use super::{IPPROTO_TCP, finish_request};
use crate::{
    connect_callers::comm_into,
    filter::{flow_passes, role_passes},
    kread::{Kptr, Ports, ReadError, netns, place},
    maps::ACCEPT_WAITS,
};

/// `struct sock *inet_csk_accept(sk, arg)`, since Linux 6.10.
#[fexit(function = "inet_csk_accept")]
pub fn accepted(ctx: FExitContext) -> i32 {
    finish_request(try_accepted(Kptr::new(ctx.arg(0)), ctx.arg(2)))
}

/// `struct sock *inet_csk_accept(sk, flags, err, kern)`, before.
#[fexit(function = "inet_csk_accept")]
pub fn accepted_with_flags(ctx: FExitContext) -> i32 {
    finish_request(try_accepted(Kptr::new(ctx.arg(0)), ctx.arg(4)))
}

#[inline(always)]
fn try_accepted(listener: Kptr, child: u64) -> Result<(), ReadError> {
    if child == 0 || place!(established) == MISSING || !role_passes(ROLE_SERVER) {
        return Ok(());
    }
    let child = Kptr::new(child);
    // DCCP has the same function.
    if child.read::<u16>(place!(protocol))? != IPPROTO_TCP {
        return Ok(());
    }
    // A connection that was reset meanwhile has no local port any more.
    let ports = Ports {
        local: listener.read(place!(num))?,
        peer: u16::from_be(child.read(place!(dport))?),
    };
    if !flow_passes(child, ports)? {
        return Ok(());
    }
    let since_us: u64 = child.read(place!(established))?;
    // SAFETY: a helper without arguments.
    let now_us = unsafe { bpf_ktime_get_ns() } / 1000;
    if since_us == 0 || now_us < since_us {
        return Ok(());
    }
    let wait_us = (now_us - since_us).min(u32::MAX as u64);
    count(netns(listener)?, ports.local, wait_us as u32)
}

#[inline(always)]
fn count(netns: u32, port: u16, wait_us: u32) -> Result<(), ReadError> {
    let Some(slot) = slot_of(netns, port) else {
        return Ok(());
    };
    if wait_us >= LONG_WAIT_US {
        slot.tgid = bpf_get_current_pid_tgid() >> 32;
        comm_into((&raw mut slot.comm).cast())?;
    }
    add(&mut slot.total_us, wait_us.into());
    // Opaque, and after the last call: see `count_healthy`.
    let at = black_box(bucket(wait_us));
    if let Some(count) = slot.counts.get_mut(at) {
        add(count, 1);
    }
    Ok(())
}

/// One instruction: another thread may accept in between.
#[inline(always)]
fn add(to: &mut u64, number: u64) {
    // SAFETY: the pointer is to eight live, aligned bytes.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(to, number) };
}

/// The slot of a namespace and port, claiming a free one; the overflow slot where none is free.
#[inline(always)]
fn slot_of<'a>(netns: u32, port: u16) -> Option<&'a mut AcceptHistogram> {
    let key = key(ROLE_SERVER, port);
    let first = first_slot(key.wrapping_add(netns));
    let mut step = 0;
    while step < PROBES {
        let slot = slot((first + step) & (SLOTS - 1))?;
        if slot.key == 0 {
            slot.netns = netns;
            slot.key = key;
        }
        if slot.key == key && slot.netns == netns {
            return Some(slot);
        }
        step += 1;
    }
    slot(SLOTS)
}

#[inline(always)]
fn slot<'a>(index: u32) -> Option<&'a mut AcceptHistogram> {
    // SAFETY: a per-CPU slot. A thread that preempts another on this CPU may cost a count, never memory safety.
    ACCEPT_WAITS
        .get_ptr_mut(index)
        .map(|slot| unsafe { &mut *slot })
}
