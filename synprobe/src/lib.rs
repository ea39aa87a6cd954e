//! synprobe: watches every TCP handshake on a Linux host from inside the kernel, times it
//! truthfully, and says why it is stuck.
//!
//! The flow is one way: kernel probe → ring → decode → track → verdict → view. Start reading at
//! [`pipeline`].

pub mod cli;
pub mod commands;
pub mod connect;
pub mod decode;
mod descriptors;
pub mod diag;
pub mod errno;
pub mod filter;
mod host;
pub mod human;
pub mod kernel;
pub mod lab;
pub mod listeners;
pub mod model;
pub mod netns;
mod notice;
pub mod pipeline;
pub mod preflight;
mod priority;
pub mod privileges;
pub mod probe;
pub mod rehearsal;
mod ring;
mod seccomp;
pub mod states;
mod survey;
pub mod track;
pub mod verdict;
pub mod view;
