//! Detects a guest that `cargo xtask vm` booted. Some tests may run only there, because they affect the whole
//! machine.

use std::{ffi::CStr, fs, sync::OnceLock};

/// The name of PID 1 in a guest (`src/bin/guest-init.rs`).
pub const INIT: &CStr = c"guest-init";

/// Whether this machine is such a guest.
pub fn is_guest() -> bool {
    static GUEST: OnceLock<bool> = OnceLock::new();
    *GUEST.get_or_init(|| {
        let comm = fs::read("/proc/1/comm").unwrap_or_default();
        comm.trim_ascii_end() == INIT.to_bytes()
    })
}
