//! `tcp:tcp_retransmit_skb`: a full socket retransmits a segment.
//!
//! Raised by `__tcp_retransmit_skb()` with `(sk, skb)` after a success up to 6.16, and with
//! `(sk, skb, err)` on every exit, failures included, from 6.17. A program that reads an argument
//! its kernel does not have fails to attach. Hence there are two entry points; the loader takes the one
//! that fits the prototype in BTF.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use synprobe_ebpf::{
    config::{MISSING, ROLE_CLIENT},
    event::{KIND_RETRANSMIT, RetransmitRecord, SYN_HAD_ECN, SYN_HAD_FAST_OPEN, state},
};

use super::{finish, tcp_flags::SYN};
use crate::{
    emit::emit,
    filter::{flow_passes, role_passes},
    kread::{Kptr, Ports, ReadError, fill_flow, place},
};

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn retransmit_skb(ctx: RawTracePointContext) -> i32 {
    let result = try_retransmit(&ctx, 0);
    finish(&ctx, KIND_RETRANSMIT, result)
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn retransmit_skb_err(ctx: RawTracePointContext) -> i32 {
    let result = try_retransmit(&ctx, ctx.arg::<i32>(2));
    finish(&ctx, KIND_RETRANSMIT, result)
}

#[inline(always)]
fn try_retransmit(ctx: &RawTracePointContext, err: i32) -> Result<(), ReadError> {
    let sk = Kptr::new(ctx.arg(0));
    let skb = Kptr::new(ctx.arg(1));
    let ports = Ports::of(sk)?;
    let sk_state: u8 = sk.read(place!(state))?;
    if sk_state == state::SYN_SENT && !role_passes(ROLE_CLIENT) {
        return Ok(());
    }
    if !flow_passes(sk, ports)? {
        return Ok(());
    }
    emit(|r: &mut RetransmitRecord, header| {
        r.header = header;
        r.sock = sk.address();
        r.err = err;
        r.state = sk_state;
        fill_flow(&mut r.flow, sk, ports)?;
        r.seq = skb.read(place!(skb_cb) + place!(cb_seq))?;
        r.segs = u32::from(skb.read::<u16>(place!(skb_cb) + place!(cb_segs))?).max(1);
        r.snd_wnd = sk.read(place!(snd_wnd))?;
        r.total_retrans = sk.read(place!(total_retrans))?;
        r.rto_jiffies = sk.read(place!(rto))?;
        r.rto_max_jiffies = sk.read_or(place!(rto_max), 0)?;
        r.user_timeout_ms = sk.read(place!(user_timeout))?;
        r.ca_state = sk.read_bits(place!(ca_state))?;
        r.pending = sk.read(place!(pending))?;
        r.retransmits = sk.read(place!(retransmits))?;
        r.backoff = sk.read(place!(backoff))?;
        r.retrans_stamp_ms = sk.read(place!(retrans_stamp))?;
        r.syn_retries = sk.read(place!(syn_retries))?;
        if sk_state == state::SYN_SENT {
            r.syn_had = syn_had(sk)?;
            let flags = skb.read_or(place!(skb_cb) + place!(cb_flags), SYN)?;
            r.no_syn = u8::from(flags & SYN == 0);
        }
        if place!(net) != MISSING {
            let net = Kptr::new(sk.read(place!(net))?);
            r.sysctl_syn_retries = net.read(place!(sysctl_syn_retries))?;
            r.sysctl_syn_linear = net.read_or(place!(sysctl_syn_linear), 0)?;
        }
        Ok(())
    });
    Ok(())
}

/// `SYN_HAD_*`: what the first SYN of a socket in SYN_SENT had.
#[inline(always)]
fn syn_had(sk: Kptr) -> Result<u8, ReadError> {
    let mut had = 0;
    if place!(syn_fastopen) != MISSING && sk.read_bits(place!(syn_fastopen))? != 0 {
        had |= SYN_HAD_FAST_OPEN;
    }
    if sk.read_or(place!(ecn_flags), 0u8)? != 0 {
        had |= SYN_HAD_ECN;
    }
    Ok(had)
}
