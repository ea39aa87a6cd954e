//! `tcp:tcp_retransmit_synack`: a half-open's SYN-ACK is retransmitted.
//!
//! Raised by `tcp_rtx_synack()` with `(sk, req)` after a successful send, before `num_retrans` and
//! `num_timeout` are incremented. Callers: the request's timer, a retransmitted SYN of the peer, and the
//! child's timer under TCP Fast Open, where `sk` is the child.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use synprobe_ebpf::{
    config::{MISSING, ROLE_SERVER},
    event::{KIND_SYNACK, SynAckRecord, TRIGGER_PEER, TRIGGER_TIMER, state},
};

use super::finish;
use crate::{
    emit::emit,
    filter::{flow_passes, role_passes},
    kread::{Kptr, Ports, ReadError, fill_flow, place},
};

#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
pub fn retransmit_synack(ctx: RawTracePointContext) -> i32 {
    let result = try_retransmit_synack(&ctx);
    finish(&ctx, KIND_SYNACK, result)
}

#[inline(always)]
fn try_retransmit_synack(ctx: &RawTracePointContext) -> Result<(), ReadError> {
    if !role_passes(ROLE_SERVER) {
        return Ok(());
    }
    let sk = Kptr::new(ctx.arg(0));
    let req = Kptr::new(ctx.arg(1));
    // A request starts with the same sock_common as a socket.
    let ports = Ports::of(req)?;
    if !flow_passes(req, ports)? {
        return Ok(());
    }
    emit(|r: &mut SynAckRecord, header| {
        r.header = header;
        r.req = req.address();
        r.sock = sk.address();
        fill_flow(&mut r.flow, req, ports)?;
        r.snt_synack_us = req.read(place!(snt_synack))?;
        r.timeout_jiffies = req.read_or(place!(req_timeout), 0)?;
        r.num_timeout = req.read_bits(place!(num_timeout))?;
        r.num_retrans = req.read(place!(num_retrans))?;
        r.acked = req.read_bits(place!(acked))?;
        (r.rcv_isn, r.snt_isn) = req.read_both(place!(rcv_isn), place!(snt_isn))?;
        r.sock_state = sk.read(place!(state))?;
        r.trigger = trigger(sk, req, r.sock_state)?;
        // Limits and queues are those of the listener, also where `sk` is a Fast Open child.
        let listener = Kptr::new(req.read(place!(listener))?);
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
    });
    Ok(())
}

/// The trigger. While a timer's function runs, the timer is detached: `expire_timers()` → `detach_timer()`
/// sets `entry.pprev` to NULL, and it is armed again only afterwards. A retransmitted SYN finds it armed.
/// Under Fast Open the child's timer replaces the request's, and `tcp_write_timer_handler()` clears
/// `icsk_pending` before it acts.
#[inline(always)]
fn trigger(sk: Kptr, req: Kptr, sock_state: u8) -> Result<u8, ReadError> {
    let armed = if sock_state == state::LISTEN {
        req.read::<u64>(place!(timer_pprev))? != 0
    } else {
        sk.read::<u8>(place!(pending))? != 0
    };
    Ok(if armed { TRIGGER_PEER } else { TRIGGER_TIMER })
}
