//! Which host this is.

use std::fs;

use crate::model::HostIdentity;

/// Longest that any of them is.
const LONGEST: usize = 256;

/// Reads it; what cannot be read is `None`.
#[must_use]
pub fn read() -> HostIdentity {
    HostIdentity {
        hostname: line("/proc/sys/kernel/hostname"),
        machine_id: line("/etc/machine-id"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
    }
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty() && text.len() <= LONGEST).then(|| text.to_owned())
}
