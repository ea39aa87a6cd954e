//! The request's timer, by `timer:timer_*`: the exact mode where fentry is not available.
//!
//! A half-open lives exactly as long as its timer (docs/kernel-facts.md, section 3). The tracepoints are
//! raised for every timer of the host; timers of requests are recognised by their function.

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};
use synprobe_ebpf::{config::EXACT_HANDLER, event::state};

use super::{
    finish_request,
    request::{begun, ended, of_timer, scratch, timer_entered, timer_left},
};
use crate::{
    ended_by,
    kread::{Kptr, ReadError, peer_addr, place},
};

/// `timer_start(timer, …)`: armed. `snt_synack` is 0 only between the creation of a request and its first
/// SYN-ACK.
#[raw_tracepoint(tracepoint = "timer_start")]
pub fn request_armed(ctx: RawTracePointContext) -> i32 {
    let result = of_request(ctx.arg(0)).and_then(|request| match request {
        Some(req) if req.read::<u64>(place!(snt_synack))? == 0 => begun(req),
        _ => Ok(()),
    });
    finish_request(result)
}

/// `timer_cancel(timer)`: disarmed, because it is armed again, it fires, or the request ended.
#[raw_tracepoint(tracepoint = "timer_cancel")]
pub fn request_disarmed(ctx: RawTracePointContext) -> i32 {
    let result = try_disarmed(&ctx);
    finish_request(result)
}

#[inline(always)]
fn try_disarmed(ctx: &RawTracePointContext) -> Result<(), ReadError> {
    let Some(req) = of_request(ctx.arg(0))? else {
        return Ok(());
    };
    // Still in the table: it continues, or its timer's function decides next.
    if req.read::<u64>(place!(node_pprev))? != 0 {
        return Ok(());
    }
    if became_a_connection(req)? {
        return Ok(());
    }
    ended(req, || ended_by::of(ctx.as_ptr()))
}

/// `timer_expire_entry(timer, …)`: its function runs next.
#[raw_tracepoint(tracepoint = "timer_expire_entry")]
pub fn request_fires(ctx: RawTracePointContext) -> i32 {
    let timer: u64 = ctx.arg(0);
    let result = of_request(timer).and_then(|request| match request {
        Some(_) => timer_entered(timer),
        None => Ok(()),
    });
    finish_request(result)
}

/// `timer_expire_exit(timer)`: its function has run; the timer may be freed.
#[raw_tracepoint(tracepoint = "timer_expire_exit")]
pub fn request_fired(ctx: RawTracePointContext) -> i32 {
    let result = timer_left(ctx.arg(0));
    finish_request(result)
}

/// `inet_sock_set_state(sk, oldstate, newstate)`: a request becomes a child, and is disarmed next.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn request_child(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u32>(1) as u8 == state::LISTEN
        && ctx.arg::<u32>(2) as u8 == state::SYN_RECV
        && let Some(scratch) = scratch()
    {
        scratch.child = ctx.arg(0);
    }
    0
}

/// The request that a timer belongs to; `None` for every other timer.
#[inline(always)]
fn of_request(timer: u64) -> Result<Option<Kptr>, ReadError> {
    let function: u64 = Kptr::new(timer).read(place!(timer_function))?;
    Ok((function == ended_by::setting(EXACT_HANDLER)).then(|| of_timer(timer)))
}

/// Whether the child that this CPU created last is that of the request: this CPU receives nothing else in
/// between. With Fast Open or a SYN cookie no request of the child is disarmed, so compare the child with
/// the request.
#[inline(always)]
fn became_a_connection(req: Kptr) -> Result<bool, ReadError> {
    let Some(scratch) = scratch() else {
        return Ok(false);
    };
    if scratch.child == 0 {
        return Ok(false);
    }
    let child = Kptr::new(scratch.child);
    if child.read::<u16>(place!(dport))? != req.read::<u16>(place!(dport))?
        || child.read::<u16>(place!(num))? != req.read::<u16>(place!(num))?
        || child.read::<u8>(place!(state))? != state::SYN_RECV
    {
        return Ok(false);
    }
    let theirs = peer_addr(child, child.read(place!(family))?)?;
    let ours = peer_addr(req, req.read(place!(family))?)?;
    if u128::from_ne_bytes(theirs) != u128::from_ne_bytes(ours) {
        return Ok(false);
    }
    scratch.child = 0;
    Ok(true)
}
