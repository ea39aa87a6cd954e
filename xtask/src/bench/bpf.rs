//! Names, run counts and run time of eBPF programs, as the kernel has them.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_ENABLE_STATS: libc::c_int = 32;

/// Program types that run on events: kprobe, tracepoint, raw tracepoint (plain and writable), tracing.
const TRACING: [u32; 5] = [2, 5, 17, 24, 26];

/// `struct bpf_prog_info` up to `run_cnt`; members that are not read have no names.
#[repr(C)]
#[derive(Default)]
struct RawProgInfo {
    kind: u32,
    id: u32,
    unread: [u64; 7],
    name: [u8; 16],
    unread_too: [u64; 14],
    run_time_ns: u64,
    run_cnt: u64,
}

const _: () = assert!(std::mem::offset_of!(RawProgInfo, name) == 64);
const _: () = assert!(std::mem::offset_of!(RawProgInfo, run_time_ns) == 192);
const _: () = assert!(std::mem::offset_of!(RawProgInfo, run_cnt) == 200);

/// The part of `union bpf_attr` used here.
#[repr(C)]
#[derive(Default)]
struct ProgQueryAttr {
    first: u32,
    second: u32,
    third: u64,
}

/// Counters of a program.
#[derive(Clone, Debug)]
pub struct ProgramStats {
    /// Its name, truncated by the kernel to 15 bytes.
    pub name: String,
    /// Whether it runs on events.
    pub tracing: bool,
    /// Run time while statistics were on, nanoseconds.
    pub run_ns: u64,
    /// Runs while statistics were on.
    pub runs: u64,
}

/// Turns on run-time statistics (as `kernel.bpf_stats_enabled` does) for as long as the descriptor is
/// open. The kernel restores the setting however this process ends.
///
/// # Errors
///
/// Before Linux 5.8, and without the privilege.
pub fn count_run_time() -> io::Result<OwnedFd> {
    // `first` is BPF_STATS_RUN_TIME, which is 0.
    let fd = bpf(BPF_ENABLE_STATS, &mut ProgQueryAttr::default())?;
    // SAFETY: the kernel has just returned it to this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ids of all programs in this kernel.
///
/// # Errors
///
/// Without the privilege.
pub fn ids() -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut attr = ProgQueryAttr::default();
    loop {
        match bpf(BPF_PROG_GET_NEXT_ID, &mut attr) {
            Ok(_) => {
                ids.push(attr.second);
                attr.first = attr.second;
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(ids),
            Err(error) => return Err(error),
        }
    }
}

/// Reads the counters of a program.
///
/// # Errors
///
/// When the program is gone.
pub fn program(id: u32) -> io::Result<ProgramStats> {
    let by_id = &mut ProgQueryAttr {
        first: id,
        ..ProgQueryAttr::default()
    };
    // SAFETY: the kernel has just returned it to this process.
    let fd = unsafe { OwnedFd::from_raw_fd(bpf(BPF_PROG_GET_FD_BY_ID, by_id)?) };
    let mut info = RawProgInfo::default();
    let by_fd = &mut ProgQueryAttr {
        first: fd.as_raw_fd().cast_unsigned(),
        second: u32::try_from(size_of::<RawProgInfo>()).unwrap_or(0),
        third: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, by_fd)?;
    let name = info.name.split(|b| *b == 0).next().unwrap_or_default();
    Ok(ProgramStats {
        name: String::from_utf8_lossy(name).into_owned(),
        tracing: TRACING.contains(&info.kind),
        run_ns: info.run_time_ns,
        runs: info.run_cnt,
    })
}

fn bpf(command: libc::c_int, attr: &mut ProgQueryAttr) -> io::Result<libc::c_int> {
    // SAFETY: the attribute is live and of the size given, and what its `third` points to, where the
    // command reads it, is a live RawProgInfo of the size in `second`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<ProgQueryAttr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn the_kernel_answers() {
        let _on = count_run_time().expect("statistics");
        for id in ids().expect("ids") {
            // Another process's program may go at any time.
            if let Ok(program) = program(id) {
                assert!(program.name.len() < 16);
            }
        }
    }
}
