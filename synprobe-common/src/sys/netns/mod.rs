//! Network namespaces: found by name, path, pid or inode, and entered on a separate thread.
//!
//! A namespace is identified by the inode number of its `ns/net` file, which is `net.ns.inum` in the
//! kernel: every record of the kernel side carries it. Entering it needs a descriptor. [`NetnsIndex`] opens one
//! by inode.

mod holder_sweep;
mod index;
mod open;
mod scan;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    ffi::c_int,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

pub use index::{NetnsIndex, Whereabouts};
pub use scan::{Discovery, discover, pids};

use crate::sys::{
    clock::{add_thread_cpu, thread_cpu},
    thread,
};

/// Where `ip netns` keeps its names. `/var/run` is the same as `/run` on most hosts, not on all.
pub(crate) const NAME_DIRS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// Why a network namespace cannot be opened: one line, including the remedy.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No such name under `/run/netns`.
    #[error(
        "no network namespace {name:?}: {known}; give a name, a path such as /proc/PID/ns/net, or a pid"
    )]
    UnknownName {
        /// The request.
        name: String,
        /// The existing names, as text.
        known: String,
    },
    /// No such process.
    #[error(
        "no process {pid} here; give the pid as this pid namespace numbers it, or a name under /run/netns"
    )]
    NoProcess {
        /// The request.
        pid: u32,
    },
    /// No such path.
    #[error(
        "{} does not exist; give a name under /run/netns, a path such as /proc/PID/ns/net, or a pid",
        path.display()
    )]
    NoPath {
        /// The request.
        path: PathBuf,
    },
    /// The file is not on nsfs: usually a name whose bind mount is not visible here.
    #[error(
        "{} is not a namespace: its mount is gone, or is not visible from this mount namespace; \
         give the pid of a process inside it instead",
        path.display()
    )]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
    /// A namespace of another kind.
    #[error("{} is not a network namespace; give the ns/net of the same process", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
    },
    /// EACCES or EPERM.
    #[error(
        "cannot open {}: {source}; run as root, or with CAP_SYS_PTRACE and CAP_SYS_ADMIN",
        path.display()
    )]
    Denied {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Any other failure to open it.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A new namespace could not be created.
    #[error(
        "cannot create a network namespace: {source}; run as root (CAP_SYS_ADMIN), and see \
         /proc/sys/user/max_net_namespaces"
    )]
    Create {
        /// The kernel's error.
        source: io::Error,
    },
}

std::thread_local! {
    /// The namespace of a thread that [`NetNs::run`] made, and that ends with its closure.
    static ENTERED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// A network namespace, kept alive by a descriptor as long as this value and its clones exist.
#[derive(Clone, Debug)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
    inode: u32,
    name: Arc<str>,
    /// Where it was opened.
    path: Arc<Path>,
}

/// Two handles are equal if they are of the same namespace.
impl PartialEq for NetNs {
    fn eq(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

impl Eq for NetNs {}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl NetNs {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"), None)
    }

    /// The namespace of this process, under the name by which it is found when this process has ended: a name of its
    /// own, or another process in it.
    ///
    /// # Errors
    /// As [`NetNs::current`].
    pub fn own() -> Result<Self, NetnsError> {
        let here = Self::current()?;
        let of_us = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
        let path = scan::paths().remove(&here.inode);
        Ok(match path.filter(|path| *path != of_us) {
            Some(path) => {
                let name = scan::name_of_path(here.inode, &path);
                here.named(&name)
            }
            None => here,
        })
    }

    /// Takes over a descriptor of an `ns/net` file.
    ///
    /// # Errors
    /// [`NetnsError::NotANamespace`] or [`NetnsError::WrongKind`] when it is of something else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetnsError> {
        Self::adopt(fd, Path::new("the descriptor"), None)
    }

