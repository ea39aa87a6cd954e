//! What the kernel says when asked: its socket tables, its counters, its settings, and who owns what.
//!
//! The probes report what happens; this reports what is. It is how a half-open that was there before
//! the run is known, how one that ended unseen is noticed, and how every figure is checked against
//! the kernel's own.

pub mod addresses;
pub mod cgroup;
pub mod counters;
pub mod icmp;
pub mod listeners;
mod nlmsg;
pub mod owner;
pub mod queues;
mod request;
pub mod route;
pub mod row;
mod scratch;
pub mod sock_diag;
mod socket;
pub mod sysctl;
#[cfg(test)]
pub(crate) mod testbed;

/// Now, on CLOCK_MONOTONIC, nanoseconds: the clock of `bpf_ktime_get_ns()` and, divided by a
/// thousand, of `tcp_request_sock.snt_synack`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes one timespec, which outlives the call. CLOCK_MONOTONIC always
    // exists, so the result needs no look.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // Neither part is ever negative on this clock.
    (now.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec as u64)
}

/// What the calling thread has used of the CPU (CLOCK_THREAD_CPUTIME_ID).
#[must_use]
pub fn thread_cpu() -> std::time::Duration {
    let mut used = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes one timespec, which outlives the call; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut used) };
    // Neither part is ever negative on this clock.
    std::time::Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}
