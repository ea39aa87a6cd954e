//! `sock:inet_sk_error_report`: an error is reported to a socket (`sk_error_report()`, `(sk)`; 5.15).
//!
//! Reports an ICMP error that reached a socket during its handshake, also where it does not end the
//! handshake (IP_RECVERR).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use synprobe_ebpf::event::{ErrorRecord, KIND_ERROR};

use super::{IPPROTO_TCP, finish};
use crate::{
    emit::emit,
    filter::flow_passes,
    kread::{Kptr, Ports, ReadError, fill_flow, place},
    probes::handshaking,
};

#[raw_tracepoint(tracepoint = "inet_sk_error_report")]
pub fn error_report(ctx: RawTracePointContext) -> i32 {
    let result = try_error_report(&ctx);
    finish(&ctx, KIND_ERROR, result)
}

#[inline(always)]
fn try_error_report(ctx: &RawTracePointContext) -> Result<(), ReadError> {
    let sk = Kptr::new(ctx.arg(0));
    let Some(sk_state) = handshaking(sk)? else {
        return Ok(());
    };
    // UDP and raw sockets raise this tracepoint too.
    if sk.read::<u16>(place!(protocol))? != IPPROTO_TCP {
        return Ok(());
    }
    let ports = Ports::of(sk)?;
    if !flow_passes(sk, ports)? {
        return Ok(());
    }
    emit(|r: &mut ErrorRecord, header| {
        r.header = header;
        r.sock = sk.address();
        r.state = sk_state;
        (r.sk_err, r.sk_err_soft) = sk.read_both(place!(err), place!(err_soft))?;
        fill_flow(&mut r.flow, sk, ports)
    });
    Ok(())
}
