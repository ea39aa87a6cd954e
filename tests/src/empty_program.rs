//! An empty program on a tracepoint: the lower bound of the cost of any program there.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

// include/uapi/linux/bpf.h.
const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
/// r0 = 0; exit.
static PROGRAM: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The first fields of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct ProgLoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: *const [u8; 8],
    license: *const libc::c_char,
}

/// The first fields of `union bpf_attr` for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct RawTracepointOpenAttr {
    name: *const libc::c_char,
    prog_fd: u32,
    padding: u32,
}

/// An attached program; dropping it detaches it.
pub struct EmptyProgram(#[expect(dead_code, reason = "closing it detaches")] OwnedFd);

impl EmptyProgram {
    /// Attaches the program to a raw tracepoint.
    ///
    /// # Errors
    ///
    /// The error of bpf(2).
    pub fn attach(tracepoint: &CStr) -> io::Result<Self> {
        let load = ProgLoadAttr {
            prog_type: PROG_TYPE_RAW_TRACEPOINT,
            insn_cnt: PROGRAM.len() as u32,
            insns: PROGRAM.as_ptr(),
            license: c"GPL".as_ptr(),
        };
        let program = bpf(PROG_LOAD, &load)?;
        let open = RawTracepointOpenAttr {
            name: tracepoint.as_ptr(),
            prog_fd: program.as_raw_fd().cast_unsigned(),
            padding: 0,
        };
        // The link holds the program.
        bpf(RAW_TRACEPOINT_OPEN, &open).map(Self)
    }
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are alive and their length is their own; what they point to is alive too.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor, which has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}
