//! Names, settings and counters of the host. They are inputs: the caller feeds them before the event that
//! needs them ([`Tracker::needs_counters`]).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use synprobe_ebpf::event::{ENDED_BY_UNKNOWN, Flow};

use super::{
    Tracker, Treatment,
    facts::{RST, is_refused_ack},
    schedule::jiffies_to_us,
};
use crate::{
    decode::{Event, Moment},
    model::{
        Connection, HandshakeCounters, HandshakeSettings, Listener, Role, TcpState, Tuple, Workload,
    },
    util::bounded::Bounded,
};

/// Namespaces and cgroups remembered. The caller feeds each again after half this number of others.
pub const REMEMBERED_NAMES: usize = 8192;

/// See the module.
pub(super) struct HostFacts {
    netns_names: Bounded<u32, Option<Arc<str>>>,
    cgroup_paths: Bounded<u64, Option<Arc<str>>>,
    workloads_of_cgroups: HashMap<Arc<str>, Workload>,
    workloads_of_pids: Bounded<u32, Workload>,
    settings: Bounded<u32, HandshakeSettings>,
    counters: Bounded<u32, HandshakeCounters>,
}

impl Default for HostFacts {
    fn default() -> Self {
        Self {
            netns_names: Bounded::new(REMEMBERED_NAMES),
            cgroup_paths: Bounded::new(REMEMBERED_NAMES),
            workloads_of_cgroups: HashMap::new(),
            workloads_of_pids: Bounded::new(REMEMBERED_NAMES),
            settings: Bounded::new(REMEMBERED_NAMES),
            counters: Bounded::new(REMEMBERED_NAMES),
        }
    }
}

impl HostFacts {
    pub fn netns_name(&self, inode: u32) -> Option<Arc<str>> {
        self.netns_names.get(&inode).cloned().flatten()
    }

    pub fn cgroup_path(&self, id: u64) -> Option<Arc<str>> {
        self.cgroup_paths.get(&id).cloned().flatten()
    }

    pub fn settings(&self, netns: u32) -> HandshakeSettings {
        self.settings.get(&netns).copied().unwrap_or_default()
    }

    pub fn counters(&self, netns: u32) -> Option<&HandshakeCounters> {
        self.counters.get(&netns)
    }
}

impl Tracker {
    /// The name of a network namespace; `None`: it has no name.
    pub fn set_netns_name(&mut self, inode: u32, name: Option<Arc<str>>) {
        self.host.netns_names.insert(inode, name);
    }

    /// The name of a network namespace, where it is known.
    pub fn netns_name(&self, inode: u32) -> Option<Arc<str>> {
        self.host.netns_name(inode)
    }

    /// A socket of this host holds these addresses and ports, or none does.
    pub fn set_tuple_held(&mut self, tuple: Tuple, is_held: bool) {
        match is_held {
            true => drop(self.tuples_in_use.insert(tuple, ())),
            false => drop(self.tuples_in_use.remove(&tuple)),
        }
    }

    /// Jiffies of the host in microseconds.
    pub fn jiffies_to_us(&self, jiffies: u32) -> u64 {
        jiffies_to_us(jiffies, self.config.hz)
    }

    /// Whether a half-open of these ends is known.
    pub fn has_half_open(&self, tuple: &Tuple) -> bool {
        self.half_opens.get(tuple).is_some()
    }

    /// The path of a cgroup v2 id.
    pub fn set_cgroup_path(&mut self, id: u64, path: Option<Arc<str>>) {
        self.host.cgroup_paths.insert(id, path);
    }

    /// What all processes of a cgroup belong to, or one process.
    pub fn set_workload(&mut self, cgroup: Option<Arc<str>>, pid: Option<u32>, workload: Workload) {
        if let Some(cgroup) = cgroup {
            if self.host.workloads_of_cgroups.len() >= REMEMBERED_NAMES {
                self.host.workloads_of_cgroups.clear();
            }
            self.host.workloads_of_cgroups.insert(cgroup, workload);
        } else if let Some(pid) = pid {
            self.host.workloads_of_pids.insert(pid, workload);
        }
    }

