//! The limit of the main thread's stack (RLIMIT_STACK). The kernel looks at it whenever the stack grows.

use std::io;

/// An optimized build overflows 128 KiB, another one 256.
const NEEDED: u64 = 512 << 10;
/// What most hosts have.
const USUAL: u64 = 8 << 20;

/// Raises a limit that is too small. To be called before anything that needs a stack.
///
/// # Errors
/// The limit may not be raised: one line, with the remedy.
pub fn raise() -> Result<(), String> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is alive for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) } != 0
        || limit.rlim_cur >= NEEDED
    {
        return Ok(());
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = USUAL;
    // A hard limit is raised with CAP_SYS_RESOURCE alone.
    for hard in [limit.rlim_max, limit.rlim_max.max(USUAL)] {
        limit.rlim_max = hard;
        limit.rlim_cur = USUAL.min(hard);
        // SAFETY: the limit is alive for the call.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_STACK, &raw const limit) } == 0;
        if set && limit.rlim_cur >= NEEDED {
            return Ok(());
        }
    }
    Err(format!(
        "the limit of the stack is {} KiB, and may not be raised ({}): at least 512 are needed (ulimit -s 8192, or \
         LimitSTACK= of the service)",
        before >> 10,
        io::Error::last_os_error()
    ))
}
