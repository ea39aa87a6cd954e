//! Names, settings and counters of the running host.
//!
//! A descriptor inside a namespace keeps the namespace alive. None is kept once its last user is gone
//! ([`HostNames::tidy`]), so that a container's namespace can end with it.

use std::{
    collections::HashMap,
    ffi::CStr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    diag::{
        cgroup::Cgroups, conntrack::ConntrackReader, counters::CounterReader, handshake_settings,
    },
    model::{ConntrackReading, HandshakeCounters, HandshakeSettings},
    sys::{
        clock::{CpuTimer, monotonic_ns},
        netns::{NetNs, NetnsIndex, Whereabouts},
    },
};

/// How long a counter file stays open after its last use.
const OPEN: Duration = Duration::from_secs(10);

/// The connection tracking of a namespace is read again after this many times the CPU time of the last reading:
/// with many CPUs it takes longer.
const CONNTRACK_PAUSE: u32 = 50;

struct OpenCounters {
    /// `None`: they cannot be read there.
    reader: Option<CounterReader>,
    used: Instant,
    of: Option<Whereabouts>,
}

struct OpenConntrack {
    /// `None`: it cannot be read there.
    reader: Option<ConntrackReader>,
    used: Instant,
    of: Option<Whereabouts>,
    /// Not before this.
    due: Instant,
}

/// Whether a file was used lately, in a namespace that somebody else still has.
fn is_in_use(used: Instant, of: Option<&Whereabouts>) -> bool {
    used.elapsed() < OPEN && of.is_none_or(Whereabouts::still_there)
}

/// See the module.
pub struct HostNames {
    /// Namespaces that the caller holds anyway.
    given: Vec<NetNs>,
    index: NetnsIndex,
    cgroups: Option<Cgroups>,
    counters: HashMap<u32, OpenCounters>,
    conntrack: HashMap<u32, OpenConntrack>,
}

impl HostNames {
    /// Opens the cgroup v2 mount, where there is one. `given` need not be looked for.
    pub fn new(given: &[NetNs], index: NetnsIndex) -> Self {
        Self {
            given: given.to_vec(),
            index,
            cgroups: Cgroups::open().ok(),
            counters: HashMap::new(),
            conntrack: HashMap::new(),
        }
    }

    /// Closes what was not used for a while.
    pub fn tidy(&mut self) {
        self.counters
            .retain(|_, open| is_in_use(open.used, open.of.as_ref()));
        self.conntrack
            .retain(|_, open| is_in_use(open.used, open.of.as_ref()));
    }

    /// Whether a file of a namespace is open.
    pub fn holds_any(&self) -> bool {
        !self.counters.is_empty() || !self.conntrack.is_empty()
    }

    /// How many searches for namespaces have ended: what was not found may be found now.
    pub fn searched(&self) -> u64 {
        self.index.walked()
    }

    /// The namespace itself.
    pub fn find(&mut self, inode: u32) -> Option<NetNs> {
        let given = self.given.iter().find(|netns| netns.inode() == inode);
        given.cloned().or_else(|| self.index.find(inode))
    }

    /// The names of these, in one walk at most: for the end of a run.
    pub fn named(&mut self, inodes: &[u32]) -> Vec<(u32, Arc<str>)> {
        if inodes.iter().any(|inode| self.find(*inode).is_none()) {
            self.index.learn();
        }
        let named = |inode: &u32| Some((*inode, Arc::from(self.find(*inode)?.name())));
        inodes.iter().filter_map(named).collect()
    }

    /// The name of a namespace, and its settings. `pid`: a process that was just seen in it.
    pub fn namespace(
        &mut self,
        inode: u32,
        pid: Option<u32>,
    ) -> (Option<Arc<str>>, HandshakeSettings) {
        let given = self.given.iter().find(|netns| netns.inode() == inode);
        let netns = match (given, pid) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(pid)) => self.index.find_by(inode, pid),
            (None, None) => self.index.find(inode),
        };
        let Some(netns) = netns else {
            return (None, HandshakeSettings::default());
        };
        (Some(netns.name().into()), handshake_settings(&netns).0)
    }

    /// The path of a cgroup v2 id.
    pub fn cgroup(&mut self, id: u64) -> Option<Arc<str>> {
        self.cgroups.as_mut()?.path(id).map(Arc::from)
    }

    /// The name of a device.
    pub fn device(&mut self, inode: u32, index: u32) -> Option<Arc<str>> {
        let netns = self.find(inode)?;
        netns.run(|| device_name(index)).ok()?
    }

    /// The state of a namespace's connection tracking now; `None`: it cannot be read, or was read just before.
    pub fn conntrack(&mut self, inode: u32) -> Option<ConntrackReading> {
        if !self.conntrack.contains_key(&inode) {
            let netns = self.find(inode);
            let open = OpenConntrack {
                of: netns.as_ref().map(NetNs::whereabouts),
                reader: netns.and_then(|netns| ConntrackReader::open(&netns).ok()),
                used: Instant::now(),
                due: Instant::now(),
            };
            self.conntrack.insert(inode, open);
        }
        let open = self.conntrack.get_mut(&inode)?;
        open.used = Instant::now();
        if open.used < open.due {
            return None;
        }
        let timer = CpuTimer::begin();
        let reading = open.reader.as_ref()?.read(true).ok();
        open.due = open.used + timer.took() * CONNTRACK_PAUSE;
        reading
    }

    /// The counters of a namespace as they are now.
    pub fn counters(&mut self, inode: u32) -> HandshakeCounters {
        if !self.counters.contains_key(&inode) {
            let netns = self.find(inode);
            let open = OpenCounters {
                of: netns.as_ref().map(NetNs::whereabouts),
                reader: netns.and_then(|netns| CounterReader::open(&netns).ok()),
                used: Instant::now(),
            };
            self.counters.insert(inode, open);
        }
        let read = self.counters.get_mut(&inode).and_then(|open| {
            open.used = Instant::now();
            open.reader.as_mut()?.read().ok()
        });
        let counter = |name| read.as_ref().and_then(|read| read.get(name));
        HandshakeCounters {
            at_ns: monotonic_ns(),
            embryonic_rsts: counter("EmbryonicRsts"),
            syncookies_recv: counter("SyncookiesRecv"),
        }
    }
}

/// The name of a device in this thread's namespace (if_indextoname(3)).
fn device_name(index: u32) -> Option<Arc<str>> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the IF_NAMESIZE bytes that the function may write.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    let bytes = name.map(|c| c as u8);
    let name = CStr::from_bytes_until_nul(&bytes).ok()?;
    Some(name.to_string_lossy().into())
}
