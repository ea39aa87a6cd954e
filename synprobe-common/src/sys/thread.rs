//! Work on a thread of its own: for what holds for a thread and not for the process.

use std::{io, panic, thread};

/// Runs `work` on a scoped thread and passes its panic, if any, to the caller.
///
/// # Errors
/// The thread cannot be made.
pub(crate) fn on_its_own<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name(name.to_owned());
        match builder.spawn_scoped(scope, work)?.join() {
            Ok(value) => Ok(value),
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}
