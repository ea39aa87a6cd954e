//! Waits for descriptors until a deadline.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::{Duration, Instant},
};

/// The longest delay until a wait notices a stop flag.
pub const SLICE: Duration = Duration::from_millis(25);

/// Waits until `fd` is readable; false: the deadline passed.
pub fn readable(fd: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    let mut polled = [interest(fd.as_fd().as_raw_fd(), libc::POLLIN)];
    loop {
        if wait(&mut polled, deadline)? > 0 {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

/// One row for [`wait`].
pub fn interest(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
}

/// Waits for any of the rows, at most until `deadline`. Returns how many are ready; a signal ends the wait
/// with 0.
pub fn wait(rows: &mut [libc::pollfd], deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = libc::timespec {
        // musl deprecates the name of the field's type.
        tv_sec: left.as_secs() as _,
        tv_nsec: left.subsec_nanos() as libc::c_long,
    };
    // SAFETY: rows and time-out are alive, the count is the slice's own, and a null mask is allowed.
    let ready = unsafe {
        libc::ppoll(
            rows.as_mut_ptr(),
            rows.len() as libc::nfds_t,
            &raw const left,
            std::ptr::null(),
        )
    };
    if ready >= 0 {
        return Ok(ready as usize);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted {
        return Ok(0);
    }
    Err(error)
}
