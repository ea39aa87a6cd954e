//! The limit of file descriptors, and the advice when it is reached.
//!
//! Every watched network namespace takes [`PER_NAMESPACE`] of them, and the soft limit is 1024 on most
//! hosts.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Descriptors of a watched namespace: itself, sock_diag, routes, three files of counters, two sockets for ICMP.
pub const PER_NAMESPACE: u64 = 8;

/// Descriptors kept free for short use: files of /proc, sockets for one query.
const RESERVE: u64 = 32;

/// Raises the soft limit (RLIMIT_NOFILE) to the hard limit, which needs no privilege. Returns the new
/// limit.
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

/// Whether an error means that the limit is reached (EMFILE).
pub fn used_up(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}

/// Whether only the reserve is left: no further descriptor should be kept open. Of a small limit the
/// reserve is at most a quarter.
pub fn scarce() -> bool {
    let Ok(limit) = get() else { return false };
    let kept = limit.rlim_cur - RESERVE.min(limit.rlim_cur / 4);
    // A new descriptor gets the lowest free number: all below it are in use.
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => u64::try_from(fd.as_raw_fd()).is_ok_and(|number| number >= kept),
        Err(error) => used_up(&error),
    }
}

/// The message for that case: one line, including the remedy.
pub fn advice() -> String {
    let limit = get().map_or("?".to_owned(), |limit| limit.rlim_cur.to_string());
    format!(
        "{limit} file descriptors are too few for every namespace (each needs {PER_NAMESPACE}), so some \
         are left out: raise the hard limit (ulimit -Hn, or LimitNOFILE= of the service), or select one \
         with --netns"
    )
}

static OUTPUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the program was started without a standard output (`>&-`). The Rust runtime opens
/// /dev/null in its place before `main`, which looks like the /dev/null that a service manager provides.
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
