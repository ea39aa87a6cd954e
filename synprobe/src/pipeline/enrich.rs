//! What belongs to this host is resolved here, before the engine sees an event: names, settings and counters
//! of its namespace, and what a drop reason means on this kernel.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use synprobe_ebpf::event::{DropRecord, Flow, SYN_NO_TUPLE, state};

use super::{holders::Holders, host_names::HostNames, workloads::WorkloadFeed};
use crate::{
    decode::Event,
    engine::{DropMeaning, Input},
    model::{Process, Tuple},
    probe::{
        drop_reasons::{Reasons, is_before_the_device, refusal},
        kallsyms::Kallsyms,
    },
    sys::{clock::CpuTimer, cpu_share::CpuShare, netns::NetNs},
    track::REMEMBERED_NAMES,
};

/// Names remembered as fed: half of what the engine remembers, so that it still has each of them.
const REMEMBERED: usize = REMEMBERED_NAMES / 2;

/// Reason and place; whether a socket, or a half-open, processed the packet; whether its own socket was sending it.
type MeaningKey = (u32, u64, (bool, bool));

/// What is around dropped packets outside the selection is looked up again after this many times the duration of the
/// last look: a fiftieth of a core.
const ELSEWHERE_PAUSE: u32 = 50;

/// Names and settings of namespaces that events name take one part in this many of a core, whoever makes namespaces by
/// the thousand. Those that wait are found by the poller, or with a later event.
const NAMING: u32 = 200;
/// CPU time for them, ahead of that share: a host may start hundreds of containers at once.
const NAMING_AHEAD: Duration = Duration::from_millis(50);

/// Namespaces that are named at the end of a run, at most.
const LAST_NAMES: usize = 1024;

/// See the module.
pub struct Enricher {
    reasons: Arc<Reasons>,
    /// Whether each reason tells what a half-open made of a packet (`tcp_check_req()`, Linux 6.15).
    half_open_reasons: bool,
    symbols: Kallsyms,
    names: HostNames,
    namespaces: HashSet<u32>,
    /// What their names and settings have cost.
    naming: CpuShare,
    /// By namespace and index.
    devices: HashSet<(u32, u32)>,
    /// Those that were fed, and are gone: the engine still has their names, and the inode may come again.
    gone: HashSet<u32>,
    /// Not found: looked for again after the next tick, and after the next search.
    unknown: HashSet<u32>,
    /// Searches that had ended when the last one was not found.
    searched: u64,
    cgroups: HashSet<u64>,
    workloads: WorkloadFeed,
    /// Of the last event. The next one mostly has the same.
    last_netns: u32,
    last_cgroup: u64,
    meanings: HashMap<MeaningKey, Option<Arc<DropMeaning>>>,
    holders: Holders,
    /// What is around dropped packets outside the selection is not looked up before this.
    elsewhere_due: Instant,
}

impl Enricher {
    /// With the kernel's drop reasons; its symbols are read when the first is asked for.
    pub fn new(reasons: Arc<Reasons>, names: HostNames) -> Self {
        Self {
            half_open_reasons: reasons.number("TCP_LISTEN_OVERFLOW").is_some(),
            reasons,
            symbols: Kallsyms::open(),
            names,
            namespaces: HashSet::new(),
            naming: CpuShare::new(NAMING, NAMING_AHEAD),
            gone: HashSet::new(),
            devices: HashSet::new(),
            unknown: HashSet::new(),
            searched: 0,
            cgroups: HashSet::new(),
            workloads: WorkloadFeed::default(),
            last_netns: 0,
            last_cgroup: 0,
            meanings: HashMap::new(),
            holders: Holders::default(),
            elsewhere_due: Instant::now(),
        }
    }

