//! Every listener with its two queues, the fullest first: one look at the kernel's tables.

use std::{cmp::Reverse, io, net::SocketAddr, sync::Arc};

use super::{
    counters::{CounterReader, MibCounters},
    listen_queues::{Look, Who, read_settings, syn_queues},
    listen_sockets::ListenSockets,
    sock_diag::SockDiag,
    socket_owner::{Bounds, OwnerCache},
};
use crate::{
    filter::PortSet,
    model::{Body, Line, ListenerNamespace, ListenerTable, SharedSynQueue},
    sys::{
        clock::monotonic_ns,
        fd_limit,
        netns::{self, NetNs},
    },
    util::addresses::printable,
};

/// Looks into one namespace, or every one that can be found; at the listeners on these ports, or all
/// where `ports` is empty.
pub fn look(only: Option<NetNs>, ports: &PortSet) -> ListenerTable {
    let mut looked = ListenerTable {
        nothing: true,
        ..ListenerTable::default()
    };
    let found = match only {
        Some(netns) => vec![netns],
        None => {
            let found = netns::discover();
            if found.exhausted {
                looked.failures.push(fd_limit::advice());
            }
            if found.denied > 0 {
                looked.failures.push(format!(
                    "{} namespaces may not be entered: run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE",
                    found.denied
                ));
            }
            found.namespaces
        }
    };
    let mut owners = Ownership::default();
    for netns in found {
        match look_into(&netns, ports, &mut owners) {
            Ok((namespace, lines)) => {
                looked.nothing = false;
                if !lines.is_empty() {
                    looked.namespaces.push(namespace);
                    looked.lines.extend(lines);
                }
            }
            Err(error) => looked
                .failures
                .push(format!("namespace {}: {error}", netns.name())),
        }
    }
    if owners.denied && looked.listeners().any(|l| l.pid.is_none()) {
        looked.failures.push(
            "whose listeners some are may not be seen: run as root, or with CAP_SYS_PTRACE"
                .to_owned(),
        );
    }
    looked.lines.sort_by_key(order);
    looked
}

#[derive(Default)]
struct Ownership {
    cache: OwnerCache,
    denied: bool,
}

fn look_into(
    netns: &NetNs,
    ports: &PortSet,
    owners: &mut Ownership,
) -> io::Result<(ListenerNamespace, Vec<Line>)> {
    let mut sock_diag = SockDiag::open(netns)?;
    let half_opens = sock_diag.half_opens()?;
    let listeners = ListenSockets::read(&mut sock_diag)?;
    let counters = CounterReader::open(netns).and_then(|mut reader| reader.read());
    let counters: Option<MibCounters> = counters.ok();
    let settings = read_settings(netns).unwrap_or_default();
    let mono_ns = monotonic_ns();
    let wanted = |port| ports.is_empty() || ports.contains(port);
    let inodes: Vec<u32> = listeners
        .iter()
        .filter(|l| wanted(l.local_port))
        .map(|l| l.inode)
        .collect();
    let found = owners.cache.find(&inodes, Bounds::default());
    owners.denied |= found.denied > 0;
    let name: Arc<str> = netns.name().into();
    let look = Look {
        listeners: &listeners,
        half_opens: &half_opens.rows,
        counters: counters.as_ref(),
        settings: &settings,
    };
    let lines = look.lines(&name, |inode| {
        found.by_inode.get(&inode).cloned().map(Who::of)
    });
    let counter = |name| counters.as_ref().and_then(|c| c.get(name));
    let groups = syn_queues(&listeners, &half_opens.rows).shared;
    let shared = groups.into_iter().filter_map(|group| {
        let one = listeners
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
        name,
        settings,
        overflows: counter("ListenOverflows"),
        syn_cookies: counter("SyncookiesSent"),
    };
    let lines = lines
        .into_iter()
        .filter(|l| wanted(l.local_port))
        .map(|l| Line {
            mono_ns,
            body: Body::Listener(Box::new(l)),
        });
    Ok((namespace, lines.collect()))
}

/// How much of what fits is taken, in parts of a million: one more than the limit fits.
fn fill(queue: Option<u32>, max: Option<u32>) -> u64 {
    let parts = |(now, max): (u32, u32)| u64::from(now) * 1_000_000 / (u64::from(max) + 1);
    queue.zip(max).map_or(0, parts)
}

/// The fullest first, then who discarded most.
pub(crate) fn order(line: &Line) -> impl Ord + use<> {
    let Body::Listener(l) = &line.body else {
        return None;
    };
    let fullest = fill(l.accept_queue, l.accept_queue_max).max(fill(l.syn_queue, l.syn_queue_max));
    let place = (l.local_port, l.local_addr, l.netns);
    Some((Reverse((fullest, l.drops)), place))
}
