//! `sock:inet_sock_set_state`: every transition of a full socket, before it is written.
//!
//! Raised by `inet_sk_set_state()` and `inet_sk_state_store()` (net/ipv4/af_inet.c) with
//! `(sk, oldstate, newstate)` on every kernel since 4.16.
//!
//! From 6.1 a CPU skips the program while it is already running it. This affects connections made in an
//! interrupt. From 7.x a tracepoint's programs can be preempted (`__DECLARE_TRACE()` holds
//! `tracepoint_srcu` and no longer disables preemption). Then every transition is affected until the
//! preempted program continues. There a second copy of the program, the stand-in, takes its place.

use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use aya_log_ebpf::debug;
use synprobe_ebpf::{
    config::{ROLE_CLIENT, ROLE_SERVER},
    event::{BOTH_QUEUES, KIND_STATE, SYN_BUILT, SYN_NO_TUPLE, SYN_NOT_BUILT, StateRecord, state},
    stats::{REGULAR, STAND_IN},
};

use super::{IPPROTO_TCP, finish_by, is_quiet};
use crate::{
    connect_callers, count_healthy,
    emit::{emit_by, tally},
    filter::{flow_passes, listener_passes, role_passes, setting},
    kread::{Kptr, Ports, ReadError, fill_flow, place},
    maps::SET_STATE_RUNNING,
};

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn set_state(ctx: RawTracePointContext) -> i32 {
    if !is_relevant(&ctx) {
        return 0;
    }
    if setting!(stand_in) == 0 {
        return handle(&ctx, REGULAR);
    }
    set_running(1);
    let result = handle(&ctx, REGULAR);
    set_running(0);
    result
}

/// Replaces [`set_state`] where the kernel skips it. An event in the few instructions before and after the
/// running flag is set is lost.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn set_state_stand_in(ctx: RawTracePointContext) -> i32 {
    let Some(flag) = SET_STATE_RUNNING.get_ptr(0) else {
        return 0;
    };
    // SAFETY: a slot of this CPU, which lives as long as the map.
    if unsafe { flag.read_volatile() } == 0 {
        return 0;
    }
    // Count every run: the kernel counts what it skips before any filter.
    tally(STAND_IN, |s| &mut s.stood_in);
    if !is_relevant(&ctx) {
        return 0;
    }
    handle(&ctx, STAND_IN)
}

#[inline(always)]
fn set_running(running: u64) {
    if let Some(flag) = SET_STATE_RUNNING.get_ptr_mut(0) {
        // SAFETY: a slot of this CPU, which lives as long as the map. Only one run of the program on a
        // CPU writes it. (Before 6.1 a nested run may write it, but then nothing is skipped.)
        unsafe { flag.write_volatile(running) };
    }
}

/// The body of both programs; counts in `slot`. It is not inlined: with two copies of it in one object
/// LLVM 22 crashes (`DwarfDebug::finalizeModuleInfo()`).
#[inline(never)]
fn handle(ctx: &RawTracePointContext, slot: u32) -> i32 {
    let result = try_set_state(ctx, slot);
    finish_by(slot, ctx, KIND_STATE, result)
}

