//! Sockets by TCP state, per network namespace and per listening port, from one sock_diag dump each.
//!
//! Half-opens (NEW_SYN_RECV) count as SYN_RECV, as in `netstat`.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
};

use super::{
    inet_diag_msg::mask,
    listen_sockets::ListenSockets,
    namespaces::read_each,
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
    let mut owners = OwnerCache::new();
    counted.failures = read_each(only, |netns| {
        let states = count_namespace(netns, &mut owners)?;
        if requested || !states.states.is_empty() {
            counted.namespaces.push(states);
        }
        Ok(())
    });
    counted
}

#[derive(Default)]
struct PortCounts {
    states: Counts,
    retransmits: u64,
    peers: HashMap<[u8; 16], u64>,
}

fn count_namespace(netns: &NetNs, owners: &mut OwnerCache) -> io::Result<NetnsStates> {
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
    let found = owners.find(&inodes, Bounds::default());
    let mut rows: Vec<PortStates> = listeners
        .iter()
        .map(|l| {
            let owner = found.by_inode.get(&l.inode);
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
                pid: owner.map(|o| o.pid),
                comm: owner.map(|o| o.comm.clone()),
                accept_queue: l.accept_queue,
                accept_queue_max: l.accept_queue_max,
                states: port.map(|p| p.states.clone()).unwrap_or_default(),
                synack_retransmits: port.map_or(0, |p| p.retransmits),
                syn_recv_peers: peers,
            }
        })
        .collect();
    let half_open = |p: &PortStates| p.states.get("SYN_RECV").copied().unwrap_or(0);
    let all = |p: &PortStates| p.states.values().sum::<u64>();
    rows.sort_by_key(|p| (Reverse((half_open(p), all(p))), p.local_port, p.local_addr));
    Ok(NetnsStates {
        netns: netns.inode(),
        name: netns.name().to_owned(),
        states,
        listeners: rows,
    })
}
