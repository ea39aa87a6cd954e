//! The caller and time of connect() in quiet mode. Stored when the SYN is sent, read when the handshake
//! failed: later transitions may run in the context of another process.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated,
};
use synprobe_ebpf::event::StateRecord;

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

/// Fills in the caller of connect() on a record's socket, if it is still known.
#[inline(always)]
pub fn recall(r: &mut StateRecord) {
    let Some(slot) = CALLERS.get_ptr(slot(r.sock)) else {
        return;
    };
    // SAFETY: a slot of the array, integers only.
    let caller = unsafe { slot.read_volatile() };
    if caller.tgid == 0 || sealed(r.sock, &caller) != caller.seal {
        return;
    }
    r.tgid = caller.tgid as u32;
    r.cgroup = caller.cgroup;
    r.began_ns = caller.at_ns;
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
        (caller.comm[0].to_ne_bytes(), caller.comm[1].to_ne_bytes());
    r.comm = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
}
