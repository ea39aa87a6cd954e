//! The nice value of a run that reports every transition.

use std::io;

/// The default of auditd (`priority_boost`), for the same reason.
const BOOST: libc::c_int = 4;

/// Lowers the nice value of the calling thread, and of the threads that it starts, by 4. The reader of the
/// events competes with the processes that cause them, and a ring that is not emptied in time loses
/// records. A nice value other than 0 stays. Returns whether it was changed.
///
/// # Errors
///
/// The error of setpriority(2): EACCES without CAP_SYS_NICE.
pub fn raise() -> io::Result<bool> {
    // SAFETY: takes two numbers. The result may be negative, so only errno shows an error; for the calling
    // thread itself there is none.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    if nice != 0 {
        return Ok(false);
    }
    // SAFETY: takes three numbers.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -BOOST) } {
        0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}
