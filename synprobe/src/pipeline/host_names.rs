//! Names, settings and counters of the running host.
//!
//! A descriptor inside a namespace keeps the namespace alive. None is kept for long ([`HostNames::tidy`]), so
//! that a container's namespace can end with it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    diag::{cgroup::Cgroups, counters::CounterReader, handshake_settings},
    model::{HandshakeCounters, HandshakeSettings},
    sys::{
        clock::monotonic_ns,
        netns::{self, NetNs},
    },
};

/// How long a counter file stays open after its last use.
const OPEN: Duration = Duration::from_secs(10);

/// See the module.
pub struct HostNames {
    /// Namespaces that the caller holds anyway.
    given: Vec<NetNs>,
    cgroups: Option<Cgroups>,
    counters: HashMap<u32, (Option<CounterReader>, Instant)>,
}

impl HostNames {
    /// Opens the cgroup v2 mount, where there is one. `given` need not be looked for.
    pub fn new(given: &[NetNs]) -> Self {
        Self {
            given: given.to_vec(),
            cgroups: Cgroups::open().ok(),
            counters: HashMap::new(),
        }
    }

    /// Closes what was not used for a while.
    pub fn tidy(&mut self) {
        self.counters.retain(|_, (_, used)| used.elapsed() < OPEN);
    }

    fn find(&self, inode: u32) -> Option<NetNs> {
        let given = self.given.iter().find(|netns| netns.inode() == inode);
        given.cloned().or_else(|| netns::find(inode))
    }

    /// The name of a namespace, and its settings.
    pub fn namespace(&self, inode: u32) -> (Option<Arc<str>>, HandshakeSettings) {
        let Some(netns) = self.find(inode) else {
            return (None, HandshakeSettings::default());
        };
        (Some(netns.name().into()), handshake_settings(&netns).0)
    }

    /// The path of a cgroup v2 id.
    pub fn cgroup(&mut self, id: u64) -> Option<Arc<str>> {
        self.cgroups.as_mut()?.path(id).map(Arc::from)
    }

    /// The counters of a namespace as they are now.
    pub fn counters(&mut self, inode: u32) -> HandshakeCounters {
        if !self.counters.contains_key(&inode) {
            let reader = self
                .find(inode)
                .and_then(|netns| CounterReader::open(&netns).ok());
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
