//! Where the agent's own log goes: standard error, or, while a screen is drawn there, a buffer until it ends.

use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use crate::sys::patient;

/// What is held back at most, bytes: the first lines of many say most.
const MOST: usize = 64 << 10;

static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// See the module.
pub(super) struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(held) => {
                if held.len() + bytes.len() <= MOST {
                    held.extend_from_slice(bytes);
                }
            }
            None => patient::message(&String::from_utf8_lossy(bytes)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Holds lines back from now on.
#[cfg(feature = "top")]
pub(super) fn hold() {
    *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// Prints what was held back, and holds back no more.
#[cfg(feature = "top")]
pub(super) fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(held) = held {
        patient::message(&String::from_utf8_lossy(&held));
    }
}
