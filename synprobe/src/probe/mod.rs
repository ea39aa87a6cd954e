//! From the object to programs that run: the only place, beside the pipeline, that knows aya's
//! programs and maps.

pub mod btf;
pub mod hooks;
mod info;
mod load;
pub mod offsets;

pub use load::{LoadError, LoadOptions, Probes};