    /// Feeds an event, after everything that it needs and that was not fed yet. `needs_counters`:
    /// [`Engine::needs_counters`](crate::engine::Engine::needs_counters).
    pub fn event(&mut self, event: Event, needs_counters: bool, feed: &mut impl FnMut(Input)) {
        let netns = event.flow().netns;
        if netns != self.last_netns || self.searched != self.names.searched() {
            self.namespace_of(netns, process_of(&event), feed);
            self.last_netns = netns;
        }
        if let Event::State(r, ..) = &event
            && r.cgroup != 0
            && r.cgroup != self.last_cgroup
        {
            self.cgroup(r.cgroup, feed);
            self.last_cgroup = r.cgroup;
        }
        if let Event::State(r, ..) = &event
            && r.tgid != 0
            && self.workloads.is_news(r.tgid, r.cgroup, &r.comm)
        {
            let path = self.names.cgroup(r.cgroup);
            self.workloads.feed(r.tgid, path, feed);
        }
        if needs_counters {
            feed(Input::Counters(netns, self.names.counters(netns)));
        }
        if let Event::Drop(record) = &event {
            self.around_drop(record, feed);
        }
        if let Some((flow, pid)) = asks_for_holder(&event)
            && let Some(netns) = self.names.find(flow.netns)
            && let Some(holder) = self.holders.look_up(&netns, flow, pid)
        {
            feed(Input::Holder(Tuple::from(flow), holder));
        }
        feed(match event {
            Event::Drop(record) => {
                let meaning = self.meaning(&record);
                Input::Drop(record, meaning)
            }
            event => Input::Event(event),
        });
    }

    /// Feeds a dropped packet outside the selection. What is around it is looked up now and then only: namespaces that
    /// are not asked for must cost little, however many they are.
    pub fn drop_elsewhere(&mut self, record: DropRecord, feed: &mut impl FnMut(Input)) {
        if self.elsewhere_due <= Instant::now() {
            // CPU time: on a busy host a look must not seem expensive.
            let timer = CpuTimer::begin();
            self.namespace(record.flow.netns, feed);
            self.around_drop(&record, feed);
            let took = timer.took();
            self.elsewhere_due = Instant::now() + took * ELSEWHERE_PAUSE;
        }
        let meaning = self.meaning(&record);
        feed(Input::Drop(record, meaning));
    }

    /// Feeds what belongs to a dropped packet, before its record: the device, and where netfilter dropped it the
    /// state of connection tracking.
    fn around_drop(&mut self, r: &DropRecord, feed: &mut impl FnMut(Input)) {
        let device = (r.flow.netns, r.ifindex);
        if r.ifindex != 0 && !self.devices.contains(&device) {
            if self.devices.len() >= REMEMBERED {
                self.devices.clear();
            }
            self.devices.insert(device);
            let name = self.names.device(r.flow.netns, r.ifindex);
            feed(Input::Device(r.flow.netns, r.ifindex, name));
        }
        if self.reasons.name(r.reason) == Some("NETFILTER_DROP")
            && let Some(reading) = self.names.conntrack(r.flow.netns)
        {
            feed(Input::Conntrack(reading));
        }
    }

    /// Feeds a namespace's name and settings, unless that was done.
    pub fn namespace(&mut self, inode: u32, feed: &mut impl FnMut(Input)) {
        self.namespace_of(inode, None, feed);
    }

    /// The same. `pid`: a process that was just seen in it.
    fn namespace_of(&mut self, inode: u32, pid: Option<u32>, feed: &mut impl FnMut(Input)) {
        let searched = self.names.searched();
        if std::mem::replace(&mut self.searched, searched) != searched {
            self.unknown.clear();
        }
        if self.namespaces.contains(&inode) || self.unknown.contains(&inode) && pid.is_none() {
            return;
        }
        let (name, settings) = match self.naming.pause(Instant::now()).is_zero() {
            true => {
                let timer = CpuTimer::begin();
                let found = self.names.namespace(inode, pid);
                let took = timer.took();
                self.naming.spent(Instant::now(), took);
                found
            }
            false => Default::default(),
        };
        let was_fed = self.gone.remove(&inode);
        if name.is_none() && self.unknown.len() < REMEMBERED {
            self.unknown.insert(inode);
            if was_fed {
                feed(Input::NetnsName(inode, None));
            }
            return;
        }
        if self.namespaces.len() >= REMEMBERED {
            self.namespaces.clear();
        }
        self.unknown.remove(&inode);
        self.namespaces.insert(inode);
        feed(Input::NetnsName(inode, name));
        feed(Input::Settings(inode, settings));
    }

    /// Feeds the names of these, as far as they are found: the last ones, which have a share of no core any more.
    pub fn last_names(&mut self, inodes: &[u32], feed: &mut impl FnMut(Input)) {
        let inodes = &inodes[..inodes.len().min(LAST_NAMES)];
        for (inode, name) in self.names.named(inodes) {
            feed(Input::NetnsName(inode, Some(name)));
        }
    }

