//! `synprobe states`: sockets by TCP state, per network namespace and per listening port.
//!
//! What `netstat -n | awk '/^tcp/ {++S[$NF]}'` gives, from sock_diag in one walk of the kernel's table,
//! with the half-opens (NEW_SYN_RECV) under the name everybody knows, and with who listens.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    io,
    net::IpAddr,
};

use serde::Serialize;

use crate::{
    descriptors,
    diag::{
        listeners::Listeners,
        owner::{Bounds, OwnerCache},
        row::mask,
        sock_diag::{Query, SockDiag},
    },
    filter::printable,
    model::TcpState,
    netns::{self, NetNs},
};

/// Sockets by state name.
pub type Counts = BTreeMap<&'static str, u64>;

/// A listening port.
#[derive(Clone, Debug, Serialize)]
pub struct PortStates {
    /// Bound address.
    pub local_addr: IpAddr,
    /// Port.
    pub local_port: u16,
    /// Who listens.
    pub pid: Option<u32>,
    /// Its command.
    pub comm: Option<String>,
    /// Connections that wait for accept().
    pub accept_queue: u32,
    /// How many of them are held; one more fits (`sk_acceptq_is_full()`).
    pub accept_queue_max: u32,
    /// Connections on this port, by state; several listeners on one port (SO_REUSEPORT, several
    /// addresses) share them.
    pub states: Counts,
    /// SYN-ACKs sent again for the half-opens there are now.
    pub synack_retransmits: u64,
    /// Peers of the half-opens, most first: at most three.
    pub syn_recv_peers: Vec<(IpAddr, u64)>,
}

/// One network namespace.
#[derive(Clone, Debug, Serialize)]
pub struct NetnsStates {
    /// Inode.
    pub netns: u32,
    /// How people call it.
    pub name: String,
    /// All its sockets.
    pub states: Counts,
    /// Its listening ports.
    pub listeners: Vec<PortStates>,
}

/// What was counted, and which namespaces could not be.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Those with at least one TCP socket; all of them where one was asked for.
    pub namespaces: Vec<NetnsStates>,
    /// One line each.
    pub failures: Vec<String>,
}

/// Counts one namespace, or every one that can be found.
pub fn count(only: Option<NetNs>) -> Counted {
    let mut counted = Counted::default();
    let asked = only.is_some();
    let found = match only {
        Some(netns) => vec![netns],
        None => {
            let found = netns::discover();
            if found.exhausted {
                counted.failures.push(descriptors::advice());
            }
            if found.denied > 0 {
                counted.failures.push(format!(
                    "the namespaces of {} processes may not be looked at: that takes CAP_SYS_ADMIN, CAP_SYS_PTRACE and every capability that those processes have",
                    found.denied
                ));
            }
            found.namespaces
        }
    };
    let mut owners = OwnerCache::new();
    for netns in found {
        match count_one(&netns, &mut owners) {
            Ok(states) if asked || !states.states.is_empty() => counted.namespaces.push(states),
            Ok(_) => (),
            Err(error) => counted
                .failures
                .push(format!("namespace {}: {error}", netns.name())),
        }
    }
    counted
}

#[derive(Default)]
struct OfPort {
    states: Counts,
    retransmits: u64,
    peers: HashMap<[u8; 16], u64>,
}

fn count_one(netns: &NetNs, owners: &mut OwnerCache) -> io::Result<NetnsStates> {
    let mut sock_diag = SockDiag::open(netns)?;
    let listeners = Listeners::read(&mut sock_diag)?;
    let ports: BTreeSet<u16> = listeners.iter().map(|l| l.local_port).collect();
    let mut states = Counts::new();
    let mut by_port: HashMap<u16, OfPort> = HashMap::new();
    sock_diag.dump_with(&Query::states(mask::ALL), |row| {
        let Some(state) = TcpState::from_kernel(row.state) else {
            return;
        };
        *states.entry(state.name()).or_default() += 1;
        if state == TcpState::Listen || !ports.contains(&row.local_port) {
            return;
        }
        let port = by_port.entry(row.local_port).or_default();
        *port.states.entry(state.name()).or_default() += 1;
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
            peers.sort_by_key(|(addr, n)| (std::cmp::Reverse(*n), *addr));
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
    rows.sort_by_key(|p| {
        (
            std::cmp::Reverse((half_open(p), all(p))),
            p.local_port,
            p.local_addr,
        )
    });
    Ok(NetnsStates {
        netns: netns.inode(),
        name: netns.name().to_owned(),
        states,
        listeners: rows,
    })
}

/// For eyes.
pub fn text(counted: &Counted) -> String {
    let mut text = String::new();
    for (n, ns) in counted.namespaces.iter().enumerate() {
        let gap = if n > 0 { "\n" } else { "" };
        let total: u64 = ns.states.values().sum();
        let _ = writeln!(
            text,
            "{gap}namespace {} ({}): {total} TCP sockets",
            crate::human::safe(&ns.name),
            ns.netns
        );
        let mut states: Vec<_> = ns.states.iter().collect();
        states.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), **name));
        for (name, n) in states {
            let _ = writeln!(text, "  {name:<12} {n:>8}");
        }
        if ns.listeners.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "\n  {:<28} {:>9} {:>11} {:>8}  {:<20} OTHERS",
            "LISTENER", "ACCEPT-Q", "ESTABLISHED", "SYN_RECV", "PROCESS"
        );
        for l in &ns.listeners {
            let count = |name: &str| l.states.get(name).copied().unwrap_or(0);
            let addr = match l.local_addr {
                IpAddr::V6(v6) => format!("[{v6}]:{}", l.local_port),
                IpAddr::V4(v4) => format!("{v4}:{}", l.local_port),
            };
            let queue = format!("{}/{}", l.accept_queue, l.accept_queue_max);
            let process = match (&l.comm, l.pid) {
                (Some(comm), Some(pid)) => format!("{}/{pid}", crate::human::safe(comm)),
                _ => "?".to_owned(),
            };
            let others: Vec<_> = l
                .states
                .iter()
                .filter(|(name, _)| !matches!(**name, "ESTABLISHED" | "SYN_RECV"))
                .map(|(name, n)| format!("{name} {n}"))
                .collect();
            let line = format!(
                "  {addr:<28} {queue:>9} {:>11} {:>8}  {process:<20} {}",
                count("ESTABLISHED"),
                count("SYN_RECV"),
                others.join(", ")
            );
            let _ = writeln!(text, "{}", line.trim_end());
            if !l.syn_recv_peers.is_empty() {
                let peers: Vec<_> = l
                    .syn_recv_peers
                    .iter()
                    .map(|(addr, n)| format!("{addr} ({n})"))
                    .collect();
                let _ = writeln!(
                    text,
                    "    half-open from {}; {} SYN-ACKs sent again so far",
                    peers.join(", "),
                    l.synack_retransmits
                );
            }
        }
    }
    if counted.namespaces.is_empty() {
        text.push_str("no TCP sockets\n");
    }
    text
}
