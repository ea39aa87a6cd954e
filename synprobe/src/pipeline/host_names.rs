//! Names, settings and counters of the running host.
//!
//! A descriptor inside a namespace keeps the namespace alive. None is kept for long ([`HostNames::tidy`]), so
//! that a container's namespace can end with it.

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
        clock::monotonic_ns,
        netns::{NetNs, NetnsIndex},
    },
};

/// How long a counter file stays open after its last use.
const OPEN: Duration = Duration::from_secs(10);

/// The connection tracking of a namespace is read again after this many times the duration of the last reading:
/// with many CPUs it takes longer.
const CONNTRACK_PAUSE: u32 = 50;

struct OpenConntrack {
    /// `None`: it cannot be read there.
    reader: Option<ConntrackReader>,
    used: Instant,
    /// Not before this.
    due: Instant,
}

/// See the module.
pub struct HostNames {
    /// Namespaces that the caller holds anyway.
    given: Vec<NetNs>,
    index: NetnsIndex,
    cgroups: Option<Cgroups>,
    counters: HashMap<u32, (Option<CounterReader>, Instant)>,
    conntrack: HashMap<u32, OpenConntrack>,
}

impl HostNames {
    /// Opens the cgroup v2 mount, where there is one. `given` need not be looked for.
    pub fn new(given: &[NetNs]) -> Self {
        Self {
            given: given.to_vec(),
            index: NetnsIndex::default(),
            cgroups: Cgroups::open().ok(),
            counters: HashMap::new(),
            conntrack: HashMap::new(),
        }
    }

    /// Closes what was not used for a while.
    pub fn tidy(&mut self) {
        self.counters.retain(|_, (_, used)| used.elapsed() < OPEN);
        self.conntrack.retain(|_, open| open.used.elapsed() < OPEN);
    }

    /// The namespace itself.
    pub fn find(&mut self, inode: u32) -> Option<NetNs> {
        let given = self.given.iter().find(|netns| netns.inode() == inode);
        given.cloned().or_else(|| self.index.find(inode))
    }

    /// The name of a namespace, and its settings.
    pub fn namespace(&mut self, inode: u32) -> (Option<Arc<str>>, HandshakeSettings) {
        let Some(netns) = self.find(inode) else {
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
        let reading = open.reader.as_ref()?.read(true).ok();
        open.due = open.used + open.used.elapsed() * CONNTRACK_PAUSE;
        reading
    }

    /// The counters of a namespace as they are now.
    pub fn counters(&mut self, inode: u32) -> HandshakeCounters {
        if !self.counters.contains_key(&inode) {
            let found = self.find(inode);
            let reader = found.and_then(|netns| CounterReader::open(&netns).ok());
            self.counters.insert(inode, (reader, Instant::now()));
        }
        let read = self.counters.get_mut(&inode).and_then(|(reader, used)| {
            *used = Instant::now();
            reader.as_mut()?.read().ok()
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
