//! The wire contract between synprobe's kernel side and its agent.
//!
//! `no_std`, `core` only. The same source is compiled into the eBPF object and into the agent, so both
//! have the same layout. [`event`] defines the records of the ring, [`config`] the settings that the
//! loader writes before it loads the programs.
#![cfg_attr(not(test), no_std)]

pub mod config;
pub mod event;
pub mod histogram;
pub mod lab_config;
pub mod stats;
