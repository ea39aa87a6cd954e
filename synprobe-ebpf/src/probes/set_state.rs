//! `sock:inet_sock_set_state`: every transition of a full socket, before it is written.
//!
//! Raised by `inet_sk_set_state()` and `inet_sk_state_store()` (net/ipv4/af_inet.c) with
//! `(sk, oldstate, newstate)` on every kernel since 4.16.
//!
//! From 6.1 on a CPU that is in the middle of a program skips it: for a connection that an interrupt
//! makes, and from 7.x, where a tracepoint's programs can be preempted (`__DECLARE_TRACE()` holds
//! `tracepoint_srcu` and no longer disables preemption), for all that others do until the interrupted
//! one has its turn again. There the same program, loaded a second time, stands in for it.

use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use aya_log_ebpf::debug;
use synprobe_ebpf::{
    config::{ROLE_CLIENT, ROLE_SERVER},
    event::{KIND_STATE, StateRecord, state},
    stats::{REGULAR, STAND_IN},
};

use super::{IPPROTO_TCP, finish_by};
use crate::{
    connect_callers, count_healthy,
    emit::{emit_by, tally},
    filter::{flow_passes, listener_passes, role_passes, setting},
    kread::{Fault, Kptr, Ports, fill_flow, place},
    maps::AT_WORK,
};

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn set_state(ctx: RawTracePointContext) -> i32 {
    if !of_interest(&ctx) {
        return 0;
    }
    if setting!(stand_in) == 0 {
        return see(&ctx, REGULAR);
    }
    at_work(1);
    let result = see(&ctx, REGULAR);
    at_work(0);
    result
}

/// Does what [`set_state`] does where the kernel skips that. What comes before it says that it is at
/// work, or after, is lost: a few instructions.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn set_state_stand_in(ctx: RawTracePointContext) -> i32 {
    let Some(at_work) = AT_WORK.get_ptr(0) else {
        return 0;
    };
    // SAFETY: a slot of this CPU's, which lives as long as the map.
    if unsafe { at_work.read_volatile() } == 0 {
        return 0;
    }
    // Whatever it was: the kernel counts what it skips before anybody looks at it.
    tally(STAND_IN, |s| &mut s.stood_in);
    if !of_interest(&ctx) {
        return 0;
    }
    see(&ctx, STAND_IN)
}

#[inline(always)]
fn at_work(so: u64) {
    if let Some(at_work) = AT_WORK.get_ptr_mut(0) {
        // SAFETY: a slot of this CPU's, which lives as long as the map. Only one run of the program
        // on a CPU writes it (before 6.1 a second within it may, and then nobody is skipped).
        unsafe { at_work.write_volatile(so) };
    }
}

/// `slot`: where it counts. A function of its own for both programs: two copies of its body in one
/// object are more than LLVM 22 can describe (`DwarfDebug::finalizeModuleInfo()` crashes).
#[inline(never)]
fn see(ctx: &RawTracePointContext, slot: u32) -> i32 {
    let result = try_set_state(ctx, slot);
    finish_by(slot, ctx, KIND_STATE, result)
}

#[inline(always)]
fn try_set_state(ctx: &RawTracePointContext, slot: u32) -> Result<(), Fault> {
    let (old, new) = states(ctx);
    let quiet = is_quiet();
    // The beginning of what will most likely go well: nothing is even read.
    if quiet && new == state::SYN_SENT {
        return connect_callers::remember(ctx.arg(0));
    }
    let sk = Kptr::new(ctx.arg(0));
    // SCTP, DCCP and MPTCP raise the same tracepoint; an MPTCP socket is no tcp_sock.
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
    // Before 6.15 a new child has no peer yet; its next transition tells the whole tuple.
    if old == state::LISTEN && new == state::SYN_RECV && ports.peer == 0 {
        return Ok(());
    }
    // A listener has no peer yet: what was asked of one cannot exclude it.
    let listener = old == state::LISTEN && new != state::SYN_RECV || new == state::LISTEN;
    if listener && !listener_passes(sk, ports)? || !listener && !flow_passes(sk, ports)? {
        return Ok(());
    }
    if quiet && new == state::ESTABLISHED && went_well(sk, old, ports)? {
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
            // connect() and listen() run in their caller's context; every other transition may run
            // on anybody's.
            // SAFETY: helpers without arguments.
            r.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
            // SAFETY: likewise.
            r.cgroup = unsafe { bpf_get_current_cgroup_id() };
            connect_callers::comm_into(&raw mut r.comm)?;
        } else if old != state::LISTEN {
            r.total_retrans = sk.read(place!(total_retrans))?;
            r.srtt_us = sk.read(place!(srtt))?;
            r.total_rto_time_ms = sk.read_or(place!(total_rto_time), 0)?;
            if quiet && old == state::SYN_SENT {
                connect_callers::recall(r);
            }
            if old == state::SYN_SENT {
                r.retrans_stamp_ms = sk.read(place!(retrans_stamp))?;
            }
        }
        Ok(())
    });
    Ok(())
}

/// Counts a handshake that needs no line: answered at once, and timed by the connection's own first
/// RTT sample. One without a sample, or a server's with a sample of whole milliseconds, may have come
/// through a SYN cookie: the agent decides.
#[inline(always)]
fn went_well(sk: Kptr, old: u8, ports: Ports) -> Result<bool, Fault> {
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
    // What a role filter excludes is neither counted nor told.
    Ok(!role_passes(role) || count_healthy::count(role, port, dwell_us))
}

#[inline(always)]
fn states(ctx: &RawTracePointContext) -> (u8, u8) {
    (ctx.arg::<u32>(1) as u8, ctx.arg::<u32>(2) as u8)
}

#[inline(always)]
fn is_quiet() -> bool {
    setting!(slow_us) != 0
}

/// Handshake transitions and a listener's; all of them with `--states all`. Repeats of one state
/// (MPTCP) are nobody's. Asked before all else: six of a connection's ten go no further, and in the
/// quiet mode seven.
#[inline(always)]
fn of_interest(ctx: &RawTracePointContext) -> bool {
    let (old, new) = states(ctx);
    if old == new || is_quiet() && old == state::LISTEN && new == state::SYN_RECV {
        return false;
    }
    let handshake = |s: u8| s == state::SYN_SENT || s == state::SYN_RECV || s == state::LISTEN;
    handshake(old) || handshake(new) || setting!(all_states) != 0
}

/// The role that a transition gives away; a SYN_RECV that is left may be either end's (simultaneous
/// open), and the agent knows which.
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
