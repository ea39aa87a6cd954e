//! The clocks.

use std::{cell::Cell, time::Duration};

/// CLOCK_MONOTONIC, nanoseconds: the clock of `bpf_ktime_get_ns()` and, divided by a
/// thousand, of `tcp_request_sock.snt_synack`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes one timespec, which outlives the call. CLOCK_MONOTONIC always
    // exists, so the result needs no check.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // Neither part is ever negative on this clock.
    (now.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec as u64)
}

thread_local! {
    /// CPU time of threads that worked for this one.
    static BY_OTHERS: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Another thread has worked for this one, and took this much CPU time.
pub fn add_thread_cpu(took: Duration) {
    BY_OTHERS.set(BY_OTHERS.get() + took);
}

/// CPU time of the calling thread (CLOCK_THREAD_CPUTIME_ID), and of those that worked for it.
#[must_use]
pub(crate) fn thread_cpu() -> Duration {
    let mut used = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes one timespec, which outlives the call; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut used) };
    // Neither part is ever negative on this clock.
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32) + BY_OTHERS.get()
}

/// Measures what this thread, and those that work for it, spend of a processor.
#[derive(Clone, Copy, Debug)]
pub struct CpuTimer(Duration);

impl CpuTimer {
    /// Begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self(thread_cpu())
    }

    /// CPU time since it began.
    #[must_use]
    pub fn took(self) -> Duration {
        thread_cpu().saturating_sub(self.0)
    }
}

/// Where in wall-clock time CLOCK_MONOTONIC stands now. To be read afresh: a step of the wall clock moves
/// later lines and leaves durations alone.
#[must_use]
pub fn wall_clock() -> crate::model::WallClock {
    let realtime = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as i128);
    crate::model::WallClock::new(realtime, monotonic_ns())
}
