//! The life of a half-open (`struct request_sock`): what both sources of the exact mode tell, once each
//! of them has found the moment. [`request_timer`](super::request_timer) and
//! [`request_functions`](super::request_functions) are the sources.
//!
//! A half-open is told of when it ends, and still in memory with all that it counted: one that becomes a
//! connection costs no record.

use synprobe_ebpf::{
    config::{EXACT_BEGINS, MISSING, ROLE_SERVER},
    event::{HOW_TIMER, REQUEST_BEGUN, REQUEST_ENDED, RequestRecord},
};

use crate::{
    emit::emit,
    ended_by,
    filter::{flow_passes, role_passes},
    kread::{Fault, Kptr, Ports, fill_flow, place},
    maps::{EXACT_NOTES, ExactNotes},
};

/// This CPU's notes. Whoever writes them runs with softirqs off, so nobody comes in between.
#[inline(always)]
pub fn notes<'a>() -> Option<&'a mut ExactNotes> {
    // SAFETY: a per-CPU slot of these programs alone, which run in softirq or with softirqs off.
    EXACT_NOTES
        .get_ptr_mut(0)
        .map(|notes| unsafe { &mut *notes })
}

/// A SYN was taken. Its SYN-ACK is built next, on this CPU.
#[inline(always)]
pub fn begun(req: Kptr) -> Result<(), Fault> {
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

/// It ended otherwise than by its timer; `how` is asked only where that is told.
#[inline(always)]
pub fn ended(req: Kptr, how: impl FnOnce() -> u8) -> Result<(), Fault> {
    if !role_passes(ROLE_SERVER) {
        return Ok(());
    }
    let ports = Ports::of(req)?;
    if !flow_passes(req, ports)? {
        return Ok(());
    }
    // By its timer: told when the timer's function returns.
    let by_timer = |timer: u64| timer != 0 && of_timer(timer).address() == req.address();
    if notes().is_some_and(|notes| by_timer(notes.timer)) {
        return Ok(());
    }
    let how = how();
    if how == HOW_TIMER {
        return Ok(());
    }
    emit(|r: &mut RequestRecord, header| {
        r.header = header;
        r.moment = REQUEST_ENDED;
        r.how = how;
        fill(r, req, ports)
    });
    Ok(())
}

/// The request that a timer belongs to.
#[inline(always)]
pub fn of_timer(timer: u64) -> Kptr {
    Kptr::new(timer.wrapping_sub(u64::from(place!(rsk_timer))))
}

/// `reqsk_timer_handler()` begins: afterwards the request may be freed, so it is noted now.
#[inline(always)]
pub fn timer_entered(timer: u64) -> Result<(), Fault> {
    let Some(notes) = notes() else {
        return Ok(());
    };
    notes.timer = 0;
    if !role_passes(ROLE_SERVER) {
        return Ok(());
    }
    let req = of_timer(timer);
    let ports = Ports::of(req)?;
    if !flow_passes(req, ports)? {
        return Ok(());
    }
    fill(&mut notes.request, req, ports)?;
    notes.timer = timer;
    Ok(())
}

/// `reqsk_timer_handler()` is done. Wherever it arms the timer again it has raised `num_timeout`; where
/// it has not, it dropped the request. A request that took its memory since has had no time-out.
#[inline(always)]
pub fn timer_left(timer: u64) -> Result<(), Fault> {
    let Some(notes) = notes() else {
        return Ok(());
    };
    if notes.timer != timer {
        return Ok(());
    }
    notes.timer = 0;
    let now = of_timer(timer).read_bits(place!(num_timeout))?;
    if now == notes.request.num_timeout.wrapping_add(1) & 0x7f {
        return Ok(());
    }
    emit(|r: &mut RequestRecord, header| {
        *r = notes.request;
        r.header = header;
        r.moment = REQUEST_ENDED;
        r.how = HOW_TIMER;
        Ok(())
    });
    Ok(())
}

#[inline(always)]
fn fill(r: &mut RequestRecord, req: Kptr, ports: Ports) -> Result<(), Fault> {
    r.req = req.address();
    fill_flow(&mut r.flow, req, ports)?;
    r.snt_synack_us = req.read(place!(snt_synack))?;
    r.timeout_jiffies = req.read_or(place!(req_timeout), 0)?;
    r.num_timeout = req.read_bits(place!(num_timeout))?;
    r.num_retrans = req.read(place!(num_retrans))?;
    r.acked = req.read_bits(place!(acked))?;
    let listener = Kptr::new(req.read(place!(listener))?);
    r.listener_state = listener.read(place!(state))?;
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
