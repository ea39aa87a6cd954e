//! Connections whose destination a program attached to the cgroup rewrites in connect()
//! (`BPF_CGROUP_INET4_CONNECT`, `BPF_CGROUP_INET6_CONNECT`): a service load balancer without NAT.
//!
//! `tcp_v4_pre_connect()` runs such programs before `tcp_v4_connect()`, so the socket has the new destination
//! from the start, in SYN_SENT too. getpeername() may hide it again (`BPF_CGROUP_INET4_GETPEERNAME`); sock_diag
//! does not.

use std::{
    fs::File,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use crate::{
    diag::{
        inet_diag_msg::mask,
        sock_diag::{Query, SockDiag},
    },
    util::addresses::printable,
};

/// The destination that a socket really has. `None`: it is not found, or has none.
pub fn destination(
    sockets: &mut SockDiag,
    socket: &OwnedFd,
    local: SocketAddr,
) -> Option<SocketAddr> {
    let file = File::from(socket.as_fd().try_clone_to_owned().ok()?);
    let inode = file.metadata().ok()?.ino();
    let query = Query {
        local_port: local.port(),
        ..Query::states(mask::SYN_SENT | mask::SYN_RECV | mask::ESTABLISHED)
    };
    let mut found = None;
    sockets
        .dump_with(&query, |row| {
            if u64::from(row.inode) == inode {
                found = Some(SocketAddr::new(printable(row.peer_addr), row.peer_port));
            }
        })
        .ok()?;
    found
}