    /// A round of the poller has shown which namespaces there are. The number of one that is gone is given to the next
    /// one that is made: its name is looked for anew.
    pub fn still_there(&mut self, all: &HashSet<u32>) {
        let gone = self.namespaces.extract_if(|inode| !all.contains(inode));
        self.gone.extend(gone);
        self.devices.retain(|(inode, _)| all.contains(inode));
        if self.gone.len() > REMEMBERED {
            self.gone.clear();
        }
    }

    /// Feeds what a process belongs to, unless that was done.
    pub fn process(
        &mut self,
        process: &Process,
        cgroup: Option<&Arc<str>>,
        feed: &mut impl FnMut(Input),
    ) {
        if self.workloads.is_new(process, cgroup) {
            self.workloads.feed(process.pid, cgroup.cloned(), feed);
        }
    }

    fn cgroup(&mut self, id: u64, feed: &mut impl FnMut(Input)) {
        if self.cgroups.contains(&id) {
            return;
        }
        if self.cgroups.len() >= REMEMBERED {
            self.cgroups.clear();
        }
        self.cgroups.insert(id);
        feed(Input::CgroupPath(id, self.names.cgroup(id)));
    }

    /// The counters of a namespace, read now.
    pub fn counters(&mut self, netns: u32) -> Input {
        Input::Counters(netns, self.names.counters(netns))
    }

    /// A namespace itself.
    pub fn find(&mut self, inode: u32) -> Option<NetNs> {
        self.names.find(inode)
    }

    /// Closes what was not used for a while, and looks again for namespaces that were not found.
    pub fn tidy(&mut self, feed: &mut impl FnMut(Input)) {
        self.names.tidy();
        for inode in std::mem::take(&mut self.unknown) {
            self.namespace(inode, feed);
        }
        // One that is not found now is looked for with its next event.
        self.unknown.clear();
        self.last_netns = 0;
    }

    /// Whether a file of a namespace is open, which keeps the namespace alive.
    pub fn holds_any(&self) -> bool {
        self.names.holds_any()
    }

    /// What a function does that frees without a reason what this host does not deliver: words and remedy.
    fn refused_at(&self, location: u64) -> Option<(&'static str, &'static str)> {
        refusal(&self.symbols.name(location)?)
    }

    fn meaning(&mut self, r: &DropRecord) -> Option<Arc<DropMeaning>> {
        let by_socket = r.receiver == state::SYN_SENT || r.met_existing();
        let by_half_open = r.listener != 0 && self.half_open_reasons;
        let key = (
            r.reason,
            r.location,
            (by_socket || by_half_open, r.sender != 0),
        );
        if let Some(known) = self.meanings.get(&key) {
            return known.clone();
        }
        let place = || self.symbols.name(r.location).map(Arc::from);
        let named = |words: &'static str, remedy: &'static str| {
            let name = self.reasons.name(r.reason).unwrap_or("NOT_SPECIFIED");
            Some(Arc::new(DropMeaning {
                reason: Cow::Owned(name.to_owned()),
                words: Cow::Borrowed(words),
                remedy: Cow::Borrowed(remedy),
                place: place(),
            }))
        };
        let own = self.reasons.own_doing(r.reason).map(|meaning| {
            Arc::new(DropMeaning {
                reason: Cow::Borrowed(meaning.name),
                words: Cow::Borrowed(meaning.words),
                remedy: Cow::Borrowed(meaning.remedy),
                place: place(),
            })
        });
        // A driver that frees what it has sent gives no reason.
        let is_unspecified = matches!(self.reasons.name(r.reason), None | Some("NOT_SPECIFIED"));
        let meaning = match own {
            Some(own) => Some(own),
            // The words are the verdicts': this host's settings have no part in it.
            None if by_socket || by_half_open || self.reasons.is_no_socket(r.reason) => {
                named("", "")
            }
            // The output of a route that leads nowhere (`xfrm_lookup()` makes one, `dst_dev_put()` too).
            None if r.sender != 0
                && self.symbols.name(r.location).as_deref() == Some("dst_discard_out") =>
            {
                named(
                    "its route discards it: an IPsec policy whose state is missing, or a device that is gone",
                    "ip xfrm policy; ip xfrm state; cat /proc/net/xfrm_stat; ip route get <peer> from <local>",
                )
            }
            None if r.receiver == 0
                && let Some((words, remedy)) = self.refused_at(r.location) =>
            {
                named(words, remedy)
            }
            None if r.sender != 0 => match self.symbols.name(r.location).as_deref() {
                // It may have been sent before. The verdicts have the words.
                place if is_unspecified && !place.is_some_and(is_before_the_device) => {
                    named("", "")
                }
                _ => named(
                    "it was freed while its own socket was still sending it: the kernel gives no reason",
                    "ip route get <peer> from <local>; ip xfrm policy; tc -s qdisc show; ip -s -s link",
                ),
            },
            None => None,
        };
        if self.meanings.len() >= REMEMBERED {
            self.meanings.clear();
        }
        self.meanings.insert(key, meaning.clone());
        meaning
    }
}

