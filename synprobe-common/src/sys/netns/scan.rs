//! Searches namespaces by name, process and descriptor.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{NAME_DIRS, NetNs, NetnsError};
use crate::{
    sys::{fd_limit, workload},
    util::format,
};

/// Where Docker keeps the namespaces of its containers.
const DOCKER_DIRS: [&str; 2] = ["/run/docker/netns", "/var/run/docker/netns"];

/// The result of [`discover`].
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Every namespace that can be opened, each once, in the order found: the host's, the named
    /// ones, then those of processes by ascending pid.
    pub namespaces: Vec<NetNs>,
    /// Processes whose namespace cannot be opened for lack of permission.
    pub denied_processes: usize,
    /// Names that cannot be opened for lack of permission.
    pub denied_names: usize,
    /// There were more, but this process has no file descriptors left.
    pub exhausted: bool,
    /// `/proc` hides processes of others (its mount option hidepid).
    pub hidden_processes: bool,
}

impl Discovery {
    /// Which namespaces were left out for lack of permission, in one sentence; `None`: none was.
    pub fn denial(&self) -> Option<String> {
        let processes = match self.denied_processes {
            0 => None,
            1 => Some("the namespace of 1 process".to_owned()),
            n => Some(format!("the namespaces of {n} processes")),
        };
        let names = match self.denied_names {
            0 => None,
            1 => Some("1 named namespace".to_owned()),
            n => Some(format!("{n} named namespaces")),
        };
        let left_out = match (processes, names) {
            (Some(processes), Some(names)) => format!("{processes} and {names}"),
            (one, other) => one.or(other)?,
        };
        Some(format!(
            "{left_out} may not be entered: run as root, or with CAP_SYS_ADMIN, CAP_SYS_PTRACE and every \
             capability that those processes have"
        ))
    }

    /// Adds the namespace at `path` unless it is known. Returns how many were denied: 0 or 1.
    fn offer(
        &mut self,
        path: &Path,
        seen: &mut HashSet<u32>,
        name: impl FnOnce() -> String,
    ) -> usize {
        // Most processes share a namespace that is known already, and opening each would cost twice.
        match look_at(path) {
            Ok(Some(inode)) if seen.contains(&inode) => return 0,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return 1,
            // It no longer exists.
            Err(_) => return 0,
        }
        if fd_limit::scarce() {
            self.exhausted = true;
            return 0;
        }
        match NetNs::open(path, None) {
            Ok(ns) => {
                if seen.insert(ns.inode()) {
                    self.namespaces.push(ns.named(&name()));
                }
            }
            Err(NetnsError::Denied { .. }) => return 1,
            // It no longer exists, or is not a namespace.
            Err(_) => {}
        }
        0
    }
}

/// Every network namespace that a name or a process shows. One that only a descriptor or a socket
/// holds is not included: [`NetnsIndex`](super::NetnsIndex) looks for it by inode. Never fails: what cannot be opened is
/// counted.
#[must_use]
pub fn discover() -> Discovery {
    let mut found = Discovery {
        // Every pid namespace has a process 1.
        hidden_processes: Path::new("/proc/self").exists() && !Path::new("/proc/1").exists(),
        ..Discovery::default()
    };
    let mut seen = HashSet::new();
    found.denied_processes += match host_path() {
        Some(path) => found.offer(Path::new(path), &mut seen, || "host".to_owned()),
        None => 1,
    };
    for (dirs, prefix) in [(NAME_DIRS, ""), (DOCKER_DIRS, "docker ")] {
        for dir in dirs {
            for name in names_in(dir) {
                let path = Path::new(dir).join(&name);
                found.denied_names += found.offer(&path, &mut seen, || format!("{prefix}{name}"));
            }
        }
    }
    // The first process of a namespace names it, unless it is there only to hold it.
    let mut held_only = HashMap::new();
    for pid in pids() {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let known = found.namespaces.len();
        found.denied_processes += found.offer(&path, &mut seen, || name_of_pid(pid));
        if found.namespaces.len() > known {
            if only_holds(pid) {
                held_only.insert(found.namespaces[known].inode(), known);
            }
        } else if !held_only.is_empty()
            && let Some(at) = inode_of(&path).and_then(|inode| held_only.remove(&inode))
        {
            let named = found.namespaces[at].clone().named(&name_of_pid(pid));
            if only_holds(pid) {
                held_only.insert(named.inode(), at);
            }
            found.namespaces[at] = named;
        }
    }
    found
}

