//! synprobe watches every TCP handshake on a Linux host from inside the kernel, times it as the kernel
//! does, and names the cause where it is stuck.
//!
//! ```text
//!   probe → ring → decode ─┐                                 ┌─ view (text, JSON, page)
//!   poller (sock_diag)    ─┼─► Input ─► engine ─► subscriber ┴─ …
//!   enrich (names)        ─┘     ▲      (track + verdict)
//!                                └── recording ◄── recorder
//! ```
//!
//! Data flows one way, from inputs to lines. The engine does no I/O: its questions go to the poller, and
//! the answers return as inputs. Start reading at [`pipeline`]. docs/design.md has the whole tree.

// A message goes by `sys::journal`, which gives it the priority that the journal reads.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod cli;
pub mod connect;
pub mod diag;
pub mod join;
pub mod lang;
pub mod pipeline;
mod poller;
pub mod preflight;
pub mod probe;
pub mod report;
mod ring;
#[cfg(feature = "serve")]
pub mod serve;
pub mod status;
#[cfg(feature = "top")]
pub mod top;
pub mod verbs;
pub mod view;

pub use synprobe_common::{model, sys, util};
pub use synprobe_engine::{decode, engine, filter, recording, track, verdict};
