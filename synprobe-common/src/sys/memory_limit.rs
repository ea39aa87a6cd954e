//! The memory that the cgroup of this process may take. The kernel ends a process that wants more.

use std::{fs, path::Path};

/// Bytes; `None`: there is no limit that can be seen. A container sees its own limit, not those of its pod or host.
#[must_use]
pub fn of_cgroup() -> Option<u64> {
    of_cgroup_below(Path::new("/"))
}

fn of_cgroup_below(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (hierarchy, controllers) = (parts.next()?, parts.next()?);
        let path = parts.next()?.trim_start_matches('/');
        let (mounts, file): (&[&str], _) = match controllers {
            "" if hierarchy == "0" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let mounts = mounts.iter().map(|mount| root.join(mount));
        mounts.filter_map(|mount| least(&mount, path, file)).min()
    });
    limits.min()
}

/// The least limit of a cgroup and those above it.
fn least(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let cgroups = Path::new(path).ancestors();
    let limits = cgroups.filter_map(|cgroup| {
        let text = fs::read_to_string(mount.join(cgroup).join(file)).ok()?;
        // Version 2 says `max`, version 1 the largest number of whole pages.
        let limit: u64 = text.trim().parse().ok()?;
        (limit < 1 << 60).then_some(limit)
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Option<u64> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "synprobe-limit-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let limit = of_cgroup_below(&root);
        fs::remove_dir_all(&root).unwrap();
        limit
    }

    #[test]
    fn the_least_of_a_cgroup_and_those_above_it() {
        let of_unit = ("proc/self/cgroup", "0::/system.slice/synprobe.service\n");
        let unit = "sys/fs/cgroup/system.slice/synprobe.service/memory.max";
        let slice = "sys/fs/cgroup/system.slice/memory.max";
        let none = with(&[of_unit, (unit, "max\n"), (slice, "max\n")]);
        assert_eq!(none, None);
        let own = with(&[of_unit, (unit, "134217728\n"), (slice, "max\n")]);
        assert_eq!(own, Some(134_217_728));
        let above = with(&[of_unit, (unit, "134217728\n"), (slice, "67108864\n")]);
        assert_eq!(above, Some(67_108_864));
    }

    #[test]
    fn a_container_and_version_1() {
        let inside = ("proc/self/cgroup", "0::/\n");
        let limit = with(&[inside, ("sys/fs/cgroup/memory.max", "67108864\n")]);
        assert_eq!(limit, Some(67_108_864));
        let hybrid = (
            "proc/self/cgroup",
            "4:cpu,memory:/a\n1:name=systemd:/\n0::/\n",
        );
        let file = "sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        assert_eq!(with(&[hybrid, (file, "9223372036854771712\n")]), None);
        assert_eq!(with(&[hybrid, (file, "50000000\n")]), Some(50_000_000));
        assert_eq!(with(&[]), None);
    }
}
