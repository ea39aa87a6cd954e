//! synprobe: watches every TCP handshake on a Linux host from inside the kernel, times it
//! truthfully, and says why it is stuck.
//!
//! The flow is one way: kernel probe → ring → decode → track → verdict → view. Start reading at
//! [`pipeline`].

pub mod cli;
pub mod connect;
pub mod decode;
pub mod diag;
pub mod engine;
pub mod filter;
pub mod pipeline;
mod poller;
pub mod preflight;
pub mod probe;
pub mod recording;
mod ring;
pub mod track;
pub mod verbs;
pub mod verdict;
pub mod view;

pub use synprobe_common::{model, sys, util};
