//! Connections that this host sends to another address than the one called, by its NAT or by a program of the
//! cgroup: a local proxy (sidecar), a service address.

use std::net::SocketAddr;

use super::{attempt::AttemptResult, path::RouteLookup};
use crate::{
    diag::{listener_table::read_listeners, nat},
    filter::PortSet,
    model::RedirectedBy,
    sys::netns::NetNs,
};

/// Where a connection goes in place of the address called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectInfo {
    /// The real destination.
    pub to: SocketAddr,
    /// What sends it there.
    pub by: RedirectedBy,
    /// The device by which it leaves.
    pub interface: Option<String>,
    /// Who listens there, where that is in the same namespace: pid and command.
    pub owner: Option<(u32, String)>,
    /// Its accept queue and the queue's limit.
    pub accept_queue: Option<(u32, u32)>,
}

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
        tried[at].redirect = by_program
            .or(by_nat)
            .map(|(to, by)| info(to, by, netns, routes));
    }
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
