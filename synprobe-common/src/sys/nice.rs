//! The agent's share of a processor where every transition is told.

use std::io;

/// As much as auditd gives itself (`priority_boost`), for the same reason.
const BOOST: libc::c_int = 4;

/// Lowers the nice value of the calling thread, and of all that it begins from now on, by 4: whoever reads
/// every event competes with those who cause them, and a ring that nobody empties in time loses records.
/// Where somebody has set a nice value already, it stays. Whether it was changed.
///
/// # Errors
///
/// Those of setpriority(2): EACCES without CAP_SYS_NICE.
pub fn raise() -> io::Result<bool> {
    // SAFETY: takes two numbers. What it returns may be negative, so an error shows in errno alone; that
    // of the calling thread itself can always be asked for.
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
