//! What has to be mounted.

use std::path::PathBuf;

use crate::preflight::{Check, HostAccess, Status, host::text};

/// cgroup v2: the paths of cgroups.
pub(in crate::preflight) fn cgroup2(host: &impl HostAccess) -> Check {
    let check = |status, detail: String| Check::new("cgroup2", "cgroup v2", status, detail);
    match mount_of(host, "cgroup2") {
        Some(path) => check(Status::Ok, format!("mounted on {}", path.display())),
        None => check(Status::Degraded, "not mounted".to_owned())
            .with_lost("the cgroup of a connection")
            .with_remedy("sudo mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

/// tracefs is not needed: bpf(2) attaches raw tracepoints.
pub(in crate::preflight) fn tracefs(host: &impl HostAccess) -> Check {
    let mounted = if mount_of(host, "tracefs").is_some() {
        "mounted"
    } else {
        "not mounted"
    };
    Check::new(
        "tracefs",
        "tracefs",
        Status::Note,
        format!("{mounted}; not needed"),
    )
}

/// The first mount point of this type, from /proc/self/mounts.
fn mount_of(host: &impl HostAccess, fs: &str) -> Option<PathBuf> {
    text(host, "/proc/self/mounts")?.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == fs).then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}