/// Programs that do nothing but hold the namespaces of a pod, or reap its processes.
const HOLDERS: [&[u8]; 5] = [
    b"pause\n",
    b"catatonit\n",
    b"tini\n",
    b"docker-init\n",
    b"dumb-init\n",
];

fn only_holds(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| HOLDERS.contains(&comm.as_slice()))
}

/// The namespace at `path`, if it has this inode number.
pub(super) fn open_as(inode: u32, path: &Path, name: impl FnOnce() -> String) -> Option<NetNs> {
    if inode_of(path)? != inode {
        return None;
    }
    // The process may have moved meanwhile: the opened file decides.
    let ns = NetNs::open(path, None).ok()?;
    (ns.inode() == inode).then(|| ns.named(&name()))
}

/// Where each namespace can be opened that a name or a process shows.
pub(super) fn paths() -> HashMap<u32, PathBuf> {
    let mut paths = HashMap::new();
    let mut add = |path: PathBuf| {
        if let Some(inode) = inode_of(&path) {
            paths.entry(inode).or_insert(path);
        }
    };
    if let Some(path) = host_path() {
        add(path.into());
    }
    for dir in NAME_DIRS.into_iter().chain(DOCKER_DIRS) {
        for name in names_in(dir) {
            add(Path::new(dir).join(name));
        }
    }
    let mut held_only = Vec::new();
    for pid in pids() {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        match inode_of(&path) {
            Some(inode) if paths.contains_key(&inode) => (),
            Some(_) if only_holds(pid) => held_only.push(path),
            Some(inode) => {
                paths.insert(inode, path);
            }
            None => (),
        }
    }
    for path in held_only {
        if let Some(inode) = inode_of(&path) {
            paths.entry(inode).or_insert(path);
        }
    }
    paths
}

/// Names of namespaces, read again when one was added or removed.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of each folder, when it was changed: seconds and nanoseconds.
    read: Vec<Option<(i64, i64)>>,
    paths: HashMap<u32, PathBuf>,
}

impl Names {
    /// Where the namespace has a name.
    pub fn path_of(&mut self, inode: u32) -> Option<PathBuf> {
        let dirs = || NAME_DIRS.into_iter().chain(DOCKER_DIRS);
        let changed = |dir| {
            let meta = fs::metadata(dir).ok()?;
            Some((meta.mtime(), meta.mtime_nsec()))
        };
        let now: Vec<_> = dirs().map(changed).collect();
        if now != self.read {
            self.read = now;
            self.paths.clear();
            for dir in dirs() {
                for name in names_in(dir) {
                    let path = Path::new(dir).join(name);
                    if let Some(inode) = inode_of(&path) {
                        self.paths.entry(inode).or_insert(path);
                    }
                }
            }
        }
        // A name may have been mounted over since.
        self.paths
            .get(&inode)
            .filter(|path| inode_of(path) == Some(inode))
            .cloned()
    }
}

/// The name that goes with one of [`paths`].
pub(super) fn name_of_path(inode: u32, path: &Path) -> String {
    if host_path().is_some_and(|host| path == Path::new(host)) {
        return "host".to_owned();
    }
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let is_in = |dirs: &[&str]| {
        path.parent()
            .is_some_and(|at| dirs.iter().any(|d| at == Path::new(d)))
    };
    if is_in(&NAME_DIRS) {
        return name.into_owned();
    }
    if is_in(&DOCKER_DIRS) {
        return format!("docker {name}");
    }
    let pid = path
        .strip_prefix("/proc")
        .ok()
        .and_then(|rest| rest.to_str()?.strip_suffix("/ns/net")?.parse().ok());
    pid.map_or_else(|| format!("netns:[{inode}]"), name_of_pid)
}

