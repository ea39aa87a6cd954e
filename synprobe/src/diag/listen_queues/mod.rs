//! The two queues of each listener: lengths, limits, and what limits them.
//!
//! The kernel reports the accept queue and its limit. It does not report the length of the SYN queue
//! (`icsk_accept_queue.qlen`): the half-opens in its dump are counted instead.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::Arc,
};

use super::{
    cgroup, counters::MibCounters, inet_diag_msg::Row, listen_sockets::ListenSockets,
    socket_owner::SocketOwner,
};
use crate::{
    model::{LimitedBy, Listener, Process, QueueSettings, Workload},
    sys::{kernel, netns::NetNs, sysctl::sysctl_numbers},
    util::addresses::printable,
};

/// Reads the settings inside `netns`.
///
/// # Errors
/// The namespace cannot be entered.
pub fn read_settings(netns: &NetNs) -> io::Result<QueueSettings> {
    let names = [
        "net/core/somaxconn",
        "net/ipv4/tcp_max_syn_backlog",
        "net/ipv4/tcp_syncookies",
    ];
    let [somaxconn, backlog, cookies] = sysctl_numbers(netns, names)?;
    let small = |value: Option<u64>| value.and_then(|v| u32::try_from(v).ok());
    Ok(QueueSettings {
        full_at_backlog: kernel::upstream()
            .is_ok_and(|version| version.syn_queue_is_full_at_its_limit()),
        somaxconn: small(somaxconn),
        tcp_max_syn_backlog: small(backlog),
        tcp_syncookies: small(cookies),
    })
}

/// The settings, corrected by the length of a listener's SYN queue: a distribution may have backported the
/// fix without a visible version (Ubuntu 6.8.0-151 and 6.11.0-29).
#[must_use]
fn corrected_by(settings: QueueSettings, syn_queue: Option<u32>, backlog: u32) -> QueueSettings {
    let holds_more = syn_queue.is_some_and(|length| length > backlog);
    QueueSettings {
        full_at_backlog: settings.full_at_backlog && !holds_more,
        ..settings
    }
}

/// The SYN queue's limit, and what limits the two queues of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// As with the accept queue, the queue is full only above it: one more fits. On a kernel that compares
    /// with >= (before 6.13) this is one less than the backlog, so that the same holds.
    pub syn_queue_max: Option<u32>,
    /// The setting to raise first.
    pub limited_by: Option<LimitedBy>,
}

impl Limits {
    /// For a listener whose `sk_max_ack_backlog` is `backlog`.
    ///
    /// `sk_max_ack_backlog` limits both queues (`sk_acceptq_is_full()`,
    /// `inet_csk_reqsk_queue_is_full()`). With SYN cookies off `tcp_conn_request()` also drops a SYN
    /// of an unproven peer once `max - qlen < max >> 2`, `max` being tcp_max_syn_backlog: it is taken
    /// as long as `qlen <= max - (max >> 2)`.
    ///
    /// A backlog that equals somaxconn may be the one passed to listen(), which the kernel does not keep.
    /// The result is [`LimitedBy::Somaxconn`]: raising the backlog of listen() alone would not help.
    #[must_use]
    pub fn of(backlog: u32, settings: &QueueSettings) -> Self {
        let without_cookies = settings.tcp_max_syn_backlog.map(|max| max - (max >> 2));
        let of_backlog = backlog.saturating_sub(u32::from(settings.full_at_backlog));
        let syn_queue_max = match settings.tcp_syncookies {
            Some(0) => without_cookies.map(|max| max.min(of_backlog)),
            Some(_) => Some(of_backlog),
            None => None,
        };
        let limited_by = if syn_queue_max.is_some_and(|max| max < of_backlog) {
            Some(LimitedBy::TcpMaxSynBacklog)
        } else {
            settings.somaxconn.map(|somaxconn| {
                if backlog == somaxconn {
                    LimitedBy::Somaxconn
                } else {
                    LimitedBy::ListenBacklog
                }
            })
        };
        Self {
            syn_queue_max,
            limited_by,
        }
    }
}

/// Lengths of the SYN queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SynQueues {
    /// By the inode of the listener, where the length is known, also if 0.
    pub own: HashMap<u32, u32>,
    /// The queues of SO_REUSEPORT groups, which cannot be told apart.
    pub shared: Vec<SharedQueue>,
}

/// The SYN queues of a SO_REUSEPORT group that has half-opens. The kernel distributes SYNs among the
/// members by a hash, and a half-open does not show its member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedQueue {
    /// Inodes of the members, ascending.
    pub members: Vec<u32>,
    /// Half-opens in all of them.
    pub half_opens: u32,
}

