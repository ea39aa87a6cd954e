//! System calls that show what the kernel allows. Everything that they create is closed at once.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

// enum bpf_cmd, bpf_map_type, bpf_prog_type, bpf_attach_type (include/uapi/linux/bpf.h).
const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const MAP_TYPE_RINGBUF: u32 = 27;
pub(super) const SCHED_CLS: u32 = 3;
pub(super) const RAW_TRACEPOINT: u32 = 17;
const TRACING: u32 = 26;
const TRACE_FENTRY: u32 = 24;

/// `union bpf_attr` of BPF_PROG_LOAD, up to `attach_btf_id`.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// `union bpf_attr` of BPF_RAW_TRACEPOINT_OPEN, up to `prog_fd`. Without a name it attaches a program to the function
/// that it was loaded for.
#[repr(C)]
#[derive(Default)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    reserved: u32,
}

/// `union bpf_attr` of BPF_MAP_CREATE, up to `map_flags`.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// `bpf(2)` with a command that returns a descriptor.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    let size = size_of::<T>() as libc::c_long;
    // SAFETY: `attr` is valid for `size` bytes, which the kernel reads; what it points to is static
    // or outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: each command returns a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Loads `return 0` as a program of this type.
pub(super) fn load(
    prog_type: u32,
    expected_attach_type: u32,
    attach_btf_id: u32,
) -> io::Result<OwnedFd> {
    // r0 = 0; exit. Bytes, because `struct bpf_insn` has bitfields.
    static PROGRAM: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut prog_name = [0; 16];
    prog_name[..9].copy_from_slice(b"preflight");
    bpf(
        PROG_LOAD,
        &ProgLoad {
            prog_type,
            insn_cnt: PROGRAM.len() as u32,
            insns: PROGRAM.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            prog_name,
            expected_attach_type,
            attach_btf_id,
            ..ProgLoad::default()
        },
    )
}

/// Loads `return 0` for the entry of a function (its BTF id). Where the kernel may accept such a program and yet be
/// unable to attach it, attaches it too, for a moment: on arm64 before 6.4 and with CONFIG_CFI it cannot
/// (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS; register_fentry() of kernel/bpf/trampoline.c). x86-64 always can, and is
/// spared the wait for the detaching.
pub(super) fn fentry(function: u32) -> io::Result<()> {
    let program = load(TRACING, TRACE_FENTRY, function)?;
    if cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let attr = RawTracepointOpen {
        prog_fd: program.as_raw_fd() as u32,
        ..RawTracepointOpen::default()
    };
    bpf(RAW_TRACEPOINT_OPEN, &attr).map(drop)
}

/// Creates the smallest ring buffer.
pub(super) fn ring_buffer() -> io::Result<()> {
    // SAFETY: sysconf() has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let max_entries = u32::try_from(page).unwrap_or(4096);
    let attr = MapCreate {
        map_type: MAP_TYPE_RINGBUF,
        max_entries,
        ..MapCreate::default()
    };
    bpf(MAP_CREATE, &attr).map(drop)
}

/// Asks for TCP sockets with an empty set of states: the answer is empty, and comes only if `tcp_diag`
/// works.
pub(super) fn sock_diag() -> io::Result<()> {
    // include/uapi/linux/{sock_diag,inet_diag}.h
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_LEN: usize = 16 + 56;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut request = [0u8; REQUEST_LEN];
    request[..4].copy_from_slice(&(REQUEST_LEN as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[16] = libc::AF_INET as u8;
    request[17] = libc::IPPROTO_TCP as u8;

    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // The kernel answers within the send, so the receive need not wait.
    // SAFETY: the pointer is valid for the length given.
    if unsafe { libc::send(fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = [0u8; 4096];
    // SAFETY: the pointer is valid for the length given.
    let got = unsafe {
        let flags = libc::MSG_DONTWAIT;
        libc::recv(
            fd.as_raw_fd(),
            answer.as_mut_ptr().cast(),
            answer.len(),
            flags,
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    result_of(&answer[..got])
}

/// The result of a netlink request: NLMSG_ERROR and NLMSG_DONE carry an errno after the header.
fn result_of(answer: &[u8]) -> io::Result<()> {
    let kind = answer
        .get(4..6)
        .and_then(|b| b.first_chunk())
        .map(|b| u16::from_ne_bytes(*b));
    let code = answer
        .get(16..20)
        .and_then(|b| b.first_chunk())
        .map(|b| i32::from_ne_bytes(*b));
    match (kind.map(i32::from), code) {
        (None, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        (Some(libc::NLMSG_ERROR | libc::NLMSG_DONE), Some(code)) if code < 0 => {
            Err(io::Error::from_raw_os_error(code.saturating_neg()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netlink_answers() {
        let answer = |kind: i32, code: i32| {
            let mut bytes = [0u8; 20];
            bytes[4..6].copy_from_slice(&(kind as u16).to_ne_bytes());
            bytes[16..].copy_from_slice(&code.to_ne_bytes());
            result_of(&bytes).map_err(|e| e.raw_os_error())
        };
        assert_eq!(answer(libc::NLMSG_DONE, 0), Ok(()));
        assert_eq!(
            answer(libc::NLMSG_DONE, -libc::ENOENT),
            Err(Some(libc::ENOENT))
        );
        assert_eq!(
            answer(libc::NLMSG_ERROR, -libc::EPERM),
            Err(Some(libc::EPERM))
        );
        assert_eq!(answer(20, -1), Ok(()));
        assert!(result_of(&[]).is_err());
    }
}
