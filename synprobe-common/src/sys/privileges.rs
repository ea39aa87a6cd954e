//! The privileges that a run gives up once its programs are attached. From then on it handles data of
//! untrusted processes and packets, and needs far less than at the start.
//!
//! Capabilities belong to a thread, and a new thread inherits those of its creator: call this before
//! starting other threads. docs/privileges.md explains each capability, and a test shows that each is
//! needed.

use std::io;

pub use crate::sys::seccomp::StillNeeded;
use crate::sys::{seccomp, thread};

/// Bit of a capability (include/uapi/linux/capability.h): replaces [`DAC_READ_SEARCH`].
pub const DAC_OVERRIDE: u32 = 1;
/// Reading files and directories of other users; opening a cgroup by its id.
pub const DAC_READ_SEARCH: u32 = 2;
/// Reading rules of the packet filter: kept by the thread that does so.
pub const NET_ADMIN: u32 = 12;
/// Raw sockets for ICMP errors.
pub const NET_RAW: u32 = 13;
/// Other processes' `/proc/PID/ns` and `/proc/PID/fd`.
pub const SYS_PTRACE: u32 = 19;
/// Entering another network namespace.
pub const SYS_ADMIN: u32 = 21;
/// Addresses in /proc/kallsyms where the kernel hides them. Only at the start.
pub const SYSLOG: u32 = 34;
/// Loading tracing programs. Only at the start.
pub const PERFMON: u32 = 38;
/// Loading programs and maps. Kept: older kernels may require it to read a map or attach a program again.
pub const BPF: u32 = 39;

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two words.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapHeader {
    version: u32,
    /// 0: the calling thread.
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`, the lower 32 bits and then the upper.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The subset of `held` that a run needs until its end. `elsewhere`: it enters other network namespaces.
pub fn to_keep(held: u64, elsewhere: bool) -> u64 {
    let has = |cap: u32| held >> cap & 1 == 1;
    let mut keep = bits(&[BPF, NET_RAW, SYS_PTRACE, DAC_READ_SEARCH]);
    // It replaces CAP_BPF where that is not held.
    if elsewhere || !has(BPF) {
        keep |= bits(&[SYS_ADMIN]);
    }
    // It replaces CAP_DAC_READ_SEARCH where that is not held.
    if !has(DAC_READ_SEARCH) {
        keep |= bits(&[DAC_OVERRIDE]);
    }
    held & keep
}

/// The set of these capabilities.
pub fn bits(capabilities: &[u32]) -> u64 {
    capabilities.iter().fold(0, |set, cap| set | 1 << cap)
}

/// Gives up all capabilities but [`to_keep`], for the calling thread and every thread that it starts later,
/// and sets no_new_privs, so that no executed program can regain any. Then it gives up the system calls
/// that are no longer needed ([`seccomp::confine`]).
///
/// # Errors
/// The errors of prctl(2), capset(2) and seccomp(2), which a seccomp filter may forbid.
pub fn give_up(needed: StillNeeded) -> io::Result<()> {
    confine_to(to_keep(held()?, needed.elsewhere), needed)
}

fn confine_to(set: u64, needed: StillNeeded) -> io::Result<()> {
    // SAFETY: PR_SET_NO_NEW_PRIVS takes four numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    hold(set)?;
    seccomp::confine(needed)
}

/// The subset of `held` that a thread needs which reads rules of the packet filter and nothing else.
pub fn to_keep_for_rules(held: u64, elsewhere: bool) -> u64 {
    let mut keep = bits(&[NET_ADMIN]);
    // The list of tables of x_tables is root's.
    keep |= match held >> DAC_READ_SEARCH & 1 {
        1 => bits(&[DAC_READ_SEARCH]),
        _ => bits(&[DAC_OVERRIDE]),
    };
    if elsewhere {
        keep |= bits(&[SYS_ADMIN]);
    }
    held & keep
}

/// As [`give_up`], for a thread that reads rules of the packet filter: it keeps [`to_keep_for_rules`].
///
/// # Errors
/// As [`give_up`].
pub fn give_up_but_rules(elsewhere: bool) -> io::Result<()> {
    let needed = StillNeeded {
        elsewhere,
        connects: false,
    };
    confine_to(to_keep_for_rules(held()?, elsewhere), needed)
}

/// The calling thread's permitted capabilities.
///
/// # Errors
/// The error of capget(2).
pub fn held() -> io::Result<u64> {
    let header = CapHeader {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: both are alive for the call, and this version writes two words of each set.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// Gives up all capabilities of the calling thread, for good.
///
/// # Errors
/// The errors of capset(2).
pub fn give_up_all_here() -> io::Result<()> {
    hold(0)
}

/// Runs `work` with the caller's own rights, on a thread of its own where the file's capabilities (setcap) are more than
/// those.
///
/// # Errors
/// The thread cannot be made, or capset(2).
pub fn as_the_caller<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    // SAFETY: getauxval() takes a number. AT_SECURE is 1 where execve() raised the privileges.
    match unsafe { libc::getauxval(libc::AT_SECURE) } {
        0 => Ok(work()),
        _ => without_capabilities(work),
    }
}

/// Runs `work` on a thread that has none.
///
/// # Errors
/// As for [`as_the_caller`].
pub fn without_capabilities<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let done = thread::on_its_own("caller", || {
        give_up_all_here()?;
        Ok(work())
    });
    done.flatten()
}

/// Sets exactly these; none is inheritable, so none is ambient.
fn hold(set: u64) -> io::Result<()> {
    let header = CapHeader {
        version: VERSION_3,
        pid: 0,
    };
    let word = |set: u64| CapData {
        effective: set as u32,
        permitted: set as u32,
        inheritable: 0,
    };
    let data = [word(set), word(set >> 32)];
    // SAFETY: both are alive for the call, and this version reads two words of each set.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    #[test]
    fn what_is_kept() {
        let always = bits(&[BPF, NET_RAW, SYS_PTRACE, DAC_READ_SEARCH]);
        assert_eq!(to_keep(ALL, false), always);
        assert_eq!(to_keep(ALL, true), always | 1 << SYS_ADMIN);
        // A replacement is kept where the other is not held.
        let old_root = ALL & !bits(&[BPF, PERFMON, DAC_READ_SEARCH]);
        let instead = bits(&[NET_RAW, SYS_PTRACE, SYS_ADMIN, DAC_OVERRIDE]);
        assert_eq!(to_keep(old_root, false), instead);
        // Nothing is kept that was not there.
        assert_eq!(to_keep(bits(&[BPF, PERFMON]), true), bits(&[BPF]));
        assert_eq!(to_keep(0, true), 0);
    }

    #[test]
    fn the_thread_that_reads_rules_keeps_what_it_needs_for_that() {
        let own = bits(&[NET_ADMIN, DAC_READ_SEARCH]);
        assert_eq!(to_keep_for_rules(ALL, false), own);
        assert_eq!(to_keep_for_rules(ALL, true), own | 1 << SYS_ADMIN);
        let old = ALL & !bits(&[DAC_READ_SEARCH]);
        assert_eq!(
            to_keep_for_rules(old, false),
            bits(&[NET_ADMIN, DAC_OVERRIDE])
        );
        assert_eq!(to_keep_for_rules(bits(&[BPF, NET_RAW]), true), 0);
        // No other thread of a run keeps it.
        assert_eq!(to_keep(ALL, true) & bits(&[NET_ADMIN]), 0);
    }

    #[test]
    fn a_thread_and_its_threads_keep_less_and_the_others_what_they_had() {
        let sets = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let wanted = [
                "CapInh:",
                "CapPrm:",
                "CapEff:",
                "CapAmb:",
                "NoNewPrivs:",
                "Seccomp:",
            ];
            wanted.map(|name| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
            })
        };
        let before = sets();
        let kept = to_keep(before[1], true);
        let after = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let needed = StillNeeded {
                    elsewhere: true,
                    connects: false,
                };
                give_up(needed).unwrap();
                assert_eq!(held().unwrap(), kept);
                std::thread::scope(|inner| inner.spawn(sets).join()).unwrap()
            });
            thread.join().unwrap()
        });
        assert_eq!(after, [0, kept, kept, 0, 1, 2]);
        assert_eq!(sets(), before);
    }
}
