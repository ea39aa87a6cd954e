//! Sockets by TCP state, per network namespace and per listening port, from one sock_diag dump each.
//!
//! Half-opens (NEW_SYN_RECV) count as SYN_RECV, as in `netstat`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    time::Instant,
};

use super::{
    inet_diag_msg::mask,
    listen_sockets::ListenSockets,
    namespaces::{read_each, read_each_until},
    sock_diag::{Query, SockDiag},
    socket_owner::{Bounds, OwnerCache},
};
use crate::{
    model::{Counted, Counts, NetnsStates, PortStates, TcpState},
    sys::netns::NetNs,
    util::addresses::printable,
};

/// Counts the sockets of one namespace, or of every one that can be found.
pub fn count(only: Option<NetNs>) -> Counted {
    let mut counted = Counted::default();
    let requested = only.is_some();
    // Owners are searched afterwards, all in one pass over /proc.
    let mut listeners = Vec::new();
    counted.failures = read_each(only, |netns| {
        let (states, sockets) = count_namespace(netns)?;
        if requested || !states.states.is_empty() {
            counted.namespaces.push(states);
            listeners.push(sockets);
        }
        Ok(())
    });
    let inodes: Vec<u32> = listeners.iter().flatten().copied().collect();
    let owners = OwnerCache::new().find(&inodes, Bounds::NONE);
    for (netns, inodes) in counted.namespaces.iter_mut().zip(listeners) {
        for (port, inode) in netns.listeners.iter_mut().zip(inodes) {
            let owner = owners.by_inode.get(&inode);
            port.pid = owner.map(|o| o.pid);
            port.comm = owner.map(|o| o.comm.clone());
        }
        let half_open = |p: &PortStates| p.states.get("SYN_RECV").copied().unwrap_or(0);
        let all = |p: &PortStates| p.states.values().sum::<u64>();
        let rank = |p: &PortStates| (Reverse((half_open(p), all(p))), p.local_port, p.local_addr);
        netns.listeners.sort_by_key(rank);
    }
    counted
}

/// Counts the sockets of one namespace, or of every one that can be found, without its listeners. What is not counted
/// at `until` is said to be left out.
pub fn by_namespace(only: Option<NetNs>, until: Instant) -> Counted {
    let mut counted = Counted::default();
    let requested = only.is_some();
    let (failures, late) = read_each_until(only, Some(until), |netns| {
        let mut states = Counts::new();
        let mut sock_diag = SockDiag::open(netns)?;
        sock_diag.dump_until(&Query::states(mask::ALL), Some(until), |row| {
            if let Some(state) = TcpState::from_kernel(row.state) {
                *states.entry(state.name().into()).or_default() += 1;
            }
        })?;
        if requested || !states.is_empty() {
            counted.namespaces.push(NetnsStates {
                netns: netns.inode(),
                name: netns.name().to_owned(),
                states,
                listeners: Vec::new(),
            });
        }
        Ok(())
    });
    counted.failures = failures;
    if late > 0 {
        let of = match late {
            1 => "1 namespace".to_owned(),
            n => format!("{n} namespaces"),
        };
        counted.failures.push(format!(
            "no time was left to count the sockets of {of}: synprobe states counts them all"
        ));
    }
    counted
}

/// Sockets by state of one namespace, or of every one that can be found, all together. What cannot be read is
/// left out.
pub fn by_state(only: Option<NetNs>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    read_each(only, |netns| {
        let mut sock_diag = SockDiag::open(netns)?;
        sock_diag.dump_with(&Query::states(mask::ALL), |row| {
            if let Some(state) = TcpState::from_kernel(row.state) {
                *counts.entry(state.name()).or_default() += 1;
            }
        })?;
        Ok(())
    });
    counts
}

#[derive(Default)]
struct PortCounts {
    states: Counts,
    retransmits: u64,
    peers: HashMap<[u8; 16], u64>,
}

/// The counts, without owners; and the inode of each listener, in the same order.
fn count_namespace(netns: &NetNs) -> io::Result<(NetnsStates, Vec<u32>)> {
    let mut sock_diag = SockDiag::open(netns)?;
    let listeners = ListenSockets::read(&mut sock_diag)?;
    let ports: BTreeSet<u16> = listeners.iter().map(|l| l.local_port).collect();
    let mut states = Counts::new();
    let mut by_port: HashMap<u16, PortCounts> = HashMap::new();
    sock_diag.dump_with(&Query::states(mask::ALL), |row| {
        let Some(state) = TcpState::from_kernel(row.state) else {
            return;
        };
        *states.entry(state.name().into()).or_default() += 1;
        if state == TcpState::Listen || !ports.contains(&row.local_port) {
            return;
        }
        let port = by_port.entry(row.local_port).or_default();
        *port.states.entry(state.name().into()).or_default() += 1;
        if state == TcpState::SynRecv {
            port.retransmits += u64::from(row.retrans);
            *port.peers.entry(row.peer_addr).or_default() += 1;
        }
    })?;
    let inodes: Vec<u32> = listeners.iter().map(|l| l.inode).collect();
    let rows: Vec<PortStates> = listeners
        .iter()
        .map(|l| {
            let port = by_port.get(&l.local_port);
            let mut peers: Vec<(IpAddr, u64)> = port
                .map(|p| {
                    p.peers
                        .iter()
                        .map(|(addr, n)| (printable(*addr), *n))
                        .collect()
                })
                .unwrap_or_default();
            peers.sort_by_key(|(addr, n)| (Reverse(*n), *addr));
            peers.truncate(3);
            PortStates {
                local_addr: printable(l.local_addr),
                local_port: l.local_port,
                pid: None,
                comm: None,
                accept_queue: l.accept_queue,
                accept_queue_max: l.accept_queue_max,
                states: port.map(|p| p.states.clone()).unwrap_or_default(),
                synack_retransmits: port.map_or(0, |p| p.retransmits),
                syn_recv_peers: peers,
            }
        })
        .collect();
    let states = NetnsStates {
        netns: netns.inode(),
        name: netns.name().to_owned(),
        states,
        listeners: rows,
    };
    Ok((states, inodes))
}