#[inline(always)]
fn try_set_state(ctx: &RawTracePointContext, slot: u32) -> Result<(), ReadError> {
    let (old, new) = states(ctx);
    let quiet = is_quiet();
    // Most connects succeed: read nothing yet.
    if quiet && new == state::SYN_SENT {
        return connect_callers::remember(ctx.arg(0));
    }
    let sk = Kptr::new(ctx.arg(0));
    // SCTP, DCCP and MPTCP raise the same tracepoint. An MPTCP socket is no tcp_sock.
    if sk.read::<u16>(place!(protocol))? != IPPROTO_TCP {
        return Ok(());
    }
    if !role_of(old, new).is_none_or(role_passes) {
        return Ok(());
    }
    let ports = if new == state::CLOSE {
        Ports::of_closing(sk)?
    } else {
        Ports::of(sk)?
    };
    // Before 6.15 a new child has no peer yet; its next transition has the whole tuple.
    if old == state::LISTEN && new == state::SYN_RECV && ports.peer == 0 {
        return Ok(());
    }
    // A listener has no peer, so a filter on peers cannot exclude it.
    let listener = old == state::LISTEN && new != state::SYN_RECV || new == state::LISTEN;
    if listener && !listener_passes(sk, ports)? || !listener && !flow_passes(sk, ports)? {
        return Ok(());
    }
    if quiet && new == state::ESTABLISHED && counted_as_healthy(sk, old, ports)? {
        return Ok(());
    }
    debug!(ctx, "sock {:x}: {} -> {}", sk.address(), old, new);
    emit_by(slot, |r: &mut StateRecord, header| {
        r.header = header;
        r.sock = sk.address();
        r.old = old;
        r.new = new;
        fill_flow(&mut r.flow, sk, ports)?;
        (r.sk_err, r.sk_err_soft) = sk.read_both(place!(err), place!(err_soft))?;
        if new == state::SYN_SENT || new == state::LISTEN {
            // connect() and listen() run in their caller's context. Other transitions may run in the
            // context of any process.
            // SAFETY: helpers without arguments.
            r.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
            // SAFETY: a helper without arguments.
            r.cgroup = unsafe { bpf_get_current_cgroup_id() };
            connect_callers::comm_into(&raw mut r.comm)?;
        } else if old == state::LISTEN {
            if new == state::CLOSE {
                r.snd_first_or_backlog = sk.read(place!(ack_backlog))?;
                r.rcv_first_or_half_open = sk.read(place!(qlen))?;
                r.queue_known = BOTH_QUEUES;
            }
        } else {
            r.total_retrans = sk.read(place!(total_retrans))?;
            r.srtt_us = sk.read(place!(srtt))?;
            r.total_rto_time_ms = sk.read_or(place!(total_rto_time), 0)?;
            if quiet && old == state::SYN_SENT {
                connect_callers::recall(r);
            }
            if old == state::SYN_SENT {
                r.retrans_stamp_ms = sk.read(place!(retrans_stamp))?;
                if new == state::CLOSE {
                    r.syn = match r.retrans_stamp_ms {
                        0 if sk.read::<u32>(place!(write_seq))? == 0 => SYN_NO_TUPLE,
                        0 => SYN_NOT_BUILT,
                        _ => SYN_BUILT,
                    };
                    if r.syn == SYN_NO_TUPLE {
                        // It is still inside connect().
                        // SAFETY: a helper without arguments.
                        r.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
                        // SAFETY: a helper without arguments.
                        r.cgroup = unsafe { bpf_get_current_cgroup_id() };
                        connect_callers::comm_into(&raw mut r.comm)?;
                    }
                }
            }
            if new == state::ESTABLISHED || old == state::SYN_RECV || r.syn == SYN_BUILT {
                r.snd_first_or_backlog = first_of(sk, place!(snd_una), place!(bytes_acked))?;
            }
            if new == state::ESTABLISHED {
                r.rcv_first_or_half_open = first_of(sk, place!(rcv_nxt), place!(bytes_received))?;
            }
        }
        Ok(())
    });
    Ok(())
}

/// Where a sequence number was before `bytes` of its direction: both count modulo 2^32.
#[inline(always)]
pub(super) fn first_of(sk: Kptr, now: u32, bytes: u32) -> Result<u32, ReadError> {
    let bytes: u64 = sk.read(bytes)?;
    Ok(sk.read::<u32>(now)?.wrapping_sub(bytes as u32))
}

/// Counts a healthy handshake: fast, without retransmission, timed by the connection's first RTT sample.
/// Returns false where a record is needed. Without a sample, or with a server's sample in whole
/// milliseconds, the connection may be from a SYN cookie; the agent decides then.
#[inline(always)]
fn counted_as_healthy(sk: Kptr, old: u8, ports: Ports) -> Result<bool, ReadError> {
    // A socket that is connected to itself comes out of SYN_RECV too, and is no healthy one.
    if ports.local == ports.peer {
        return Ok(false);
    }
    let (role, port) = match old {
        state::SYN_SENT => (ROLE_CLIENT, ports.peer),
        state::SYN_RECV => (ROLE_SERVER, ports.local),
        _ => return Ok(false),
    };
    let srtt_us: u32 = sk.read(place!(srtt))?;
    let dwell_us = srtt_us >> 3;
    if srtt_us == 0 || dwell_us >= setting!(slow_us) {
        return Ok(false);
    }
    if role == ROLE_SERVER && srtt_us % 8000 == 0 {
        return Ok(false);
    }
    if sk.read::<u32>(place!(total_retrans))? != 0 {
        return Ok(false);
    }
    // A role that the filter excludes is neither counted nor reported.
    Ok(!role_passes(role) || count_healthy::count(role, port, dwell_us))
}

#[inline(always)]
fn states(ctx: &RawTracePointContext) -> (u8, u8) {
    (ctx.arg::<u32>(1) as u8, ctx.arg::<u32>(2) as u8)
}

/// Whether a transition is one of a handshake or of a listener, or any with `--states all`. A transition
/// to the same state (MPTCP) is ignored. This is the first test: it rejects six of a connection's ten
/// transitions, in quiet mode seven.
#[inline(always)]
fn is_relevant(ctx: &RawTracePointContext) -> bool {
    let (old, new) = states(ctx);
    if old == new || is_quiet() && old == state::LISTEN && new == state::SYN_RECV {
        return false;
    }
    let handshake = |s: u8| s == state::SYN_SENT || s == state::SYN_RECV || s == state::LISTEN;
    handshake(old) || handshake(new) || setting!(all_states) != 0
}

/// The role that a transition implies. Leaving SYN_RECV implies none, because of simultaneous open; the
/// agent knows the role.
#[inline(always)]
fn role_of(old: u8, new: u8) -> Option<u32> {
    if old == state::SYN_SENT || new == state::SYN_SENT {
        Some(ROLE_CLIENT)
    } else if old == state::LISTEN || new == state::LISTEN {
        Some(ROLE_SERVER)
    } else {
        None
    }
}
