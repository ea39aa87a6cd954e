//! From the object to programs that run: the only place, beside the pipeline, that knows aya's
//! programs and maps.

mod attach;
pub mod bpf_log;
pub mod btf;
pub mod drop_governor;
pub mod drop_reasons;
pub mod half_open_source;
pub mod hooks;
mod info;
pub mod kallsyms;
mod load;
pub mod losses;
pub mod offsets;

pub use load::{LoadError, LoadOptions, Probes};
