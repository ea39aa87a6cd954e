//! Whether this is a guest that `cargo xtask vm` booted, and what only there may be done: what it hurts
//! goes with it.

use std::{ffi::CStr, fs, sync::OnceLock};

/// What PID 1 calls itself in a guest (`src/bin/guest-init.rs`).
pub const INIT: &CStr = c"guest-init";

/// Whether PID 1 is a guest's.
pub fn is_guest() -> bool {
    static GUEST: OnceLock<bool> = OnceLock::new();
    *GUEST.get_or_init(|| {
        let comm = fs::read("/proc/1/comm").unwrap_or_default();
        comm.trim_ascii_end() == INIT.to_bytes()
    })
}
