//! Loads the eBPF object, adapts it to the running kernel and attaches its programs. Apart from the
//! pipeline, only this module uses aya's types.

mod attach;
pub mod bpf_log;
pub mod btf;
mod counters;
pub mod drop_governor;
pub mod drop_reasons;
pub mod half_open_source;
pub mod hooks;
mod info;
pub mod kallsyms;
mod load;
pub mod losses;
mod object;
pub mod offsets;
mod per_cpu;

pub use counters::CountedSlot;
pub use load::{LoadError, LoadOptions, Probes};
