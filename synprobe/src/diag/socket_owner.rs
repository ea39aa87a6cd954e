//! Which process owns a socket. The kernel has no such link, so the descriptors of every process are read
//! until the socket is found. That is costly: look-ups are rare, and for many sockets at once. A run bounds
//! each; a search that was cut short goes on with the next look-up. A command that ends anyway reads all.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    ffi::CStr,
    fs,
    io::Write,
    time::{Duration, Instant},
};

mod sweep;

use crate::sys::{clock::CpuTimer, netns::pids};
use sweep::{Sweep, eldest_holder, parent_comes_later};

/// How long "no process has it" is cached. Sockets of the kernel itself (NFS, iSCSI) never have an owner,
/// and would otherwise cost a whole scan each time.
const BELIEVE_UNOWNED: Duration = Duration::from_secs(10);

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// Process (thread group) id, as this pid namespace numbers it.
    pub pid: u32,
    /// Its `comm`, at most 15 bytes.
    pub comm: String,
}

/// How much one scan may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Descriptors to read, about a microsecond each.
    pub max_fds: usize,
    /// CPU time to spend: on a busy host the same time by the clock shows far less.
    pub max_cpu: Duration,
}

impl Bounds {
    /// Every process is read: for a command that looks once.
    pub const NONE: Self = Self {
        max_fds: usize::MAX,
        max_cpu: Duration::MAX,
    };
}

impl Default for Bounds {
    /// Of one look-up of a run: 200,000 descriptors, 250 ms of CPU time.
    fn default() -> Self {
        Self {
            max_fds: 200_000,
            max_cpu: Duration::from_millis(250),
        }
    }
}

/// What a look-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOwners {
    /// Owners by inode of the socket.
    pub by_inode: HashMap<u32, SocketOwner>,
    /// Whether every process was read, or every inode found: one that is missing has no visible owner.
    /// False: a bound ended the scan early.
    pub complete: bool,
    /// Processes whose descriptors cannot be read (CAP_SYS_PTRACE is missing).
    pub denied: usize,
    /// Descriptors that were read.
    pub read: usize,
}

/// What is left of the bounds of a search.
struct SearchBudget<'s> {
    bounds: Bounds,
    timer: CpuTimer,
    stop: &'s dyn Fn() -> bool,
}

/// Descriptors that are read between two looks at the clock.
const BETWEEN_LOOKS: usize = 32;

impl<'s> SearchBudget<'s> {
    fn new(bounds: Bounds, stop: &'s dyn Fn() -> bool) -> Self {
        Self {
            bounds,
            timer: CpuTimer::begin(),
            stop,
        }
    }

    /// Whether the search ends, after so many descriptors.
    fn is_spent(&self, read: usize) -> bool {
        read >= self.bounds.max_fds
            || read.is_multiple_of(BETWEEN_LOOKS)
                && (self.timer.took() > self.bounds.max_cpu || (self.stop)())
    }
}

#[derive(Debug)]
struct Held {
    owner: SocketOwner,
    /// Descriptor number: checking it again takes one readlink().
    fd: u32,
}

/// Looks up owners and caches them. A cached owner is checked before it is returned.
#[derive(Debug, Default)]
pub struct OwnerCache {
    held: HashMap<u32, Held>,
    unowned: HashMap<u32, Instant>,
    /// A search that a bound ended.
    cut: Option<Sweep>,
}

impl OwnerCache {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Owners of the sockets with these inodes. Those that are not cached are searched in one pass over
    /// `/proc`. Of several processes that share a socket (a pre-forked server) the eldest is returned: the
    /// parent of the others, or the lowest pid. An init at pid 1 comes last: with socket activation it holds
    /// sockets that others serve. Sockets in the table of a single thread (CLONE_FILES unshared) are not
    /// found.
    pub fn find(&mut self, inodes: &[u32], bounds: Bounds) -> SocketOwners {
        self.find_near(inodes, &HashSet::new(), bounds, &|| false)
    }

