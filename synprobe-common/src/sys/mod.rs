//! Wrappers of operating system interfaces, without policy and without knowledge of handshakes.

pub mod clock;
pub mod cpu_share;
pub mod fd_limit;
pub mod host_identity;
pub mod journal;
pub mod kernel;
pub mod memory_limit;
pub mod netns;
pub mod nice;
pub mod patient;
pub mod poll;
pub mod privileges;
pub mod process;
mod seccomp;
pub mod sockopts;
pub mod stack_limit;
pub mod sysctl;
pub mod terminal;
mod thread;
pub mod workload;
