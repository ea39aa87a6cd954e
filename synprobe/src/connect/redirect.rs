//! Connections that this host sends to another address than the one called, by its NAT or by a program of the
//! cgroup: a local proxy (sidecar), a service address.

use std::net::SocketAddr;

use synprobe_ebpf::event::Flow;

use super::{
    attempt::AttemptResult,
    path::{RedirectInfo, RouteLookup},
};
use crate::{
    diag::{listener_table::read_listeners, nat, sock_diag::SockDiag},
    filter::PortSet,
    model::RedirectedBy,
    sys::netns::NetNs,
    util::addresses::mapped,
};

/// Looks up every attempt that has a local port. To be called in the namespace of the attempts.
pub fn look_up(tried: &mut [AttemptResult], netns: &NetNs, routes: &mut RouteLookup) {
    let known: Vec<usize> = (0..tried.len())
        .filter(|at| tried[*at].local.is_some())
        .collect();
    let connections: Vec<_> = known
        .iter()
        .filter_map(|at| Some((tried[*at].local?, tried[*at].peer)))
        .collect();
    if connections.is_empty() {
        return;
    }
    let found = nat::destinations_here(&connections);
    for (at, to) in known.into_iter().zip(found) {
        let called = tried[at].peer;
        let called = SocketAddr::new(called.ip().to_canonical(), called.port());
        let by_nat = to
            .filter(|to| *to != called)
            .map(|to| (to, RedirectedBy::Nat));
        let by_program = tried[at].rewritten.map(|to| (to, RedirectedBy::Cgroup));
        let redirect = by_program
            .or(by_nat)
            .map(|(to, by)| info(to, by, netns, routes));
        tried[at].redirect = redirect.or_else(|| taken_over(&tried[at], called, netns, routes));
    }
}

/// The other end of a connection is a socket of this namespace, though the address called is not: TPROXY. `None` also
/// where several listeners may have taken it.
fn taken_over(
    tried: &AttemptResult,
    called: SocketAddr,
    netns: &NetNs,
    routes: &mut RouteLookup,
) -> Option<RedirectInfo> {
    let local = tried.local?;
    if routes.is_local(called.ip()) {
        return None;
    }
    let server = Flow {
        local_addr: mapped(called.ip()),
        local_port: called.port(),
        peer_addr: mapped(local.ip()),
        peer_port: local.port(),
        ..Flow::default()
    };
    let mut sock_diag = SockDiag::open(netns).ok()?;
    sock_diag.get(&server, 0).ok()??;
    let table = read_listeners(Some(netns.clone()), &PortSet::default());
    let mut transparent = table.listeners().filter(|l| l.transparent);
    let listener = transparent.next()?;
    transparent.next().is_none().then_some(())?;
    Some(RedirectInfo {
        to: SocketAddr::new(listener.local_addr, listener.local_port),
        by: RedirectedBy::Tproxy,
        interface: tried.path.interface.clone(),
        owner: listener
            .pid
            .zip(listener.comm.as_deref().map(str::to_owned)),
        accept_queue: listener.accept_queue.zip(listener.accept_queue_max),
    })
}

fn info(to: SocketAddr, by: RedirectedBy, netns: &NetNs, routes: &mut RouteLookup) -> RedirectInfo {
    let ports: PortSet = to.port().to_string().parse().unwrap_or_default();
    let path = routes.to(to);
    let mut info = RedirectInfo {
        to,
        by,
        interface: path.interface,
        owner: None,
        accept_queue: None,
    };
    if !routes.is_local(to.ip()) {
        return info;
    }
    let table = read_listeners(Some(netns.clone()), &ports);
    let serves = |exact: bool| {
        table.listeners().find(move |l| match exact {
            true => l.local_addr == to.ip(),
            false => l.local_addr.is_unspecified(),
        })
    };
    if let Some(listener) = serves(true).or_else(|| serves(false)) {
        let comm = listener.comm.as_deref().map(str::to_owned);
        info.owner = listener.pid.zip(comm);
        info.accept_queue = listener.accept_queue.zip(listener.accept_queue_max);
    }
    info
}
