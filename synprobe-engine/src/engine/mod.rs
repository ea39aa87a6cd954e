//! The core behind one door: [`Input`]s in, lines out.
//!
//! [`Engine`] does no I/O and has no clock, no randomness: time, names, answers and the seed of its hashes
//! are inputs. So a recording is the sequence of inputs, and the same inputs give the same lines.
//!
//! ```text
//!   kernel ring, sock_diag, names, clock ──► Input ──► Engine::feed ──► Engine::take_lines
//!                                                        │    └───────► Engine::snapshot
//!                       answers ◄── Engine::questions ◄──┘
//! ```

mod config;
mod core;
mod dropped;
mod dumps;
mod events;
mod host_counts;
mod icmp;
mod in_progress;
mod input;
mod listen_rises;
mod listen_sockets;
mod losses;
mod refusals;
mod snapshot;
mod stats;
mod syn_refusals;
mod totals;
mod window;

pub use self::{
    config::RunConfig,
    core::{Batch, Engine, Questions},
    host_counts::HostCounts,
    input::{DropMeaning, Input},
    snapshot::EngineSnapshot,
    stats::{ConfidenceRank, HandshakeStats, LONG_US, PortKey, PortTotals, RetransmitCause},
};