    /// As [`OwnerCache::find`]. With a bound, the search begins where an owner is most likely: at processes
    /// that held sockets before, then at those of the namespaces `near` (inodes), then at the newest. `stop` ends it
    /// early.
    pub fn find_near(
        &mut self,
        inodes: &[u32],
        near: &HashSet<u32>,
        bounds: Bounds,
        stop: &dyn Fn() -> bool,
    ) -> SocketOwners {
        let start = Instant::now();
        let mut owners = SocketOwners {
            complete: true,
            ..SocketOwners::default()
        };
        let mut wanted: HashSet<u32> = HashSet::new();
        self.unowned
            .retain(|_, since| start.duration_since(*since) < BELIEVE_UNOWNED);
        for inode in inodes.iter().copied().filter(|inode| *inode != 0) {
            match self.held.get_mut(&inode) {
                Some(held) if link_inode(held.owner.pid, held.fd) == Some(inode) => {
                    // exec() keeps the socket and changes the name.
                    if let Some(comm) = comm(held.owner.pid) {
                        held.owner.comm = comm;
                    }
                    owners.by_inode.insert(inode, held.owner.clone());
                }
                Some(_) => {
                    self.held.remove(&inode);
                    wanted.insert(inode);
                }
                None if self.unowned.contains_key(&inode) => {}
                None => {
                    wanted.insert(inode);
                }
            }
        }
        if !wanted.is_empty() {
            self.scan(
                &mut wanted,
                near,
                &SearchBudget::new(bounds, stop),
                &mut owners,
            );
        }
        if owners.complete && owners.denied == 0 {
            self.unowned
                .extend(wanted.into_iter().map(|inode| (inode, start)));
        }
        owners
    }

    /// Whether this process holds the socket: one look at its descriptors.
    #[must_use]
    pub fn of_process(pid: u32, inode: u32) -> Option<SocketOwner> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let fds = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.parse::<u32>().ok()
        });
        let mut fds = fds.take(Bounds::default().max_fds / 10);
        if !fds.any(|fd| link_inode(pid, fd) == Some(inode)) {
            return None;
        }
        let comm = comm(pid)?;
        Some(SocketOwner { pid, comm })
    }

    /// Removes a closed socket from the cache.
    pub fn forget(&mut self, inode: u32) {
        self.held.remove(&inode);
        self.unowned.remove(&inode);
    }

    fn scan(
        &mut self,
        wanted: &mut HashSet<u32>,
        near: &HashSet<u32>,
        budget: &SearchBudget<'_>,
        owners: &mut SocketOwners,
    ) {
        let bounded = budget.bounds != Bounds::NONE;
        let resumed = self.cut.take().filter(|cut| bounded && cut.covers(wanted));
        let mut sweep = resumed.unwrap_or_else(|| {
            let held: HashSet<u32> = self.held.values().map(|held| held.owner.pid).collect();
            match bounded {
                true => Sweep::likeliest_first(pids(), comm(1).as_deref(), &held, near, wanted),
                false => Sweep::ascending(pids(), comm(1).as_deref(), wanted),
            }
        });
        while let Some((pid, from)) = sweep.next() {
            let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
                Ok(entries) => entries,
                Err(error) => {
                    // Any other failure is a process that has ended.
                    sweep.denied +=
                        usize::from(error.kind() == std::io::ErrorKind::PermissionDenied);
                    continue;
                }
            };
            let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
            let climbs = OnceCell::new();
            // Descriptors come in ascending order.
            for fd in entries
                .flatten()
                .filter_map(number)
                .filter(|fd| *fd >= from)
            {
                if bounded && budget.is_spent(owners.read) {
                    sweep.resume_at(pid, fd);
                    owners.denied = sweep.denied;
                    owners.complete = false;
                    self.cut = Some(sweep);
                    return;
                }
                owners.read += 1;
                let Some(inode) = link_inode(pid, fd).filter(|inode| wanted.contains(inode)) else {
                    continue;
                };
                let climbs =
                    *climbs.get_or_init(|| !sweep.is_ascending() || parent_comes_later(pid));
                let (pid, fd) = match climbs {
                    true => eldest_holder(pid, fd, inode),
                    false => (pid, fd),
                };
                // No name: the process has ended. Another may hold the socket too.
                let Some(comm) = comm(pid) else { break };
                wanted.remove(&inode);
                let owner = SocketOwner { pid, comm };
                owners.by_inode.insert(inode, owner.clone());
                self.held.insert(inode, Held { owner, fd });
                if wanted.is_empty() {
                    owners.denied = sweep.denied;
                    return;
                }
            }
        }
        owners.denied = sweep.denied;
    }
}

/// Inode of the socket behind a descriptor; `None` when it is gone, hidden or no socket.
fn link_inode(pid: u32, fd: u32) -> Option<u32> {
    let mut path = [0u8; 40];
    // Text that does not fit is an error; the array's last byte stays NUL.
    let room = path.len() - 1;
    write!(&mut path[..room], "/proc/{pid}/fd/{fd}").ok()?;
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let mut target = [0u8; 32];
    // SAFETY: the path is NUL-terminated; no more than the target's length is written.
    let len = unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    parse_link(target.get(..usize::try_from(len).ok()?)?)
}

