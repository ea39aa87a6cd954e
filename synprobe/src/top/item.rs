//! One row of a pane, before it is text.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{TopEvent, networks::PeerNetwork, query::RowFacts};
use crate::model::{Listener, Peer, Problem, ProblemRole, Role, UnderWay, VerdictKind, who};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) enum PaneItem<'s> {
    Problem(&'s Problem),
    Listener(&'s Listener),
    Handshake(&'s UnderWay),
    Peer(&'s Peer),
    Network(&'s PeerNetwork),
    Event(&'s TopEvent),
}

/// What stays the same while the row's numbers and its place change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowId {
    Problem(String),
    Listener(u32, IpAddr, u16, Option<u32>),
    Handshake(u64),
    Peer(IpAddr, Role),
    Network(IpNet, Role),
    Event(u64),
}

impl PaneItem<'_> {
    /// Its identity.
    pub fn id(&self) -> RowId {
        match self {
            Self::Problem(p) => RowId::Problem(p.life.id.clone()),
            Self::Listener(l) => RowId::Listener(l.netns, l.local_addr, l.local_port, l.inode),
            Self::Handshake(h) => RowId::Handshake(h.connection.id),
            Self::Peer(p) => RowId::Peer(p.peer_addr, p.role),
            Self::Network(n) => RowId::Network(n.net, n.role),
            Self::Event(e) => RowId::Event(e.serial),
        }
    }

    /// Whether it is that one; without a copy of its identity.
    pub fn is(&self, id: &RowId) -> bool {
        match (self, id) {
            (Self::Problem(p), RowId::Problem(id)) => p.life.id == *id,
            (Self::Handshake(h), RowId::Handshake(id)) => h.connection.id == *id,
            (Self::Peer(p), RowId::Peer(addr, role)) => (p.peer_addr, p.role) == (*addr, *role),
            (Self::Network(n), RowId::Network(net, role)) => (n.net, n.role) == (*net, *role),
            (Self::Event(e), RowId::Event(serial)) => e.serial == *serial,
            (Self::Listener(_), RowId::Listener(..)) => self.id() == *id,
            _ => false,
        }
    }

    /// What a filter can ask of it.
    pub fn facts(&self) -> RowFacts<'_> {
        match self {
            Self::Problem(p) => of_problem(p),
            Self::Listener(l) => RowFacts {
                ports: Some(vec![l.local_port]),
                netns: Some((l.netns, l.netns_name.as_deref())),
                process: Some(who(l.comm.as_deref(), l.pid, &l.workload).into_owned()),
                role: Some(Some(Role::Server)),
                ..RowFacts::default()
            },
            Self::Handshake(h) => {
                let c = &h.connection;
                RowFacts {
                    ports: Some(c.local_port.into_iter().chain(c.peer_port).collect()),
                    netns: Some((c.netns, c.netns_name.as_deref())),
                    process: Some(who(c.comm.as_deref(), c.pid, &c.workload).into_owned()),
                    peers: Some(vec![c.peer_addr]),
                    role: Some(Some(c.role)),
                    ..RowFacts::default()
                }
            }
            Self::Event(e) => e.facts(),
            // Its peers were selected before they were added up.
            Self::Network(n) => RowFacts {
                role: Some(Some(n.role)),
                ..RowFacts::default()
            },
            Self::Peer(p) => RowFacts {
                verdicts: Some(p.verdicts.keys().map(|kind| kind.name()).collect()),
                peers: Some(vec![p.peer_addr]),
                role: Some(Some(p.role)),
                ..RowFacts::default()
            },
        }
    }
}

fn of_problem(p: &Problem) -> RowFacts<'_> {
    let forwarded = p.forward.as_ref();
    let ports = p.local_port.into_iter().chain(p.peer_port);
    let verdicts = p.effects.iter().filter_map(|effect| effect.verdict);
    let to = forwarded.map(|forward| forward.to_addr);
    RowFacts {
        ports: Some(ports.chain(forwarded.map(|f| f.to_port)).collect()),
        netns: Some((p.netns, p.netns_name.as_deref())),
        verdicts: Some(
            std::iter::once(p.verdict_name())
                .chain(verdicts.map(VerdictKind::name))
                .collect(),
        ),
        process: Some(who(p.comm.as_deref(), p.pid, &p.workload).into_owned()),
        peers: Some(
            p.peers
                .iter()
                .map(|peer| peer.peer_addr)
                .chain(to)
                .collect(),
        ),
        peers_more: p.peers_more > 0,
        role: Some(match p.role {
            ProblemRole::Client => Some(Role::Client),
            ProblemRole::Server => Some(Role::Server),
            ProblemRole::Router => None,
        }),
    }
}

/// Whether a handshake in progress is of the same place as a problem: role, namespace, port, and for a client its
/// caller where both are known.
pub(super) fn is_of(h: &UnderWay, p: &Problem) -> bool {
    let c = &h.connection;
    if p.role != c.role || p.netns != c.netns {
        return false;
    }
    match c.role {
        Role::Server => {
            let local = p
                .local_addr
                .is_none_or(|a| a.is_unspecified() || a == c.local_addr);
            p.local_port.is_none_or(|port| c.local_port == Some(port)) && local
        }
        Role::Client => {
            p.peer_port.is_none_or(|port| c.peer_port == Some(port))
                && match (p.pid, &p.comm) {
                    (Some(pid), _) => c.pid.is_none_or(|of| of == pid),
                    // Of several processes, which have the command in common.
                    (None, Some(comm)) => c.comm.as_ref().is_none_or(|of| of == comm),
                    (None, None) => true,
                }
        }
    }
}