/// Counts them. The queue length of a group's member is known only while the group has no half-open: it is
/// 0.
#[must_use]
pub fn syn_queues(listeners: &ListenSockets, half_opens: &[Row]) -> SynQueues {
    // A flood goes to few addresses, and the lookup allocates: one lookup for each address.
    let mut found: HashMap<_, (Vec<u32>, u32)> = HashMap::new();
    for row in half_opens.iter().filter(|row| is_queued(row)) {
        let to = (row.local_addr, row.local_port, row.ifindex);
        let (_, count) = found.entry(to).or_insert_with(|| {
            let group = listeners.group(&row.local_addr, row.local_port, row.ifindex);
            (group.iter().map(|l| l.inode).collect(), 0)
        });
        *count += 1;
    }
    // Several addresses of this host may lead to one group.
    let mut groups: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
    for (members, count) in found.into_values() {
        *groups.entry(members).or_default() += count;
    }
    let mut own: HashMap<u32, u32> = listeners.iter().map(|l| (l.inode, 0)).collect();
    let mut shared = Vec::new();
    for (members, half_opens) in groups {
        match members[..] {
            [one] => *own.entry(one).or_default() += half_opens,
            // The listener was closed meanwhile.
            [] => (),
            _ => shared.push(SharedQueue {
                members,
                half_opens,
            }),
        }
    }
    for member in shared.iter().flat_map(|group| &group.members) {
        own.remove(member);
    }
    SynQueues { own, shared }
}

/// Whether a row of a SYN_RECV dump waits in a SYN queue. Full sockets do not: simultaneous opens have
/// no listener, and Fast Open's children wait in the accept queue at once. The kernel reports a
/// cgroup for full sockets only.
fn is_queued(row: &Row) -> bool {
    row.inode == 0 && row.cgroup.is_none()
}

/// The process that listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerProcess {
    /// The process.
    pub process: Option<Process>,
    /// Its cgroup v2 path.
    pub cgroup: Option<Arc<str>>,
}

impl ListenerProcess {
    /// Adds the cgroup.
    #[must_use]
    pub fn of(owner: SocketOwner) -> Self {
        Self {
            cgroup: cgroup::of_pid(owner.pid).ok().map(Arc::from),
            process: Some(Process {
                pid: owner.pid,
                comm: owner.comm.into(),
            }),
        }
    }
}

/// What was read from a namespace, all at about the same moment.
#[derive(Clone, Copy)]
pub struct ListenQueues<'a> {
    /// Its sockets in LISTEN.
    pub listeners: &'a ListenSockets,
    /// Its rows in SYN_RECV.
    pub half_opens: &'a [Row],
    /// Its counters.
    pub counters: Option<&'a MibCounters>,
    /// Its settings.
    pub settings: &'a QueueSettings,
}

impl ListenQueues<'_> {
    /// A line for each listener, in no order. `name`: the name of the namespace.
    pub fn lines(
        &self,
        name: &Arc<str>,
        who: impl Fn(u32) -> Option<ListenerProcess>,
    ) -> Vec<Listener> {
        let SynQueues {
            own: syn_queues,
            shared,
        } = syn_queues(self.listeners, self.half_opens);
        let of_group = |inode| {
            let mut groups = shared.iter().filter(|g| g.members.contains(&inode));
            groups.next().map_or(0, |group| group.half_opens)
        };
        let counter = |name| self.counters.and_then(|c| c.get(name));
        let line = |l: &super::listen_sockets::ListenSocket| {
            let syn_queue = syn_queues.get(&l.inode).copied();
            let settings = corrected_by(*self.settings, syn_queue, l.accept_queue_max);
            let limits = Limits::of(l.accept_queue_max, &settings);
            let who = who(l.inode).unwrap_or_default();
            let (pid, comm) = who.process.map(|p| (p.pid, p.comm)).unzip();
            Listener {
                local_addr: printable(l.local_addr),
                local_port: l.local_port,
                netns: l.netns,
                netns_name: Some(Arc::clone(name)),
                pid,
                comm,
                cgroup: who.cgroup,
                workload: Workload::default(),
                syn_queue,
                syn_queue_max: limits.syn_queue_max,
                accept_queue: Some(l.accept_queue),
                accept_queue_max: Some(l.accept_queue_max),
                limited_by: limits.limited_by,
                overflows: counter("ListenOverflows"),
                syn_cookies: counter("SyncookiesSent"),
                drops: l.drops.map(u64::from),
                syn_queue_group: Some(of_group(l.inode)),
                inode: (l.inode != 0).then_some(l.inode),
                owner_state: None,
                accept_wait: None,
                transparent: l.transparent,
            }
        };
        self.listeners.iter().map(line).collect()
    }
}
