//! Records of half-opens (`struct request_sock`), shared by both sources of the exact mode:
//! [`request_timer`](super::request_timer) and [`request_functions`](super::request_functions).
//!
//! A half-open is reported when it ends, while it is still in memory with its counters. One that becomes a
//! connection costs no record.

use synprobe_ebpf::{
    config::{EXACT_BEGINS, MISSING, ROLE_SERVER},
    event::{ENDED_BY_TIMER, REQUEST_BEGUN, REQUEST_ENDED, RequestRecord},
};

use crate::{
    emit::emit,
    ended_by,
    filter::{flow_passes, role_passes},
    kread::{Kptr, Ports, ReadError, fill_flow, place},
    maps::{REQUEST_SCRATCH, RequestScratch},
};

/// This CPU's scratch state. Its users run with softirqs off, so they do not interrupt each other.
#[inline(always)]
pub fn scratch<'a>() -> Option<&'a mut RequestScratch> {
    // SAFETY: a per-CPU slot that only these programs use, in softirq or with softirqs off.
    REQUEST_SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
}

/// A SYN was accepted. Its SYN-ACK is built next, on this CPU.
#[inline(always)]
pub fn begun(req: Kptr) -> Result<(), ReadError> {
    if ended_by::setting(EXACT_BEGINS) == 0 || !role_passes(ROLE_SERVER) {
        return Ok(());
    }
    let ports = Ports::of(req)?;
    if !flow_passes(req, ports)? {
        return Ok(());
    }
    emit(|r: &mut RequestRecord, header| {
        r.header = header;
        r.moment = REQUEST_BEGUN;
        fill(r, req, ports)
    });
    Ok(())
}

/// A half-open ended, not by its timer. `cause` is evaluated only where a record is written.
#[inline(always)]
pub fn ended(req: Kptr, cause: impl FnOnce() -> u8) -> Result<(), ReadError> {
    if !role_passes(ROLE_SERVER) {
        return Ok(());
    }
    let ports = Ports::of(req)?;
    if !flow_passes(req, ports)? {
        return Ok(());
    }
    // The end by its timer is reported when the timer's function returns.
    let by_timer = |timer: u64| timer != 0 && of_timer(timer).address() == req.address();
    if scratch().is_some_and(|scratch| by_timer(scratch.timer)) {
        return Ok(());
    }
    let cause = cause();
    if cause == ENDED_BY_TIMER {
        return Ok(());
    }
    emit(|r: &mut RequestRecord, header| {
        r.header = header;
        r.moment = REQUEST_ENDED;
        r.ended_by = cause;
        fill(r, req, ports)
    });
    Ok(())
}

/// The request that a timer belongs to.
#[inline(always)]
pub fn of_timer(timer: u64) -> Kptr {
    Kptr::new(timer.wrapping_sub(u64::from(place!(rsk_timer))))
}

/// `reqsk_timer_handler()` begins. Stores the request: afterwards it may be freed.
#[inline(always)]
pub fn timer_entered(timer: u64) -> Result<(), ReadError> {
    let Some(scratch) = scratch() else {
        return Ok(());
    };
    scratch.timer = 0;
    if !role_passes(ROLE_SERVER) {
        return Ok(());
    }
    let req = of_timer(timer);
    let ports = Ports::of(req)?;
    if !flow_passes(req, ports)? {
        return Ok(());
    }
    fill(&mut scratch.request, req, ports)?;
    scratch.timer = timer;
    Ok(())
}

/// `reqsk_timer_handler()` ends. Where it armed the timer again it incremented `num_timeout`; otherwise it
/// dropped the request. A new request in the same memory has had no timeout.
#[inline(always)]
pub fn timer_left(timer: u64) -> Result<(), ReadError> {
    let Some(scratch) = scratch() else {
        return Ok(());
    };
    if scratch.timer != timer {
        return Ok(());
    }
    scratch.timer = 0;
    let now = of_timer(timer).read_bits(place!(num_timeout))?;
    if now == scratch.request.num_timeout.wrapping_add(1) & 0x7f {
        return Ok(());
    }
    emit(|r: &mut RequestRecord, header| {
        *r = scratch.request;
        r.header = header;
        r.moment = REQUEST_ENDED;
        r.ended_by = ENDED_BY_TIMER;
        Ok(())
    });
    Ok(())
}

#[inline(always)]
fn fill(r: &mut RequestRecord, req: Kptr, ports: Ports) -> Result<(), ReadError> {
    r.req = req.address();
    fill_flow(&mut r.flow, req, ports)?;
    r.snt_synack_us = req.read(place!(snt_synack))?;
    r.timeout_jiffies = req.read_or(place!(req_timeout), 0)?;
    r.num_timeout = req.read_bits(place!(num_timeout))?;
    r.num_retrans = req.read(place!(num_retrans))?;
    r.acked = req.read_bits(place!(acked))?;
    r.rcv_isn = req.read(place!(rcv_isn))?;
    let listener = Kptr::new(req.read(place!(listener))?);
    r.listener_state = listener.read(place!(state))?;
    r.flow.listener_port = listener.read(place!(num))?;
    r.qlen = listener.read(place!(qlen))?;
    r.young = listener.read(place!(young))?;
    r.ack_backlog = listener.read(place!(ack_backlog))?;
    r.max_ack_backlog = listener.read(place!(max_ack_backlog))?;
    r.rto_max_jiffies = listener.read_or(place!(rto_max), 0)?;
    r.syn_retries = listener.read(place!(syn_retries))?;
    r.defer_accept = listener.read(place!(defer_accept))?;
    if place!(net) != MISSING {
        let net = Kptr::new(req.read(place!(net))?);
        r.sysctl_synack_retries = net.read(place!(sysctl_synack_retries))?;
    }
    Ok(())
}
