//! synprobe: watches every TCP handshake on a Linux host from inside the kernel, times it
//! truthfully, and says why it is stuck.
//!
//! The flow is one way: kernel probe → ring → decode → track → verdict → view. Start reading at
//! [`pipeline`].

pub mod diag;
pub mod kernel;
pub mod lab;
pub mod netns;
pub mod preflight;
pub mod probe;
