//! `tcp:tcp_receive_reset`: a RST is about to take effect (`tcp_reset()`, `(sk)`).
//!
//! Two kinds of sockets are reported:
//!
//! - During their handshake. ECONNREFUSED alone does not distinguish a RST from an ICMP port-unreachable; this
//!   event does. A RST that ends a request_sock does not raise it.
//! - Connections that have received no data and are younger than a second, or whose first data was sent less
//!   than a second ago and not acknowledged. Their age is that of `tcp_sock.rcvq_space.time`:
//!   `tcp_init_buffer_space()` sets it as the socket becomes ESTABLISHED, in microseconds of CLOCK_MONOTONIC,
//!   and afterwards only a reader of data changes it (`tcp_rcv_space_adjust()`).

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use synprobe_ebpf::{
    config::{EARLY_RESET_US, EARLY_RESETS_PER_SECOND, MISSING},
    event::{EarlyResetRecord, KIND_EARLY_RESET, KIND_RESET, ResetRecord, state},
};

use super::{finish, is_quiet};
use crate::{
    connect_callers,
    emit::{emit, reset_held_back, within_limit},
    filter::{flow_passes, setting},
    kread::{Kptr, Ports, ReadError, fill_flow, place},
    maps::RESET_SECOND,
};

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn receive_reset(ctx: RawTracePointContext) -> i32 {
    let sk = Kptr::new(ctx.arg(0));
    let sk_state: u8 = match sk.read(place!(state)) {
        Ok(sk_state) => sk_state,
        Err(errno) => return finish(&ctx, KIND_RESET, Err(errno)),
    };
    match sk_state {
        state::SYN_SENT | state::SYN_RECV => {
            let result = in_handshake(sk, sk_state);
            finish(&ctx, KIND_RESET, result)
        }
        state::ESTABLISHED | state::CLOSE_WAIT => {
            let result = after_handshake(sk, sk_state);
            finish(&ctx, KIND_EARLY_RESET, result)
        }
        // This host has closed it already: nobody waits for an answer.
        _ => 0,
    }
}

#[inline(always)]
fn in_handshake(sk: Kptr, sk_state: u8) -> Result<(), ReadError> {
    let ports = Ports::of(sk)?;
    if !flow_passes(sk, ports)? {
        return Ok(());
    }
    emit(|r: &mut ResetRecord, header| {
        r.header = header;
        r.sock = sk.address();
        r.state = sk_state;
        fill_flow(&mut r.flow, sk, ports)
    });
    Ok(())
}

#[inline(always)]
fn after_handshake(sk: Kptr, sk_state: u8) -> Result<(), ReadError> {
    if place!(bytes_received) == MISSING
        || place!(bytes_sent) == MISSING
        || place!(bytes_acked) == MISSING
        || place!(first_tx) == MISSING
        || place!(rcvq_time) == MISSING
    {
        return Ok(());
    }
    // Most connections that a RST ends have received data. A FIN counts as one byte.
    let fin = u64::from(sk_state == state::CLOSE_WAIT);
    if sk.read::<u64>(place!(bytes_received))? > fin {
        return Ok(());
    }
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let now_us = now_ns / 1000;
    let age_us = now_us.wrapping_sub(sk.read(place!(rcvq_time))?);
    let bytes_sent: u64 = sk.read(place!(bytes_sent))?;
    // A client's SYN counts as one byte.
    let unacknowledged = bytes_sent > 0 && sk.read::<u64>(place!(bytes_acked))? <= 1;
    let data_age_us = match unacknowledged {
        true => now_us.wrapping_sub(sk.read(place!(first_tx))?),
        false => u64::MAX,
    };
    if age_us >= EARLY_RESET_US && data_age_us >= EARLY_RESET_US {
        return Ok(());
    }
    let ports = Ports::of(sk)?;
    if !flow_passes(sk, ports)? {
        return Ok(());
    }
    if !within_limit(&RESET_SECOND, 0, EARLY_RESETS_PER_SECOND) {
        reset_held_back();
        return Ok(());
    }
    emit(|r: &mut EarlyResetRecord, header| {
        r.header = header;
        r.sock = sk.address();
        r.state = sk_state;
        r.age_us = age_us;
        r.bytes_sent = bytes_sent;
        if unacknowledged {
            r.unacknowledged = 1;
            r.data_age_us = data_age_us.min(u64::from(u32::MAX)) as u32;
        }
        if is_quiet() {
            // A handshake that took longer has a record of its own, which names the caller.
            let longest_us = age_us + u64::from(setting!(slow_us)) + CONNECT_US;
            connect_callers::recall_early(r, now_ns.wrapping_sub(longest_us * 1000));
        }
        fill_flow(&mut r.flow, sk, ports)
    });
    Ok(())
}

/// From `tcp_v4_connect()`, where the caller is kept, to the first SYN: the search for a port, microseconds.
const CONNECT_US: u64 = 10_000;
