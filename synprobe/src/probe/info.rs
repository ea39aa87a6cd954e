//! What aya does not expose about a loaded program.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `BPF_OBJ_GET_INFO_BY_FD` (include/uapi/linux/bpf.h).
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// The head of `struct bpf_prog_info`, as far as it is read: fixed by the kernel's ABI, never
/// reordered. The kernel fills in as much of it as it knows.
#[repr(C)]
struct ProgInfo {
    /// Everything up to `run_cnt`.
    before: [u64; 25],
    /// `run_cnt`: runs, while `kernel.bpf_stats_enabled` is on.
    run_cnt: u64,
    /// `recursion_misses` (Linux 5.12, for raw tracepoints 6.1): how often the program was skipped
    /// because it was already running on that CPU.
    recursion_misses: u64,
}

const _: () = assert!(std::mem::offset_of!(ProgInfo, recursion_misses) == 208);

/// `union bpf_attr` for [`OBJ_GET_INFO_BY_FD`].
#[repr(C)]
struct ObjectInfoAttr {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// How often a program ran (0 unless `kernel.bpf_stats_enabled`), and how often the kernel skipped it
/// because it was already running on that CPU; `None` on a kernel that does not count it (before 5.12).
pub fn runs_and_misses(program: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let mut info = ProgInfo {
        before: [0; 25],
        run_cnt: 0,
        recursion_misses: 0,
    };
    let mut attr = ObjectInfoAttr {
        fd: program.as_raw_fd() as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info` and updates `attr`; both outlive
    // the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET_INFO_BY_FD,
            &raw mut attr,
            size_of::<ObjectInfoAttr>(),
        )
    };
    (result == 0 && attr.info_len as usize == size_of::<ProgInfo>())
        .then_some((info.run_cnt, info.recursion_misses))
}
