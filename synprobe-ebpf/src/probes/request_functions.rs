//! fentry and fexit of the functions that create and end a half-open: the exact mode where the kernel
//! allows them. All are called across files of the kernel, so the compiler cannot inline them
//! (docs/kernel-facts.md, section 3). Only arguments that every version has are read.

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use synprobe_ebpf::{
    config::{DROPS_PER_SECOND, MISSING, ROLE_SERVER},
    event::{KIND_REQUEST, QUEUE_ACCEPT, QUEUE_NEITHER, QUEUE_SYN, REQUEST_REFUSED, RequestRecord},
};

use super::{
    drop_skb::PacketHeaders,
    finish_request,
    request::{begun, ended, scratch, timer_entered, timer_left},
};
use crate::{
    emit::{emit, held_back, within_limit},
    ended_by,
    filter::{ends_pass, inode_passes, role_passes},
    kread::{Kptr, ReadError, netns, place},
    maps::{DROP_SECOND, OF_SELECTION},
};

/// `inet_csk_reqsk_queue_hash_add(sk, req, …)`: a SYN was accepted.
#[fentry(function = "inet_csk_reqsk_queue_hash_add")]
pub fn request_made(ctx: FEntryContext) -> i32 {
    if let Some(scratch) = scratch() {
        scratch.syn = 0;
    }
    let result = begun(Kptr::new(ctx.arg(1)));
    finish_request(result)
}

/// `bool inet_csk_reqsk_queue_drop(sk, req)`: true where it removed the request from the table. A
/// request that became a connection was removed before (`inet_ehash_nolisten()`).
#[fexit(function = "inet_csk_reqsk_queue_drop")]
pub fn request_dropped(ctx: FExitContext) -> i32 {
    // The value after the arguments is the return value; a bool is its low byte.
    if ctx.arg::<u64>(2) & 0xff == 0 {
        return 0;
    }
    // The caller holds a reference.
    let result = ended(Kptr::new(ctx.arg(1)), || ended_by::of_dropped(ctx.as_ptr()));
    finish_request(result)
}

/// `reqsk_timer_handler(timer)` begins.
#[fentry(function = "reqsk_timer_handler")]
pub fn request_timer_begins(ctx: FEntryContext) -> i32 {
    let result = timer_entered(ctx.arg(0));
    finish_request(result)
}

/// `reqsk_timer_handler(timer)` ends.
#[fexit(function = "reqsk_timer_handler")]
pub fn request_timer_ends(ctx: FExitContext) -> i32 {
    let result = timer_left(ctx.arg(0));
    finish_request(result)
}

/// `tcp_conn_request(rsk_ops, af_ops, sk, skb)`: a SYN arrived.
#[fentry(function = "tcp_conn_request")]
pub fn syn_comes(ctx: FEntryContext) -> i32 {
    let result = try_syn_comes(Kptr::new(ctx.arg(2)), ctx.arg(3));
    finish_request(result)
}

#[inline(always)]
fn try_syn_comes(sk: Kptr, skb: u64) -> Result<(), ReadError> {
    let Some(scratch) = scratch() else {
        return Ok(());
    };
    scratch.syn = 0;
    if place!(drops) == MISSING || !role_passes(ROLE_SERVER) {
        return Ok(());
    }
    scratch.drops = sk.read(place!(drops))?;
    scratch.queue = u32::from(full_queue(sk)?);
    scratch.syn = skb;
    Ok(())
}

/// `tcp_conn_request()` ends. The SYN was refused where no request was created (`request_made` did not run)
/// and the listener counted a drop (`tcp_listendrop()`). A SYN cookie or a Fast Open child does not count a
/// drop.
#[fexit(function = "tcp_conn_request")]
pub fn syn_done(ctx: FExitContext) -> i32 {
    let result = try_syn_done(Kptr::new(ctx.arg(2)), ctx.arg(3));
    finish_request(result)
}

#[inline(always)]
fn try_syn_done(sk: Kptr, skb: u64) -> Result<(), ReadError> {
    let Some(scratch) = scratch() else {
        return Ok(());
    };
    if scratch.syn != skb {
        return Ok(());
    }
    scratch.syn = 0;
    if sk.read::<u32>(place!(drops))? == scratch.drops {
        return Ok(());
    }
    let Some(segment) = PacketHeaders::of(Kptr::new(skb))? else {
        return Ok(());
    };
    let netns = netns(sk)?;
    let ports = segment.ports(true);
    if !inode_passes(netns) || !ends_pass(ports, || segment.source())? {
        return Ok(());
    }
    if !within_limit(&DROP_SECOND, OF_SELECTION, DROPS_PER_SECOND) {
        held_back(KIND_REQUEST, |s| &mut s.held_back);
        return Ok(());
    }
    let queue = match scratch.queue as u8 {
        QUEUE_NEITHER => full_queue(sk)?,
        queue => queue,
    };
    emit(|r: &mut RequestRecord, header| {
        r.header = header;
        r.moment = REQUEST_REFUSED;
        r.queue = queue;
        segment.fill_addrs(&mut r.flow, true)?;
        r.flow.local_port = ports.local;
        r.flow.peer_port = ports.peer;
        r.flow.family = sk.read(place!(family))?;
        r.flow.netns = netns;
        r.flow.listener_port = sk.read(place!(num))?;
        r.listener_state = sk.read(place!(state))?;
        r.qlen = sk.read(place!(qlen))?;
        r.young = sk.read(place!(young))?;
        r.ack_backlog = sk.read(place!(ack_backlog))?;
        r.max_ack_backlog = sk.read(place!(max_ack_backlog))?;
        r.defer_accept = sk.read(place!(defer_accept))?;
        Ok(())
    });
    Ok(())
}

/// Which queue is full: `sk_acceptq_is_full()`, `inet_csk_reqsk_queue_is_full()`. Before 6.13 and the stable
/// releases of January 2025 the SYN queue is full at its limit, since then above it. A SYN that a newer
/// kernel drops at the limit was refused by `tcp_max_syn_backlog`, which limits the same queue.
#[inline(always)]
fn full_queue(sk: Kptr) -> Result<u8, ReadError> {
    let max: u32 = sk.read(place!(max_ack_backlog))?;
    if sk.read::<u32>(place!(ack_backlog))? > max {
        return Ok(QUEUE_ACCEPT);
    }
    Ok(match sk.read::<u32>(place!(qlen))? >= max {
        true => QUEUE_SYN,
        false => QUEUE_NEITHER,
    })
}
