//! cgroup v2 ids (`bpf_get_current_cgroup_id()`, `INET_DIAG_CGROUP_ID`) to paths and back.

use std::{
    collections::HashMap,
    ffi::{OsString, c_int},
    fs::{self, File},
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// `FILEID_KERNFS` (`linux/exportfs.h`, 5.5): the handle is the 64-bit kernfs id.
const FILEID_KERNFS: c_int = 0xfe;
/// Cached paths, at most: more than a host uses at a time.
const MAX_CACHED: usize = 16 * 1024;
/// Shortest time between two walks of the tree. A walk may take tens of milliseconds, and every event of a
/// removed cgroup would start another.
const WALK_EVERY: Duration = Duration::from_secs(1);

/// A host's cgroup v2 tree.
#[derive(Debug)]
pub struct Cgroups {
    mount: PathBuf,
    dir: File,
    /// A removed cgroup stays here, for its late events.
    paths: HashMap<u64, String>,
    walked: Option<Instant>,
}

impl Cgroups {
    /// Finds where cgroup2 is mounted: `/sys/fs/cgroup`, `/sys/fs/cgroup/unified` beside version 1,
    /// or anywhere else.
    ///
    /// # Errors
    /// NotFound: it is not mounted; or the error of opening the mount.
    pub fn open() -> io::Result<Self> {
        let mount = find_mount(&fs::read("/proc/self/mountinfo")?).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "cgroup2 is not mounted, so cgroups have no names; mount -t cgroup2 none DIR",
            )
        })?;
        let dir = File::open(&mount)?;
        Ok(Self {
            mount,
            dir,
            paths: HashMap::new(),
            walked: None,
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Path of a cgroup below the mount, `/` for the root; `None`: it does not exist (any more), or is
    /// outside the mount. Without CAP_DAC_READ_SEARCH a cgroup younger than a second may have no name
    /// yet.
    pub fn path(&mut self, id: u64) -> Option<&str> {
        if !self.paths.contains_key(&id) {
            if self.paths.len() >= MAX_CACHED {
                self.paths.clear();
            }
            match self.by_handle(id) {
                Ok(found) => {
                    self.paths.insert(id, found?);
                }
                // The handle is stale: the cgroup is gone, and a walk would not find it either.
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return None,
                // CAP_DAC_READ_SEARCH is missing, or the kernel is older than 5.5.
                Err(_) if self.walked.is_none_or(|last| last.elapsed() >= WALK_EVERY) => {
                    self.walk();
                    self.walked = Some(Instant::now());
                }
                Err(_) => return None,
            }
        }
        self.paths.get(&id).map(String::as_str)
    }

    /// Id of the cgroup at a path below the mount, for filters.
    ///
    /// # Errors
    /// NotFound: it does not exist.
    pub fn id(&self, path: &str) -> io::Result<u64> {
        // On 64-bit hosts st_ino of a cgroup is its kernfs id.
        Ok(fs::metadata(self.mount.join(path.trim_start_matches('/')))?.ino())
    }

    /// Opens the cgroup by its id and reads its path.
    fn by_handle(&self, id: u64) -> io::Result<Option<String>> {
        /// `struct file_handle` with its eight bytes.
        #[repr(C)]
        struct Handle {
            handle_bytes: u32,
            handle_type: c_int,
            id: u64,
        }
        let handle = Handle {
            handle_bytes: size_of::<u64>() as u32,
            handle_type: FILEID_KERNFS,
            id,
        };
        // SAFETY: the kernel reads a header and handle_bytes bytes: exactly the struct, which is live.
        let raw = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.dir.as_raw_fd(),
                &raw const handle,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        let raw = c_int::try_from(raw).ok().filter(|fd| *fd >= 0);
        let raw = raw.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: it was just opened, and nothing else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        Ok(self.below_mount(&path))
    }

    /// Reads the whole tree, for processes without CAP_DAC_READ_SEARCH.
    fn walk(&mut self) {
        let mut todo = vec![self.mount.clone()];
        while let Some(dir) = todo.pop() {
            let (Ok(meta), Some(path)) = (fs::metadata(&dir), self.below_mount(&dir)) else {
                continue;
            };
            self.paths.insert(meta.ino(), path);
            let Ok(entries) = fs::read_dir(&dir) else {
                continue;
            };
            let below = entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path());
            todo.extend(below);
        }
    }

    fn below_mount(&self, path: &Path) -> Option<String> {
        let below = path.strip_prefix(&self.mount).ok()?.to_string_lossy();
        Some(format!("/{}", below.trim_end_matches(" (deleted)")))
    }
}

/// The cgroup v2 path of a process, as its `0::` line in `/proc/PID/cgroup` has it: from the root of
/// the reader's cgroup namespace.
///
/// # Errors
/// NotFound when the process is gone, or the kernel has no cgroup v2.
pub fn of_pid(pid: u32) -> io::Result<String> {
    let text = fs::read(format!("/proc/{pid}/cgroup"))?;
    v2_line(&text).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 here"))
}

