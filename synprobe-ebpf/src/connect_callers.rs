//! The caller and time of connect() in quiet mode. Stored when the SYN is sent, read when the handshake
//! failed: later transitions may run in the context of another process.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated,
};
use synprobe_ebpf::event::{EarlyResetRecord, StateRecord};

use crate::{
    kread::ReadError,
    maps::{CALLER_SLOTS, CALLERS, ConnectCaller},
};

/// Checksum that binds a caller to its socket. Two CPUs may write one slot at the same time; a mixture of
/// two callers must not be valid.
#[inline(always)]
fn sealed(sock: u64, caller: &ConnectCaller) -> u64 {
    let mut seal = sock;
    for part in [
        caller.cgroup,
        caller.comm[0],
        caller.comm[1],
        caller.tgid,
        caller.at_ns,
    ] {
        seal = (seal ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    seal
}

/// The slot of a socket. Sockets are aligned to at least 64 bytes.
#[inline(always)]
fn slot(sock: u64) -> u32 {
    ((sock >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 & (CALLER_SLOTS - 1)
}

/// Writes the current thread's `comm`, NUL-padded, to its destination. A copy would go byte by byte.
#[inline(always)]
pub fn comm_into(to: *mut [u8; 16]) -> Result<(), ReadError> {
    // SAFETY: the helper writes at most sixteen bytes.
    match unsafe { generated::bpf_get_current_comm(to.cast(), 16) } {
        0 => Ok(()),
        errno => Err(errno as ReadError),
    }
}

/// Stores the current process as the caller of connect() on this socket.
#[inline(always)]
pub fn remember(sock: u64) -> Result<(), ReadError> {
    let mut comm = [0; 2];
    comm_into(comm.as_mut_ptr().cast())?;
    let mut caller = ConnectCaller {
        seal: 0,
        // SAFETY: a helper without arguments.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        comm,
        tgid: bpf_get_current_pid_tgid() >> 32,
        // SAFETY: a helper without arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
    };
    caller.seal = sealed(sock, &caller);
    if let Some(slot) = CALLERS.get_ptr_mut(slot(sock)) {
        // SAFETY: a slot of the array. The seal detects a concurrent write by another CPU.
        unsafe { slot.write_volatile(caller) };
    }
    Ok(())
}

/// The caller of connect() on a socket, if it is still known.
#[inline(always)]
fn caller_of(sock: u64) -> Option<ConnectCaller> {
    let slot = CALLERS.get_ptr(slot(sock))?;
    // SAFETY: a slot of the array, integers only.
    let caller = unsafe { slot.read_volatile() };
    (caller.tgid != 0 && sealed(sock, &caller) == caller.seal).then_some(caller)
}

/// Fills in the caller of connect() on a record's socket, if it is still known.
#[inline(always)]
pub fn recall(r: &mut StateRecord) {
    let Some(caller) = caller_of(r.sock) else {
        return;
    };
    r.tgid = caller.tgid as u32;
    r.cgroup = caller.cgroup;
    r.began_ns = caller.at_ns;
    r.comm = comm_bytes(&caller);
}

/// As [`recall`]. A caller from before `since_ns` is not this connection's: the socket's address was used
/// before.
#[inline(always)]
pub fn recall_early(r: &mut EarlyResetRecord, since_ns: u64) {
    let Some(caller) = caller_of(r.sock) else {
        return;
    };
    if caller.at_ns < since_ns {
        return;
    }
    r.tgid = caller.tgid as u32;
    r.cgroup = caller.cgroup;
    r.comm = comm_bytes(&caller);
}

#[inline(always)]
fn comm_bytes(caller: &ConnectCaller) -> [u8; 16] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
        (caller.comm[0].to_ne_bytes(), caller.comm[1].to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}
