//! From the object to programs that run.

pub mod btf;
pub mod hooks;
pub mod offsets;