/// `socket:[12345]` → 12345.
fn parse_link(target: &[u8]) -> Option<u32> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `comm` of a process; `None` when it is gone.
#[must_use]
pub fn comm(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/comm")).ok()?;
    // A name may contain any byte, also newlines; the last newline belongs to the file.
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Some(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd};

    use super::*;

    fn inode_of(listener: &TcpListener) -> u32 {
        link_inode(std::process::id(), listener.as_raw_fd().try_into().unwrap()).unwrap()
    }

    #[test]
    fn links_that_are_no_socket() {
        assert_eq!(parse_link(b"socket:[12345]"), Some(12345));
        for link in [
            "",
            "socket:[",
            "socket:[]",
            "socket:[x]",
            "socket:[99999999999]",
            "pipe:[1]",
            "/x",
        ] {
            assert_eq!(parse_link(link.as_bytes()), None, "{link}");
        }
    }

    #[test]
    fn the_longest_path_fits() {
        // Neither exists; what is tested is that neither panics.
        assert_eq!(link_inode(u32::MAX, u32::MAX), None);
        assert_eq!(comm(u32::MAX), None);
    }

    const WIDE: Bounds = Bounds::NONE;

    #[test]
    fn our_own_socket_is_ours_and_unowned_once_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = inode_of(&listener);
        let mut cache = OwnerCache::new();
        let owners = cache.find(&[inode, 0], WIDE);
        assert!(owners.complete);
        let owner = &owners.by_inode[&inode];
        assert_eq!(owner.pid, std::process::id());
        assert_eq!(Some(&owner.comm), comm(owner.pid).as_ref());
        // From memory: a scan of nothing could not find it.
        let none = Bounds {
            max_fds: 0,
            max_cpu: Duration::ZERO,
        };
        assert_eq!(cache.find(&[inode], none).by_inode, owners.by_inode);
        drop(listener);
        // Nobody's, or for a moment that of a child which another test has forked; never ours.
        let owners = cache.find(&[inode], WIDE);
        let stale = owners
            .by_inode
            .get(&inode)
            .filter(|owner| owner.pid == std::process::id());
        assert_eq!(stale, None);
    }

    #[test]
    fn a_bound_makes_the_result_incomplete() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = inode_of(&listener);
        let owners = OwnerCache::new().find(
            &[inode],
            Bounds {
                max_fds: 1,
                max_cpu: Duration::from_secs(60),
            },
        );
        assert!(!owners.complete && owners.by_inode.is_empty());
    }

    #[test]
    fn a_search_that_was_cut_goes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = inode_of(&listener);
        let bounds = Bounds {
            max_fds: 3,
            max_cpu: Duration::from_secs(60),
        };
        let mut cache = OwnerCache::new();
        for _ in 0..1_000_000 {
            let owners = cache.find(&[inode], bounds);
            if let Some(owner) = owners.by_inode.get(&inode) {
                assert_eq!(owner.pid, std::process::id());
                return;
            }
            assert!(!owners.complete, "it was not found");
        }
        panic!("the search begins anew each time");
    }

    mod kernel {
        use super::*;
        use crate::diag::fixtures::eventually;

        /// Prints what a scan costs on this host; run it with `--nocapture`, in release.
        #[test]
        #[ignore = "needs root; a measurement"]
        fn measure_scan() {
            let start = Instant::now();
            let owners = OwnerCache::new().find(&[u32::MAX], WIDE);
            let took = start.elapsed();
            let fds: usize = pids()
                .iter()
                .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok())
                .map(Iterator::count)
                .sum();
            println!(
                "{fds} descriptors in {took:?}, complete: {}",
                owners.complete
            );
        }

        #[test]
        #[ignore = "needs root"]
        fn a_shared_socket_is_the_lowest_pids() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let inode = inode_of(&listener);
            // A child that inherits it, as a pre-forked worker does, and lives until its input ends.
            let mut worker = std::process::Command::new("cat")
                .stdin(std::process::Stdio::piped())
                .stdout(
                    listener
                        .try_clone()
                        .map(std::os::fd::OwnedFd::from)
                        .unwrap(),
                )
                .spawn()
                .unwrap();
            let shared = OwnerCache::new().find(&[inode], WIDE);
            drop(listener);
            eventually("the worker is the only owner", || {
                let owners = OwnerCache::new().find(&[inode], WIDE);
                let owner = SocketOwner {
                    pid: worker.id(),
                    comm: "cat".to_owned(),
                };
                owners.by_inode.get(&inode) == Some(&owner)
            });
            let child = worker.id();
            drop(worker.stdin.take());
            worker.wait().unwrap();
            // Pids may wrap round, so either of the two may be the lower.
            assert_eq!(shared.by_inode[&inode].pid, child.min(std::process::id()));
        }
    }
}
