//! File descriptors: how many there may be, and what to say when they are used up.
//!
//! Every network namespace that is watched takes [`PER_NAMESPACE`] of them, and the soft limit is 1024
//! on most hosts.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Of each watched namespace: itself, sock_diag, routes, two files of counters, two sockets for ICMP.
pub const PER_NAMESPACE: u64 = 7;

/// Kept for what is opened and closed again at once: files of /proc, sockets for one question.
const RESERVE: u64 = 32;

/// Lets the process have as many as it is allowed: raises the soft limit (RLIMIT_NOFILE) to the hard
/// one, which needs no privilege. The limit that holds from now on.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2).
pub fn raise() -> io::Result<u64> {
    let mut limit = get()?;
    if limit.rlim_cur != limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the limit is alive for the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Whether an error says that the process may have no more.
pub fn used_up(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}

/// Whether nothing more may be kept open: what is left, of a small limit at most a quarter, is for
/// what is closed again at once.
pub fn scarce() -> bool {
    let Ok(limit) = get() else { return false };
    let kept = limit.rlim_cur - RESERVE.min(limit.rlim_cur / 4);
    // A new one gets the lowest number that is free: all below are taken.
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => u64::try_from(fd.as_raw_fd()).is_ok_and(|number| number >= kept),
        Err(error) => used_up(&error),
    }
}

/// What to say then: one line, the remedy included.
pub fn advice() -> String {
    let limit = get().map_or("?".to_owned(), |limit| limit.rlim_cur.to_string());
    format!(
        "the {limit} file descriptors that synprobe may have do not suffice for every namespace: some \
         are left out; each takes {PER_NAMESPACE}: raise the hard limit, with ulimit -Hn or \
         LimitNOFILE= of the service, or watch one with --netns"
    )
}

static OUTPUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the program was started without a standard output (`>&-`). The Rust runtime puts /dev/null in
/// its place before `main`, and that looks like the /dev/null that a service manager gives on purpose.
pub fn output_was_closed() -> bool {
    OUTPUT_WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look_at_output() {
    // SAFETY: fcntl(F_GETFD) takes no pointer.
    if unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1 {
        OUTPUT_WAS_CLOSED.store(true, Ordering::Relaxed);
    }
}

// SAFETY: the C library calls each function in this section once, before `main`; this one needs nothing
// that is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look_at_output;

fn get() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is alive for the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap();
        let figures: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        assert_eq!(figures, [raised, raised], "{line}");
    }
}