/// Calls `note` with the namespaces that threads and descriptors of a process hold, and where they can be opened.
pub(super) fn held_by(pid: u32, mut note: impl FnMut(u32, PathBuf)) {
    let mut look = |path: PathBuf| {
        let link = fs::read_link(&path).ok();
        if let Some(inode) = link.as_deref().and_then(inode_of_link) {
            note(inode, path);
        }
    };
    for thread in names_in(&format!("/proc/{pid}/task")) {
        look(PathBuf::from(format!("/proc/{pid}/task/{thread}/ns/net")));
    }
    for fd in names_in(&format!("/proc/{pid}/fd")) {
        look(PathBuf::from(format!("/proc/{pid}/fd/{fd}")));
    }
}

/// The inode in `net:[inode]`. Opening the link shows whether it is a namespace or a file of that name.
fn inode_of_link(link: &Path) -> Option<u32> {
    let text = link.to_str()?;
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The `ns/net` file of the host's namespace: that of pid 1, or if it cannot be read (a hardened init) of
/// kthreadd, which is in `init_net` on every kernel.
pub(super) fn host_path() -> Option<&'static str> {
    if inode_of(Path::new("/proc/1/ns/net")).is_some() {
        return Some("/proc/1/ns/net");
    }
    // In a child pid namespace, pid 2 may be any process.
    let kthreadd = fs::read("/proc/2/comm").is_ok_and(|comm| comm == b"kthreadd\n")
        && fs::read("/proc/2/cmdline").is_ok_and(|line| line.is_empty());
    kthreadd.then_some("/proc/2/ns/net")
}

/// Inode of the namespace at `path`; `None`: it does not exist, is hidden, or is beyond u32.
pub(super) fn inode_of(path: &Path) -> Option<u32> {
    look_at(path).ok().flatten()
}

/// The same, with the error; `None`: it is no namespace, or beyond u32.
///
/// Below `/proc` the link has it, for two thirds of what stat(2) costs. That would also follow a descriptor that its
/// process may have replaced meanwhile, into a file system that never answers.
fn look_at(path: &Path) -> io::Result<Option<u32>> {
    if path.starts_with("/proc") {
        match fs::read_link(path) {
            // Below `/proc/PID/root`: no link.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (),
            link => return link.map(|link| inode_of_link(&link)),
        }
    }
    fs::metadata(path).map(|meta| u32::try_from(meta.ino()).ok())
}

/// The pod or container of a process, where the node's files name it; else `pid 1234 (comm)`, or `pid 1234` if it
/// has ended.
pub(super) fn name_of_pid(pid: u32) -> String {
    if let Some(pod) = workload::pod_of_pid(pid) {
        return pod;
    }
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(comm) => {
            let comm = String::from_utf8_lossy(&comm);
            format!("pid {pid} ({})", format::name(comm.trim_end_matches('\n')))
        }
        Err(_) => format!("pid {pid}"),
    }
}

/// Entries of a directory, sorted; none if it cannot be read.
pub(super) fn names_in(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Processes (thread-group leaders) by ascending pid, as this pid namespace numbers them.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue14_3_what_may_not_be_entered_is_counted_as_processes() {
        let mut found = Discovery::default();
        assert_eq!(found.denial(), None);
        let sentence = |found: &Discovery| {
            let text = found.denial().unwrap();
            text.split(" may not be entered: run as root")
                .next()
                .unwrap()
                .to_owned()
        };
        found.denied_processes = 91;
        assert_eq!(sentence(&found), "the namespaces of 91 processes");
        found.denied_names = 1;
        assert_eq!(
            sentence(&found),
            "the namespaces of 91 processes and 1 named namespace"
        );
        found.denied_processes = 0;
        assert_eq!(sentence(&found), "1 named namespace");
    }

    #[test]
    fn a_descriptor_of_another_file_is_looked_at_and_not_followed() {
        use std::os::fd::AsRawFd;

        let file = |path: &str| fs::File::open(path).unwrap();
        let (netns, other) = (file("/proc/self/ns/net"), file("/proc/self/comm"));
        let at = |file: &fs::File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        assert_eq!(
            inode_of(&at(&netns)),
            inode_of(Path::new("/proc/self/ns/net"))
        );
        assert!(inode_of(&at(&netns)).is_some());
        assert_eq!(inode_of(&at(&other)), None);
    }
}
