//! What a run gives up once its programs are attached. It reads what strangers' processes and packets
//! say, and needs for that far less than it was started with.
//!
//! Capabilities are a thread's, and a new thread has those of the one that made it: to be called before
//! any other thread is begun. docs/privileges.md says what each is for, and a test that each is needed.

use std::io;

use crate::sys::seccomp;

/// A capability's bit (include/uapi/linux/capability.h).
pub const DAC_OVERRIDE: u32 = 1;
/// Files and directories of others; opening a cgroup by its number.
pub const DAC_READ_SEARCH: u32 = 2;
/// Raw sockets, to which ICMP errors come.
pub const NET_RAW: u32 = 13;
/// Other processes' `/proc/PID/ns` and `/proc/PID/fd`.
pub const SYS_PTRACE: u32 = 19;
/// Entering another network namespace.
pub const SYS_ADMIN: u32 = 21;
/// Places in the kernel by name, where it hides its addresses. To begin with only.
pub const SYSLOG: u32 = 34;
/// Loading programs that trace. To begin with only.
pub const PERFMON: u32 = 38;
/// Loading programs and maps. Kept: older kernels may ask for it to read a map or attach a program again.
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

/// Of what is `held`, what a run needs to the end; `elsewhere`: in other network namespaces too.
pub fn to_keep(held: u64, elsewhere: bool) -> u64 {
    let has = |cap: u32| held >> cap & 1 == 1;
    let mut keep = bits(&[BPF, NET_RAW, SYS_PTRACE, DAC_READ_SEARCH]);
    // It stands for CAP_BPF where that is not there.
    if elsewhere || !has(BPF) {
        keep |= bits(&[SYS_ADMIN]);
    }
    // Likewise, for reading.
    if !has(DAC_READ_SEARCH) {
        keep |= bits(&[DAC_OVERRIDE]);
    }
    held & keep
}

/// A set of these.
pub fn bits(capabilities: &[u32]) -> u64 {
    capabilities.iter().fold(0, |set, cap| set | 1 << cap)
}

/// Gives up all but [`to_keep`], for the calling thread and every thread that it begins from now on,
/// and the way to get any back: no program that is executed may give more. Then the system calls that
/// are of no use any more ([`seccomp::confine`]).
///
/// # Errors
/// Those of prctl(2), capset(2) and seccomp(2), which a seccomp filter may forbid.
pub fn give_up(elsewhere: bool) -> io::Result<()> {
    // SAFETY: PR_SET_NO_NEW_PRIVS takes four numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    hold(to_keep(held()?, elsewhere))?;
    seccomp::confine(elsewhere)
}

/// The calling thread's permitted capabilities.
///
/// # Errors
/// Those of capget(2).
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

/// Holds these and no others; none is inheritable, and so none is ambient.
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
        // What stands for another stays in its place.
        let old_root = ALL & !bits(&[BPF, PERFMON, DAC_READ_SEARCH]);
        let instead = bits(&[NET_RAW, SYS_PTRACE, SYS_ADMIN, DAC_OVERRIDE]);
        assert_eq!(to_keep(old_root, false), instead);
        // Nothing is kept that was not there.
        assert_eq!(to_keep(bits(&[BPF, PERFMON]), true), bits(&[BPF]));
        assert_eq!(to_keep(0, true), 0);
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
                give_up(true).unwrap();
                assert_eq!(held().unwrap(), kept);
                std::thread::scope(|inner| inner.spawn(sets).join()).unwrap()
            });
            thread.join().unwrap()
        });
        assert_eq!(after, [0, kept, kept, 0, 1, 2]);
        assert_eq!(sets(), before);
    }
}