    /// What a process belongs to, as far as it was fed.
    pub fn workload(&self, pid: Option<u32>, cgroup: Option<&str>) -> Workload {
        let by_cgroup = cgroup.and_then(|cgroup| self.host.workloads_of_cgroups.get(cgroup));
        let by_pid = || self.host.workloads_of_pids.get(&pid?);
        by_cgroup.or_else(by_pid).cloned().unwrap_or_default()
    }

    /// Completes a connection whose process and cgroup are known.
    pub(super) fn name_workload(&self, connection: &mut Connection) {
        connection.workload = self.workload(connection.pid, connection.cgroup.as_deref());
    }

    /// The listeners of some namespaces, as last read: before and after that, CLOCK_MONOTONIC nanoseconds.
    pub fn listeners_sampled(
        &mut self,
        when_ns: (u64, u64),
        namespaces: &HashSet<u32>,
        listeners: &[Listener],
    ) {
        self.owners.sampled(when_ns, namespaces, listeners);
    }

    /// The settings of a namespace, as last read.
    pub fn set_settings(&mut self, netns: u32, settings: HandshakeSettings) {
        self.host.settings.insert(netns, settings);
    }

    /// The counters of a namespace, as last read.
    pub fn set_counters(&mut self, netns: u32, counters: HandshakeCounters) {
        self.host.counters.insert(netns, counters);
    }

    /// Counters that were read with a dump of the namespace's sockets.
    pub fn counters_of_dump(&mut self, netns: u32, at_ns: u64, embryonic_rsts: Option<u64>) {
        let known = self.host.counters(netns).copied().unwrap_or_default();
        if known.at_ns < at_ns {
            let counters = HandshakeCounters {
                at_ns,
                embryonic_rsts,
                ..known
            };
            self.set_counters(netns, counters);
        }
    }

    /// Whether the meaning of this event depends on the current counters of its namespace. They must then be
    /// read and set ([`Self::set_counters`]) before it is observed.
    pub fn needs_counters(&self, event: &Event) -> bool {
        if !self.config.selection.wants(Role::Server) {
            return false;
        }
        match event {
            // A RST that reached a half-open ended it only if EmbryonicRsts rose.
            Event::Drop(r) => {
                r.listener != 0
                    && self.config.selection.selects_drop(r)
                    && (r.flags & RST != 0 || is_refused_ack(r, Treatment::Untold))
            }
            Event::Request(r, Moment::Begun) => self.is_known(&r.flow),
            Event::Request(r, Moment::Ended) => {
                r.ended_by == ENDED_BY_UNKNOWN || self.has_another(&r.flow, r.snt_synack_us * 1000)
            }
            // A half-open of the same tuple that began at another time has ended without an event.
            Event::SynAck(r, _) => self.has_another(&r.flow, r.snt_synack_us.saturating_mul(1000)),
            Event::State(r, TcpState::SynRecv, _)
                if r.total_retrans == 0 && r.srtt_us >> 3 != 0 =>
            {
                let sample_ns = u64::from(r.srtt_us >> 3) * 1000;
                let began_ns = r.header.ts_ns.saturating_sub(sample_ns);
                // With a sample of whole milliseconds it may have come through a SYN cookie.
                self.has_another(&r.flow, began_ns)
                    || r.srtt_us.is_multiple_of(8000) && !self.is_known(&r.flow)
            }
            _ => false,
        }
    }

    fn is_known(&self, flow: &Flow) -> bool {
        self.half_opens.get(&Tuple::from(flow)).is_some()
    }

    /// Whether the table has a half-open of this tuple that began at another time.
    fn has_another(&self, flow: &Flow, began_ns: u64) -> bool {
        let known = self.half_opens.get(&Tuple::from(flow));
        known.is_some_and(|open| !open.began_at(began_ns))
    }
}
