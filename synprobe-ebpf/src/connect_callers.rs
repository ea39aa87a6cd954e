//! Who called connect() and when, for the quiet mode: remembered when the SYN is sent, asked for when
//! it came to nothing. Any other transition may run on anybody's stack.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated,
};
use synprobe_ebpf::event::StateRecord;

use crate::{
    kread::Fault,
    maps::{CALLER_SLOTS, CALLERS, Caller},
};

/// Binds a caller to its socket: two CPUs may write one slot at once, and a mixture of two callers must
/// not be taken for either.
#[inline(always)]
fn sealed(sock: u64, caller: &Caller) -> u64 {
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

/// Sockets are aligned to 64 bytes at least.
#[inline(always)]
fn slot(sock: u64) -> u32 {
    ((sock >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 & (CALLER_SLOTS - 1)
}

/// The current thread's `comm`, NUL-padded, to where it is to stay: a copy would go byte by byte.
#[inline(always)]
pub fn comm_into(to: *mut [u8; 16]) -> Result<(), Fault> {
    // SAFETY: the helper writes sixteen bytes at most.
    match unsafe { generated::bpf_get_current_comm(to.cast(), 16) } {
        0 => Ok(()),
        errno => Err(errno as Fault),
    }
}

/// The current process opens this socket.
#[inline(always)]
pub fn remember(sock: u64) -> Result<(), Fault> {
    let mut comm = [0; 2];
    comm_into(comm.as_mut_ptr().cast())?;
    let mut caller = Caller {
        seal: 0,
        // SAFETY: a helper without arguments.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        comm,
        tgid: bpf_get_current_pid_tgid() >> 32,
        // SAFETY: likewise.
        at_ns: unsafe { bpf_ktime_get_ns() },
    };
    caller.seal = sealed(sock, &caller);
    if let Some(slot) = CALLERS.get_ptr_mut(slot(sock)) {
        // SAFETY: a slot of the array; another CPU may write it too, which the seal shows.
        unsafe { slot.write_volatile(caller) };
    }
    Ok(())
}

/// Fills in who opened the socket of a record, if that is still known.
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
