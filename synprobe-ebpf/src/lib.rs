//! The wire contract between synprobe's kernel side and its agent.
//!
//! `no_std`, `core` only: the same source is compiled into the eBPF object and into the agent, so
//! the two cannot disagree. [`event`] is what travels through the ring, [`config`] is what the
//! loader hands over before the programs are loaded.
#![cfg_attr(not(test), no_std)]

pub mod config;
pub mod event;
pub mod histogram;
pub mod lab_config;
pub mod stats;
