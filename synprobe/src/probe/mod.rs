//! From the object to programs that run: the only place, beside the pipeline, that knows aya's
//! programs and maps.

pub mod aside;
mod attach;
pub mod btf;
pub mod exact;
pub mod hooks;
mod info;
pub mod kallsyms;
pub mod kernel_log;
mod load;
pub mod losses;
pub mod offsets;
pub mod reasons;

pub use load::{LoadError, LoadOptions, Probes};
