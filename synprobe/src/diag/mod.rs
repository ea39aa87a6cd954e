//! What the kernel says when asked: its socket tables, its counters, its settings, and who owns what.
//!
//! The probes report what happens; this reports what is. It is how a half-open that was there before
//! the run is known, how one that ended unseen is noticed, and how every figure is checked against
//! the kernel's own.

pub mod addresses;
mod buffers;
pub mod cgroup;
pub mod counters;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod icmp;
pub mod inet_diag_msg;
mod inet_diag_req;
pub mod listen_queues;
pub mod listen_sockets;
pub mod listener_table;
mod netlink;
mod netlink_socket;
pub mod route;
pub mod sock_diag;
pub mod socket_owner;
pub mod state_counts;
#[cfg(test)]
mod tests;