    /// A fresh namespace with its loopback up and nothing else; it vanishes with the last handle,
    /// socket or process in it.
    ///
    /// It is made on a thread that ends at once, so the caller stays where it is.
    ///
    /// # Errors
    /// [`NetnsError::Create`] without CAP_SYS_ADMIN, or over `user.max_net_namespaces`.
    pub fn new_anonymous() -> Result<Self, NetnsError> {
        let create = |source| NetnsError::Create { source };
        on_thread(|| {
            // SAFETY: no memory is involved; only this short-lived thread changes its namespace.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(create(io::Error::last_os_error()));
            }
            loopback_up().map_err(create)?;
            Self::current()
        })
        .map_err(create)?
    }

    /// What `--netns` takes: a pid (all digits), a path (has a `/`), else a name under `/run/netns`.
    ///
    /// # Errors
    /// A [`NetnsError`], which says in one line what to give instead.
    pub fn resolve(spec: &str) -> Result<Self, NetnsError> {
        if !spec.is_empty() && spec.bytes().all(|b| b.is_ascii_digit()) {
            // A number beyond u32 is not a pid.
            let pid: u32 = spec.parse().map_err(|_| unknown_name(spec))?;
            return match Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")), None) {
                // A zombie process still has the link, without a target.
                Err(NetnsError::NoPath { .. }) => Err(NetnsError::NoProcess { pid }),
                Err(other) => Err(other),
                Ok(ns) if ns.is_host() => Ok(ns.named("host")),
                Ok(ns) => Ok(ns.named(&scan::name_of_pid(pid))),
            };
        }
        if spec.contains('/') {
            let path = Path::new(spec);
            let opened = match open::shows_no_more(path) {
                true => open::nsfs_file(path),
                false => open::as_the_caller(path),
            };
            let ns = Self::adopt(opened?, path, None)?;
            let named = path
                .parent()
                .is_some_and(|dir| NAME_DIRS.iter().any(|d| dir == Path::new(d)));
            let shown = path
                .file_name()
                .and_then(|name| name.to_str())
                .filter(|_| named);
            return Ok(match ns.is_host() {
                true => ns.named("host"),
                false => ns.named(shown.unwrap_or(spec)),
            });
        }
        if spec.is_empty() || spec == "." || spec == ".." {
            return Err(unknown_name(spec));
        }
        for dir in NAME_DIRS {
            match Self::open(&Path::new(dir).join(spec), Some(spec)) {
                Err(NetnsError::NoPath { .. }) => {}
                result => return result,
            }
        }
        // As it is printed.
        if let ("host", Some(path)) = (spec, scan::host_path()) {
            return Self::open(Path::new(path), Some(spec));
        }
        Err(unknown_name(spec))
    }

    /// Inode number of the namespace: `net.ns.inum`, the `netns` of every record.
    #[must_use]
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Its name for display: the name under `/run/netns`, `host` for that of pid 1, `pid 1234 (comm)`, or
    /// `netns:[4026532345]`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in both the current user namespace and the one that owns this namespace.
    /// No capability is needed if the thread is already in it.
    pub fn enter_on_this_thread(&self) -> io::Result<()> {
        if scan::inode_of(Path::new("/proc/thread-self/ns/net")) == Some(self.inode) {
            return Ok(());
        }
        ENTERED.set(None);
        // SAFETY: the descriptor is open (we own it); no memory is involved.
        match unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Runs `inside` on a new thread in this namespace and waits for it. The caller's thread stays in its
    /// namespace. Sockets and files that the closure opens stay bound to this namespace, and any thread may
    /// use them later. Within such a closure, another call for the same namespace needs no other thread.
    ///
    /// # Errors
    /// As [`NetNs::enter_on_this_thread`]; EAGAIN: no thread can be created.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> io::Result<T> {
        if ENTERED.get() == Some(self.inode) {
            return Ok(inside());
        }
        on_thread(|| {
            self.enter_on_this_thread()?;
            ENTERED.set(Some(self.inode));
            Ok(inside())
        })?
    }

    /// Where it was opened: whether it is still there can be asked without keeping it alive.
    #[must_use]
    pub fn whereabouts(&self) -> Whereabouts {
        Whereabouts {
            inode: self.inode,
            path: Arc::clone(&self.path),
        }
    }

    /// Whether it is that of pid 1, or of the kernel's own threads.
    #[must_use]
    pub fn is_host(&self) -> bool {
        scan::host_path().and_then(|path| scan::inode_of(Path::new(path))) == Some(self.inode)
    }

    fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    fn open(path: &Path, name: Option<&str>) -> Result<Self, NetnsError> {
        Self::adopt(open::nsfs_file(path)?, path, name)
    }

    fn adopt(fd: OwnedFd, path: &Path, name: Option<&str>) -> Result<Self, NetnsError> {
        let not_ns = || NetnsError::NotANamespace {
            path: path.to_path_buf(),
        };
        // NS_GET_NSTYPE (4.11) answers for nsfs files alone: anything else is ENOTTY.
        // SAFETY: the request takes no argument and writes no memory.
        let kind: c_int = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
        if kind < 0 {
            return Err(not_ns());
        }
        if kind != libc::CLONE_NEWNET {
            return Err(NetnsError::WrongKind {
                path: path.to_path_buf(),
            });
        }
        let file = File::from(fd);
        let ino = file.metadata().map_err(|_| not_ns())?.ino();
        let inode = u32::try_from(ino).map_err(|_| not_ns())?;
        let name = match name {
            Some(name) => name.into(),
            None => format!("netns:[{inode}]").into(),
        };
        Ok(Self {
            fd: Arc::new(file.into()),
            inode,
            name,
            path: path.into(),
        })
    }
}

fn unknown_name(name: &str) -> NetnsError {
    let mut known: Vec<String> = NAME_DIRS
        .iter()
        .flat_map(|dir| scan::names_in(dir))
        .collect();
    known.sort();
    known.dedup();
    let known = match known.is_empty() {
        true => "/run/netns has none".to_owned(),
        false => format!("/run/netns has {}", known.join(", ")),
    };
    NetnsError::UnknownName {
        name: name.to_owned(),
        known,
    }
}

/// Runs `work` on a scoped thread and passes its panic, if any, to the caller. Its CPU time counts as the caller's.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let (value, took) = thread::on_its_own("netns", || (work(), thread_cpu()))?;
    add_thread_cpu(took);
    Ok(value)
}

/// Sets `lo` up in the calling thread's namespace: in a new one it is down.
fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: ifreq is plain integers; all zero is a valid value, and a NUL-terminated name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // The request's type is one thing in glibc and another in musl.
    let set_flags = libc::SIOCSIFFLAGS as libc::Ioctl;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), set_flags, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
