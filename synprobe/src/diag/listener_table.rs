//! Every listener with its two queues, the fullest first, from one reading of the kernel's tables.

use std::{cmp::Reverse, collections::HashMap, io, net::SocketAddr, sync::Arc};

use super::{
    counters::{CounterReader, MibCounters},
    inet_diag_msg::Row,
    listen_queues::{ListenQueues, ListenerProcess, read_settings, syn_queues},
    listen_sockets::ListenSockets,
    namespaces::read_each,
    sock_diag::SockDiag,
    socket_owner::{Bounds, OwnerCache, SocketOwners},
};
use crate::{
    filter::PortSet,
    model::{
        Body, Line, ListenerNamespace, ListenerTable, QueueSettings, SharedSynQueue, Workload,
    },
    sys::{clock::monotonic_ns, netns::NetNs, workload::Workloads},
    util::addresses::printable,
};

/// Reads the listeners on these ports (all, where `ports` is empty) in one namespace, or in every one that
/// can be found. Their owners are searched afterwards, all in one pass over `/proc`.
pub fn read_listeners(only: Option<NetNs>, ports: &PortSet) -> ListenerTable {
    let mut read = Vec::new();
    let failures = read_each(only, |netns| {
        read.push(ReadNamespace::of(netns)?);
        Ok(())
    });
    let mut table = ListenerTable {
        nothing: read.is_empty(),
        failures,
        ..ListenerTable::default()
    };
    let wanted = |port| ports.is_empty() || ports.contains(port);
    let all = read.iter().flat_map(|one| one.listeners.iter());
    let inodes: Vec<u32> = all
        .filter(|l| wanted(l.local_port))
        .map(|l| l.inode)
        .collect();
    let owners = OwnerCache::new().find(&inodes, Bounds::NONE);
    for one in read {
        let (namespace, lines) = one.lines(&owners, wanted);
        if !lines.is_empty() {
            table.namespaces.push(namespace);
            table.lines.extend(lines);
        }
    }
    if owners.denied > 0 && table.listeners().any(|l| l.pid.is_none()) {
        let line =
            "the owner of some listeners cannot be determined: run as root, or with CAP_SYS_PTRACE";
        table.failures.push(line.to_owned());
    }
    name_workloads(&mut table.lines);
    table.lines.sort_by_key(order);
    table
}

/// Adds unit, container and pod of each owner.
fn name_workloads(lines: &mut [Line]) {
    let mut workloads = Workloads::default();
    let mut known: HashMap<u32, Workload> = HashMap::new();
    for line in lines {
        let Body::Listener(l) = &mut line.body else {
            continue;
        };
        let Some(pid) = l.pid else { continue };
        let cgroup = l.cgroup.as_deref();
        let of = || Workload(workloads.of(cgroup, pid).map(Arc::new));
        l.workload = known.entry(pid).or_insert_with(of).clone();
    }
}

/// What was read of one namespace.
struct ReadNamespace {
    name: Arc<str>,
    listeners: ListenSockets,
    half_opens: Vec<Row>,
    counters: Option<MibCounters>,
    settings: QueueSettings,
    mono_ns: u64,
}

impl ReadNamespace {
    /// On one thread, which enters the namespace once.
    fn of(netns: &NetNs) -> io::Result<Self> {
        netns.run(|| Self::read(netns))?
    }

    fn read(netns: &NetNs) -> io::Result<Self> {
        let mut sock_diag = SockDiag::open(netns)?;
        let half_opens = sock_diag.half_opens()?.rows;
        let listeners = ListenSockets::read(&mut sock_diag)?;
        // Most namespaces have no listener: nothing else is asked of them.
        let listens = listeners.iter().next().is_some();
        let counters = listens
            .then(|| CounterReader::open(netns).and_then(|mut reader| reader.read()))
            .and_then(Result::ok);
        let settings = match listens {
            true => read_settings(netns).unwrap_or_default(),
            false => QueueSettings::default(),
        };
        Ok(Self {
            name: netns.name().into(),
            listeners,
            half_opens,
            counters,
            settings,
            mono_ns: monotonic_ns(),
        })
    }

    fn lines(
        self,
        owners: &SocketOwners,
        wanted: impl Fn(u16) -> bool,
    ) -> (ListenerNamespace, Vec<Line>) {
        let queues = ListenQueues {
            listeners: &self.listeners,
            half_opens: &self.half_opens,
            counters: self.counters.as_ref(),
            settings: &self.settings,
        };
        let lines = queues.lines(&self.name, |inode| {
            owners
                .by_inode
                .get(&inode)
                .cloned()
                .map(ListenerProcess::of)
        });
        let counter = |name| self.counters.as_ref().and_then(|c| c.get(name));
        let groups = syn_queues(&self.listeners, &self.half_opens).shared;
        let shared = groups.into_iter().filter_map(|group| {
            let one = self
                .listeners
                .iter()
                .find(|l| group.members.contains(&l.inode))?;
            wanted(one.local_port).then(|| SharedSynQueue {
                local: SocketAddr::new(printable(one.local_addr), one.local_port),
                members: group.members.len(),
                half_opens: group.half_opens,
            })
        });
        let namespace = ListenerNamespace {
            shared: shared.collect(),
            name: Arc::clone(&self.name),
            settings: self.settings,
            overflows: counter("ListenOverflows"),
            syn_cookies: counter("SyncookiesSent"),
        };
        let lines = lines
            .into_iter()
            .filter(|l| wanted(l.local_port))
            .map(|l| Line {
                mono_ns: self.mono_ns,
                body: Body::Listener(Box::new(l)),
            });
        (namespace, lines.collect())
    }
}

/// Fill level of a queue, parts per million. A queue takes one more than its limit.
fn fill(queue: Option<u32>, max: Option<u32>) -> u64 {
    let parts = |(now, max): (u32, u32)| u64::from(now) * 1_000_000 / (u64::from(max) + 1);
    queue.zip(max).map_or(0, parts)
}

/// Sort key: the fullest queue first, then the most drops.
fn order(line: &Line) -> impl Ord + use<> {
    let Body::Listener(l) = &line.body else {
        return None;
    };
    let fullest = fill(l.accept_queue, l.accept_queue_max).max(fill(l.syn_queue, l.syn_queue_max));
    let place = (l.local_port, l.local_addr, l.netns);
    Some((Reverse((fullest, l.drops)), place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Listener;

    #[test]
    fn the_fullest_listener_comes_first() {
        // A queue at its limit takes one more: it is not full yet.
        let at = |accept_queue, syn_queue, port| Line {
            mono_ns: 1,
            body: Body::Listener(Box::new(Listener {
                syn_queue: Some(syn_queue),
                syn_queue_max: Some(128),
                accept_queue: Some(accept_queue),
                accept_queue_max: Some(128),
                drops: Some(u64::from(accept_queue)),
                ..Listener::at(1, [0, 0, 0, 0].into(), port)
            })),
        };
        let mut lines = [at(0, 0, 80), at(128, 0, 81), at(129, 0, 82), at(3, 90, 83)];
        lines.sort_by_key(order);
        let ports = lines.iter().map(|line| match &line.body {
            Body::Listener(listener) => listener.local_port,
            _ => 0,
        });
        assert_eq!(ports.collect::<Vec<_>>(), [82, 81, 83, 80]);
    }
}
