//! One file per hook: a thin entry point, a fallible body, one exit that counts the error.

mod drop_skb;
mod error_report;
mod receive_reset;
mod request;
mod request_functions;
mod request_timer;
mod retransmit_skb;
mod retransmit_synack;
mod set_state;

use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use synprobe_ebpf::{
    event::{KIND_REQUEST, state},
    stats::REGULAR,
};

use crate::{
    emit,
    kread::{Fault, Kptr, place},
};

/// `IPPROTO_TCP`; MPTCP (262), SCTP and DCCP share some of the hooks.
const IPPROTO_TCP: u16 = 6;

/// The one exit of every probe.
#[inline(always)]
fn finish(ctx: &RawTracePointContext, kind: u16, result: Result<(), Fault>) -> i32 {
    finish_by(REGULAR, ctx, kind, result)
}

/// Likewise, of a program that counts in this slot.
#[inline(always)]
fn finish_by(slot: u32, ctx: &RawTracePointContext, kind: u16, result: Result<(), Fault>) -> i32 {
    if let Err(errno) = result {
        emit::unread(slot, kind);
        // That some could not be read is told with the losses; the code that says which is long, and the
        // kernel checks it whenever it is not off.
        debug!(
            ctx,
            "kind {}: a kernel member could not be read: {}", kind, errno
        );
    }
    0
}

/// Likewise, of the exact mode's many programs, each of which would have a copy of the log's code:
/// counted, and told in a `lost` line.
#[inline(always)]
fn finish_request(result: Result<(), Fault>) -> i32 {
    if result.is_err() {
        emit::unread(REGULAR, KIND_REQUEST);
    }
    0
}

/// The state of a socket whose handshake is not over; `None` for every other.
#[inline(always)]
fn handshaking(sk: Kptr) -> Result<Option<u8>, Fault> {
    let sk_state: u8 = sk.read(place!(state))?;
    Ok((sk_state == state::SYN_SENT || sk_state == state::SYN_RECV).then_some(sk_state))
}
