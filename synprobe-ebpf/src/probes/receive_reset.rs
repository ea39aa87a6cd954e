//! `tcp:tcp_receive_reset`: a RST is about to take effect (`tcp_reset()`, `(sk)`).
//!
//! ECONNREFUSED alone does not distinguish a RST from an ICMP port-unreachable; this event does. Only
//! sockets during their handshake are reported. A RST that ends a request_sock does not raise it.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use synprobe_ebpf::event::{KIND_RESET, ResetRecord};

use super::finish;
use crate::{
    emit::emit,
    filter::flow_passes,
    kread::{Kptr, Ports, ReadError, fill_flow},
    probes::handshaking,
};

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn receive_reset(ctx: RawTracePointContext) -> i32 {
    let result = try_receive_reset(&ctx);
    finish(&ctx, KIND_RESET, result)
}

#[inline(always)]
fn try_receive_reset(ctx: &RawTracePointContext) -> Result<(), ReadError> {
    let sk = Kptr::new(ctx.arg(0));
    let Some(sk_state) = handshaking(sk)? else {
        return Ok(());
    };
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
