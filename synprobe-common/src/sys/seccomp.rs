//! System calls that a run no longer needs once its programs are attached, and that an attacker would use
//! first. docs/privileges.md lists them.
//!
//! The list has what is refused, not what is allowed. The calls of libc and the async runtime change with
//! their versions, and an incomplete list of allowed calls would end the agent when it is needed. A
//! refused call fails with EPERM, as if a privilege were missing.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// Refused with any arguments.
const NEVER: &[libc::c_long] = &[
    // Other programs, and other processes' memory and descriptors.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // A socket that others can reach: the one of `serve` listens by now.
    libc::SYS_listen,
    // The tree of files, and namespaces of its own.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_mknodat,
    // The kernel itself, and the host.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // Calls that help to exploit kernel bugs.
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
    // io_uring performs other calls without passing the filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
];

/// The crate has no number for musl on arm64; include/uapi/asm-generic/unistd.h has it.
#[cfg(target_arch = "aarch64")]
const KEXEC_FILE_LOAD: libc::c_long = 294;
#[cfg(not(target_arch = "aarch64"))]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;

/// Calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[libc::c_long] = &[];

/// `enum bpf_cmd` (include/uapi/linux/bpf.h): new programs and maps, those of other processes, and pins
/// that outlive the process. Reading maps and attaching loaded programs stay allowed.
const BPF_COMMANDS: &[u64] = &[
    0,  // BPF_MAP_CREATE
    5,  // BPF_PROG_LOAD
    6,  // BPF_OBJ_PIN
    7,  // BPF_OBJ_GET
    8,  // BPF_PROG_ATTACH
    10, // BPF_PROG_TEST_RUN
    13, // BPF_PROG_GET_FD_BY_ID
    14, // BPF_MAP_GET_FD_BY_ID
    18, // BPF_BTF_LOAD
    30, // BPF_LINK_GET_FD_BY_ID
];

/// The allowed socket families. A packet socket could read other processes' traffic.
const FAMILIES: &[libc::c_int] = &[
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// `SOCK_TYPE_MASK` (include/linux/net.h): the rest of the argument are flags.
const SOCK_TYPE_MASK: u64 = 0xf;

/// What a run still does once it is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StillNeeded {
    /// It enters other network namespaces.
    pub elsewhere: bool,
    /// It makes TCP connections.
    pub connects: bool,
}

/// Applies to the calling thread and every thread that it starts later.
///
/// # Errors
///
/// The kernel has no seccomp filters, or an existing one forbids more.
pub fn confine(needed: StillNeeded) -> io::Result<()> {
    let Some(arch) = arch() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let programs = [refused(needed, arch), not_there(arch)];
    for program in programs {
        let program = program.map_err(io::Error::other)?;
        apply_filter(&program).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
            other => io::Error::other(other),
        })?;
    }
    Ok(())
}

/// `None`: the filters are not tested on this architecture.
fn arch() -> Option<TargetArch> {
    std::env::consts::ARCH.try_into().ok()
}

fn refused(needed: StillNeeded, arch: TargetArch) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in NEVER.iter().chain(NEVER_HERE) {
        rules.insert(*call, Vec::new());
    }
    let commands = BPF_COMMANDS.iter().map(|command| {
        let is = argument(0, SeccompCmpOp::Eq, *command)?;
        SeccompRule::new(vec![is])
    });
    rules.insert(libc::SYS_bpf, commands.collect::<Result<_, _>>()?);
    let others = FAMILIES
        .iter()
        .map(|family| argument(0, SeccompCmpOp::Ne, *family as u64));
    let mut sockets = vec![SeccompRule::new(others.collect::<Result<_, _>>()?)?];
    if !needed.connects {
        // Of the two families that have it, TCP alone is a stream. The flags are in the same argument.
        for family in [libc::AF_INET, libc::AF_INET6] {
            let stream = SeccompCmpOp::MaskedEq(SOCK_TYPE_MASK);
            sockets.push(SeccompRule::new(vec![
                argument(0, SeccompCmpOp::Eq, family as u64)?,
                argument(1, stream, libc::SOCK_STREAM as u64)?,
            ])?);
        }
    }
    rules.insert(libc::SYS_socket, sockets);
    // Threads only. CLONE_THREAD excludes new user and pid namespaces.
    let thread = libc::CLONE_THREAD as u64;
    let process = argument(0, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![process])?]);
    let of_another_kind = match needed.elsewhere {
        true => {
            let kind = argument(1, SeccompCmpOp::Ne, libc::CLONE_NEWNET as u64)?;
            vec![SeccompRule::new(vec![kind])?]
        }
        false => Vec::new(),
    };
    rules.insert(libc::SYS_setns, of_another_kind);
    #[cfg(target_arch = "x86_64")]
    close_x32(&mut rules);
    let errno = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, errno, arch)?.try_into()
}

/// The same calls by x32 numbers, which some kernels still accept from 64-bit programs.
#[cfg(target_arch = "x86_64")]
fn close_x32(rules: &mut BTreeMap<i64, Vec<SeccompRule>>) {
    const X32: i64 = 0x4000_0000;
    // Calls with a different number in x32: execve, ptrace, kexec_load, process_vm_readv and _writev,
    // execveat (arch/x86/entry/syscalls/syscall_64.tbl).
    const OWN: [i64; 6] = [520, 521, 528, 539, 540, 545];
    let same: Vec<_> = rules
        .iter()
        .map(|(call, when)| (call | X32, when.clone()))
        .collect();
    rules.extend(same);
    rules.extend(OWN.map(|call| (call | X32, Vec::new())));
}

/// The flags of clone3 are behind a pointer, which no filter can read. It returns ENOSYS, so that libc uses
/// clone.
fn not_there(arch: TargetArch) -> Result<BpfProgram, BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let errno = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, errno, arch)?.try_into()
}

/// All arguments are ints, so the upper half of the register is ignored.
fn argument(
    number: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(number, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_filters_for_what_we_build_for() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for (elsewhere, connects) in [(false, true), (true, false)] {
                let needed = StillNeeded {
                    elsewhere,
                    connects,
                };
                assert!(refused(needed, arch).is_ok());
            }
            assert!(not_there(arch).is_ok());
        }
        assert!(arch().is_some());
    }
}