fn v2_line(text: &[u8]) -> Option<String> {
    let path = text
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    let path = String::from_utf8_lossy(path);
    Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
}

/// Mount point of the first cgroup2 in a mountinfo; one that shows the whole tree (root `/`) is
/// preferred to one that shows a part.
fn find_mount(mountinfo: &[u8]) -> Option<PathBuf> {
    let mut part = None;
    for line in mountinfo.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b' ');
        let (root, point) = (fields.nth(3), fields.next());
        // Optional fields end with a lone hyphen; the type follows it.
        let kind = fields.skip_while(|field| *field != b"-").nth(1);
        if let (Some(root), Some(point), Some(b"cgroup2")) = (root, point, kind) {
            let point = PathBuf::from(OsString::from_vec(unescape(point)));
            if root == b"/" {
                return Some(point);
            }
            part.get_or_insert(point);
        }
    }
    part
}

/// Undoes the kernel's `\040` for a blank, and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime shared:9 - cgroup cgroup rw,blkio
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:1 master:2 - cgroup2 cgroup2 rw
";

    #[test]
    fn the_mount_is_found_by_type_whatever_its_place() {
        assert_eq!(
            find_mount(HYBRID).unwrap(),
            Path::new("/sys/fs/cgroup/unified")
        );
        let odd = b"41 31 0:38 / /mnt/my\\040cg rw - cgroup2 none rw\n";
        assert_eq!(find_mount(odd).unwrap(), Path::new("/mnt/my cg"));
        let part = b"1 1 0:1 /a /part rw - cgroup2 x rw\n2 1 0:1 / /whole rw - cgroup2 x rw\n";
        assert_eq!(find_mount(part).unwrap(), Path::new("/whole"));
        assert_eq!(find_mount(&part[..33]).unwrap(), Path::new("/part"));
        assert_eq!(
            find_mount(b"41 31 0:38 / /cgroup2 rw - tmpfs cgroup2 rw\n"),
            None
        );
    }

    #[test]
    fn every_truncation_of_mountinfo_is_read() {
        for len in 0..HYBRID.len() {
            let found = find_mount(&HYBRID[..len]);
            assert!(
                found.is_none_or(|at| at == Path::new("/sys/fs/cgroup/unified")),
                "cut at {len}"
            );
        }
    }

    #[test]
    fn the_v2_line_of_a_process() {
        let text = b"9:name=systemd:/x\n4:memory:/y\n0::/system.slice/nginx.service\n";
        assert_eq!(
            v2_line(text).as_deref(),
            Some("/system.slice/nginx.service")
        );
        assert_eq!(v2_line(b"0::/gone (deleted)\n").as_deref(), Some("/gone"));
        assert_eq!(v2_line(b"4:memory:/y\n"), None);
        assert_eq!(v2_line(b""), None);
    }

    #[test]
    fn escapes_are_octal_and_anything_else_is_itself() {
        assert_eq!(unescape(b"a\\040b\\134c"), b"a b\\c");
        assert_eq!(unescape(b"\\04\\9\\"), b"\\04\\9\\");
    }

    mod kernel {
        use super::*;

        /// A cgroup that is removed with the value.
        struct TestCgroup(PathBuf);

        impl TestCgroup {
            fn below(cgroups: &Cgroups, name: &str) -> Self {
                let path = cgroups
                    .mount()
                    .join(format!("{name}-{}", std::process::id()));
                fs::create_dir(&path).unwrap();
                Self(path)
            }
        }

        impl Drop for TestCgroup {
            fn drop(&mut self) {
                let _ = fs::remove_dir(&self.0);
            }
        }

        #[test]
        #[ignore = "needs root and cgroup2"]
        fn id_to_path_and_back_by_handle_and_by_walk() {
            let mut cgroups = Cgroups::open().unwrap();
            let made = TestCgroup::below(&cgroups, "synprobe-test-id");
            let path = format!("/synprobe-test-id-{}", std::process::id());
            let id = cgroups.id(&path).unwrap();
            assert_eq!(
                cgroups.by_handle(id).unwrap().as_deref(),
                Some(path.as_str())
            );
            cgroups.walk();
            assert_eq!(cgroups.paths.get(&id), Some(&path));
            let root = cgroups.id("/").unwrap();
            assert_eq!(cgroups.paths.get(&root).map(String::as_str), Some("/"));
            cgroups.paths.clear();
            assert_eq!(cgroups.path(root), Some("/"));
            assert_eq!(cgroups.path(id), Some(path.as_str()));
            drop(made);
            assert_eq!(
                cgroups.path(id),
                Some(path.as_str()),
                "a removed one keeps its name"
            );
            cgroups.paths.clear();
            assert_eq!(cgroups.path(id), None);
        }

        #[test]
        #[ignore = "needs root and cgroup2"]
        fn of_pid_names_the_cgroup_that_the_id_names() {
            let mut cgroups = Cgroups::open().unwrap();
            let path = of_pid(std::process::id()).unwrap();
            let id = cgroups.id(&path).unwrap();
            assert_eq!(cgroups.path(id), Some(path.as_str()));
        }
    }
}
