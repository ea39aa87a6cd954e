//! What the tracker asks of the host.
//!
//! A descriptor inside a namespace keeps the namespace alive: none is kept for long ([`HostNames::tidy`]),
//! or a container would outlive its end by ours.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    diag::{cgroup::Cgroups, counters::CounterReader},
    sys::clock::monotonic_ns,
    sys::{
        netns::{self, NetNs},
        sysctl::sysctl_numbers,
    },
    track::Names,
};

/// Answers kept; cleared whole when there are more, which bounds memory and lets a new cgroup of an
/// old id be found.
const KEPT: usize = 4096;
/// How long a counter file stays open after its last use.
const OPEN: Duration = Duration::from_secs(10);

/// Settings by namespace and name, and when each was read.
type Settings = HashMap<(u32, &'static str), (Option<u64>, Instant)>;

/// The running host.
pub struct HostNames {
    /// Namespaces that the caller holds anyway.
    given: Vec<NetNs>,
    cgroups: RefCell<Option<Cgroups>>,
    paths: RefCell<HashMap<u64, Option<Arc<str>>>>,
    namespaces: RefCell<HashMap<u32, Option<Arc<str>>>>,
    counters: RefCell<HashMap<u32, (Option<CounterReader>, Instant)>>,
    settings: RefCell<Settings>,
}

impl HostNames {
    /// Opens the cgroup v2 mount, where there is one. `given` need not be looked for.
    pub fn new(given: &[NetNs]) -> Rc<Self> {
        Rc::new(Self {
            given: given.to_vec(),
            cgroups: RefCell::new(Cgroups::open().ok()),
            paths: RefCell::default(),
            namespaces: RefCell::default(),
            counters: RefCell::default(),
            settings: RefCell::default(),
        })
    }

    /// Closes what was not used for a while.
    pub fn tidy(&self) {
        self.counters
            .borrow_mut()
            .retain(|_, (_, used)| used.elapsed() < OPEN);
        self.settings
            .borrow_mut()
            .retain(|_, (_, read)| read.elapsed() < OPEN);
    }

    fn find(&self, inode: u32) -> Option<NetNs> {
        let given = self.given.iter().find(|netns| netns.inode() == inode);
        given.cloned().or_else(|| netns::find(inode))
    }
}

/// Bounds a cache and answers from it.
fn cached<K: std::hash::Hash + Eq, V: Clone>(
    cache: &RefCell<HashMap<K, V>>,
    key: K,
    answer: impl FnOnce() -> V,
) -> V {
    let mut cache = cache.borrow_mut();
    if cache.len() >= KEPT && !cache.contains_key(&key) {
        cache.clear();
    }
    cache.entry(key).or_insert_with(answer).clone()
}

impl Names for Rc<HostNames> {
    fn cgroup(&self, id: u64) -> Option<Arc<str>> {
        cached(&self.paths, id, || {
            self.cgroups.borrow_mut().as_mut()?.path(id).map(Arc::from)
        })
    }

    fn netns(&self, inode: u32) -> Option<Arc<str>> {
        cached(&self.namespaces, inode, || {
            self.find(inode).map(|netns| netns.name().into())
        })
    }

    fn counter(&self, inode: u32, name: &str) -> Option<u64> {
        let mut counters = self.counters.borrow_mut();
        let (reader, used) = counters.entry(inode).or_insert_with(|| {
            let reader = self
                .find(inode)
                .and_then(|netns| CounterReader::open(&netns).ok());
            (reader, Instant::now())
        });
        *used = Instant::now();
        reader.as_mut()?.read().ok()?.get(name)
    }

    fn setting(&self, inode: u32, name: &'static str) -> Option<u64> {
        let answer = || {
            let netns = self.find(inode)?;
            let [value] = sysctl_numbers(&netns, [name]).ok()?;
            value
        };
        // Read anew once it is forgotten: settings change, if rarely.
        cached(&self.settings, (inode, name), || (answer(), Instant::now())).0
    }

    fn now_ns(&self) -> u64 {
        monotonic_ns()
    }
}