/// The process in whose context a record was made, where it is one of the record's namespace.
fn process_of(event: &Event) -> Option<u32> {
    match event {
        Event::State(r, ..) if r.tgid != 0 => Some(r.tgid),
        _ => None,
    }
}

/// The connection whose socket is to be looked up, and the process that may hold it: a SYN met a connection, or
/// connect() found its addresses and ports in use.
fn asks_for_holder(event: &Event) -> Option<(&Flow, u32)> {
    match event {
        Event::Drop(r) if r.met_existing() && !r.is_repeated_syn_ack() => Some((&r.flow, 0)),
        Event::State(r, ..) if r.syn == SYN_NO_TUPLE && r.flow.local_port != 0 => {
            Some((&r.flow, r.tgid))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::{NetNs, NetnsIndex};

    fn fed(enricher: &mut Enricher, inode: u32) -> Vec<Option<Arc<str>>> {
        let mut names = Vec::new();
        enricher.namespace(inode, &mut |input| {
            if let Input::NetnsName(of, name) = input {
                assert_eq!(of, inode);
                names.push(name);
            }
        });
        names
    }

    #[test]
    fn a_syn_that_a_driver_freed_is_not_this_hosts_drop() {
        let reasons = Reasons::new([
            (2, "NOT_SPECIFIED".to_owned()),
            (7, "QUEUE_PURGE".to_owned()),
        ]);
        let symbols = "ffffffff81000000 t veth_xmit\nffffffff81001000 t vmxnet3_tq_tx_complete\n\
                       ffffffff81002000 T dst_discard_out\nffffffff81003000 T other\n";
        let mut enricher = Enricher {
            symbols: Kallsyms::from_text(symbols).unwrap(),
            ..Enricher::new(
                Arc::new(reasons),
                HostNames::new(&[], NetnsIndex::default()),
            )
        };
        let mut is_own_doing = |reason, location| {
            let record = DropRecord {
                reason,
                location,
                sender: state::SYN_SENT,
                ..DropRecord::default()
            };
            let meaning = enricher.meaning(&record).unwrap();
            (meaning.is_own_doing(), meaning.place.clone())
        };
        let place = |name: &str| Some(Arc::from(name));
        let base = 0xffff_ffff_8100_0010;
        assert_eq!(is_own_doing(2, base), (true, place("veth_xmit")));
        let driver = place("vmxnet3_tq_tx_complete");
        assert_eq!(is_own_doing(2, base + 0x1000), (false, driver.clone()));
        assert_eq!(is_own_doing(7, base + 0x1000), (true, driver));
        assert!(is_own_doing(2, base + 0x2000).0);
        // The kernel hides its addresses.
        assert_eq!(is_own_doing(2, 1), (false, None));
    }

    #[test]
    fn the_number_of_a_namespace_that_is_gone_is_not_taken_for_it() {
        let mut enricher =
            Enricher::new(Arc::default(), HostNames::new(&[], NetnsIndex::default()));
        let here = NetNs::current().unwrap().inode();
        // The event does not wait for the search.
        let (began, mut first) = (Instant::now(), fed(&mut enricher, here));
        assert!(first.is_empty());
        while first.is_empty() {
            assert!(began.elapsed().as_secs() < 10, "never found");
            first = fed(&mut enricher, here);
        }
        assert!(matches!(first[..], [Some(_)]));
        enricher.still_there(&HashSet::from([here]));
        assert!(fed(&mut enricher, here).is_empty(), "fed once");
        enricher.still_there(&HashSet::new());
        assert!(
            matches!(fed(&mut enricher, here)[..], [Some(_)]),
            "it is new"
        );
        // One whose name is not found has none, and not the earlier one's.
        enricher.namespaces.insert(1);
        enricher.still_there(&HashSet::from([here]));
        assert_eq!(fed(&mut enricher, 1), [None]);
        assert!(fed(&mut enricher, 1).is_empty());
    }
}
