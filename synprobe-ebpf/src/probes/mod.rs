//! One file per hook: an entry point, a fallible body, and one exit that counts errors.

mod accept;
mod before_nat;
mod drop_receiver;
mod drop_skb;
mod error_report;
mod receive_reset;
mod request;
mod request_functions;
mod request_timer;
mod retransmit_skb;
mod retransmit_synack;
mod set_state;
mod tcp_flags;

use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use synprobe_ebpf::{
    event::{KIND_REQUEST, state},
    stats::REGULAR,
};

use crate::{
    emit,
    filter::setting,
    kread::{Kptr, ReadError, place},
};

/// `IPPROTO_TCP`; MPTCP (262), SCTP and DCCP share some of the hooks.
const IPPROTO_TCP: u16 = 6;

/// The exit of every probe.
#[inline(always)]
fn finish(ctx: &RawTracePointContext, kind: u16, result: Result<(), ReadError>) -> i32 {
    finish_by(REGULAR, ctx, kind, result)
}

/// As [`finish`], counting in the given slot.
#[inline(always)]
fn finish_by(
    slot: u32,
    ctx: &RawTracePointContext,
    kind: u16,
    result: Result<(), ReadError>,
) -> i32 {
    if let Err(errno) = result {
        emit::unread(slot, kind);
        // `lost` lines report the count. This log names the errno; its code is long, and the verifier
        // checks it unless logging is off.
        debug!(
            ctx,
            "kind {}: a kernel member could not be read: {}", kind, errno
        );
    }
    0
}

/// As [`finish`], for the exact mode's programs. It does not log: each program would contain a copy of the
/// log's code.
#[inline(always)]
fn finish_request(result: Result<(), ReadError>) -> i32 {
    if result.is_err() {
        emit::unread(REGULAR, KIND_REQUEST);
    }
    0
}

/// Whether healthy handshakes are only counted.
#[inline(always)]
fn is_quiet() -> bool {
    setting!(slow_us) != 0
}

/// The state of a socket whose handshake is in progress; `None` for every other.
#[inline(always)]
fn handshaking(sk: Kptr) -> Result<Option<u8>, ReadError> {
    let sk_state: u8 = sk.read(place!(state))?;
    Ok((sk_state == state::SYN_SENT || sk_state == state::SYN_RECV).then_some(sk_state))
}
