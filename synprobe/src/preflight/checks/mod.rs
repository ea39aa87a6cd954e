//! One small function for each check, grouped by what it looks at.

mod bpf;
mod btf;
mod kernel;
mod mounts;
mod sockets;

use std::io;

pub(super) use bpf::{exact, not_exact, raw_tracepoint, ring_buffer, sched_cls};
pub(super) use btf::{btf, hook, members};
pub(super) use kernel::{ephemeral_ports, hz, jit, kernel, lockdown, not_checked};
pub(super) use mounts::{cgroup2, tracefs};
pub(super) use sockets::{icmp, sock_diag};

/// The kernel's own errno, which libc has no name for (include/linux/errno.h).
const ENOTSUPP: i32 = 524;

fn refusal(what: &str, e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EPERM) => format!("{what}: refused by this host (EPERM)"),
        Some(libc::ENOSYS) => format!("{what}: not built into this kernel (ENOSYS)"),
        Some(libc::EINVAL) => format!("{what}: not supported by this kernel (EINVAL)"),
        Some(ENOTSUPP) => format!("{what}: this kernel cannot attach them (ENOTSUPP)"),
        _ => format!("{what}: {e}"),
    }
}

fn remedy_of_refusal(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "a container, a user namespace, seccomp or a security module forbids it: run in the \
             host's own namespaces, as root"
        }
        _ => "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_BPF_EVENTS=y",
    }
}
