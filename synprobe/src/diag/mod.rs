//! Queries to the kernel: socket tables, counters, settings, routes, and the owners of sockets.
//!
//! The probes report events; this module reads the current state. It finds the half-opens from before
//! the run and those that ended without an event, and it reads the counters that the events are checked
//! against.

pub mod addresses;
mod buffers;
pub mod cgroup;
pub mod conntrack;
pub mod counters;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod icmp;
pub mod inet_diag_msg;
mod inet_diag_req;
pub mod listen_queues;
pub mod listen_sockets;
pub mod listener_table;
pub mod namespaces;
pub mod nat;
mod netlink;
mod netlink_socket;
pub mod owner_state;
pub mod route;
pub mod route_info;
mod route_messages;
pub mod rules;
pub mod sock_diag;
pub mod socket_owner;
pub mod state_counts;
#[cfg(test)]
mod tests;

use crate::{
    model::HandshakeSettings,
    sys::{netns::NetNs, sysctl::sysctl_numbers},
};

/// The settings of a namespace that decide how its handshakes go, and `tcp_synack_retries`.
pub fn handshake_settings(netns: &NetNs) -> (HandshakeSettings, Option<u64>) {
    let names = [
        "net/ipv4/tcp_syn_retries",
        "net/ipv4/tcp_syn_linear_timeouts",
        "net/ipv4/tcp_abort_on_overflow",
        "net/ipv4/tcp_syncookies",
        "net/ipv4/tcp_synack_retries",
    ];
    let [
        syn_retries,
        syn_linear_timeouts,
        abort_on_overflow,
        syncookies,
        synack_retries,
    ] = sysctl_numbers(netns, names).unwrap_or_default();
    let settings = HandshakeSettings {
        syn_retries,
        syn_linear_timeouts,
        abort_on_overflow,
        syncookies,
    };
    (settings, synack_retries)
}
