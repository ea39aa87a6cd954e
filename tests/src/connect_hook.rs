//! A program in a cgroup of its own that rewrites the destination of connect(), as service load balancers do.

use std::{
    fs::{self, File},
    io,
    net::SocketAddrV4,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    process,
};

use anyhow::{Context, Result};

use crate::harness::Undecided;

// include/uapi/linux/bpf.h.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const CGROUP_INET4_CONNECT: u32 = 10;
/// `struct bpf_sock_addr`: `user_ip4` and `user_port`, both in network order.
const USER_IP4: i16 = 4;
const USER_PORT: i16 = 24;

/// The first fields of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct ProgLoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: *const [u8; 8],
    license: *const libc::c_char,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The first fields of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct ProgAttachAttr {
    target_fd: u32,
    prog_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// A cgroup with the program; dropping it removes both.
pub struct ConnectHook {
    folder: PathBuf,
    /// Writing `0` to it moves the writer into the cgroup.
    pub procs: File,
}

impl ConnectHook {
    /// Connections of the cgroup to `from` go to `to`.
    ///
    /// # Errors
    ///
    /// [`Undecided`] where the host has no cgroup v2 or refuses the program; else the error of the file system.
    pub fn new(from: SocketAddrV4, to: SocketAddrV4) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = fields.next()?;
            (fields.next()? == "cgroup2").then_some(path)
        });
        let Some(mount) = mount else {
            return Err(Undecided("no cgroup v2 is mounted".to_owned()).into());
        };
        let folder = PathBuf::from(mount).join(format!("synprobe-test-{}", process::id()));
        fs::create_dir(&folder).context("a cgroup")?;
        let procs = File::options()
            .write(true)
            .open(folder.join("cgroup.procs"))
            .context("its cgroup.procs")?;
        let hook = Self { folder, procs };
        let folder = File::open(&hook.folder).context("the cgroup")?;
        attach(&folder, &program(from, to))
            .map_err(|error| Undecided(format!("the host refuses the program: {error}")))?;
        Ok(hook)
    }
}

impl Drop for ConnectHook {
    fn drop(&mut self) {
        // The program goes with the cgroup.
        let _ = fs::remove_dir(&self.folder);
    }
}

fn insn(op: u8, registers: u8, off: i16, imm: u32) -> [u8; 8] {
    let ([o0, o1], [i0, i1, i2, i3]) = (off.to_ne_bytes(), imm.to_ne_bytes());
    [op, registers, o0, o1, i0, i1, i2, i3]
}

/// r0 = 1; if the context (r1) has `from`, store `to` in it.
fn program(from: SocketAddrV4, to: SocketAddrV4) -> [[u8; 8]; 12] {
    let ip = |addr: SocketAddrV4| u32::from_ne_bytes(addr.ip().octets());
    let port = |addr: SocketAddrV4| u32::from(addr.port().to_be());
    [
        // r0 = 1
        insn(0xb7, 0x00, 0, 1),
        // r2 = user_ip4
        insn(0x61, 0x12, USER_IP4, 0),
        // w3 = from
        insn(0xb4, 0x03, 0, ip(from)),
        // if w2 != w3 goto the end
        insn(0x5e, 0x32, 7, 0),
        // r2 = user_port
        insn(0x61, 0x12, USER_PORT, 0),
        // w3 = from
        insn(0xb4, 0x03, 0, port(from)),
        // if w2 != w3 goto the end
        insn(0x5e, 0x32, 4, 0),
        // user_ip4 = to
        insn(0xb4, 0x03, 0, ip(to)),
        insn(0x63, 0x31, USER_IP4, 0),
        // user_port = to
        insn(0xb4, 0x03, 0, port(to)),
        insn(0x63, 0x31, USER_PORT, 0),
        // exit
        insn(0x95, 0x00, 0, 0),
    ]
}

fn attach(cgroup: &File, program: &[[u8; 8]]) -> io::Result<()> {
    let load = ProgLoadAttr {
        prog_type: PROG_TYPE_CGROUP_SOCK_ADDR,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr(),
        license: c"GPL".as_ptr(),
        log: [0; 2],
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type: CGROUP_INET4_CONNECT,
    };
    let loaded = bpf(PROG_LOAD, &load)?;
    // SAFETY: the descriptor is new and has no other owner.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let attach = ProgAttachAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        prog_fd: loaded.as_raw_fd().cast_unsigned(),
        attach_type: CGROUP_INET4_CONNECT,
        attach_flags: 0,
    };
    bpf(PROG_ATTACH, &attach).map(|_| ())
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are alive and their length is their own; what they point to is alive too.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    match result {
        0.. => Ok(result as libc::c_int),
        _ => Err(io::Error::last_os_error()),
    }
}
