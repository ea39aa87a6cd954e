//! System calls that succeed before a run is attached and are refused afterwards. Only the seccomp filter
//! changes in between.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::fd::AsRawFd,
    process::Command,
};

use anyhow::{Result, anyhow, ensure};
use synprobe::sys::privileges::{self, StillNeeded};

/// What a call came to; a descriptor that it gave is closed again.
fn descriptor(result: libc::c_long) -> io::Result<()> {
    let fd = libc::c_int::try_from(checked(result)?).map_err(io::Error::other)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    unsafe { libc::close(fd) };
    Ok(())
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn socket(family: libc::c_int) -> io::Result<()> {
    // SAFETY: takes three numbers.
    descriptor(unsafe { libc::socket(family, libc::SOCK_DGRAM, 0) }.into())
}

fn tcp_socket(family: libc::c_int) -> io::Result<()> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes three numbers.
    descriptor(unsafe { libc::socket(family, kind, libc::IPPROTO_TCP) }.into())
}

/// `BPF_MAP_CREATE` (include/uapi/linux/bpf.h): an array of one number. CAP_BPF is kept.
fn new_map() -> io::Result<()> {
    // The head of union bpf_attr for it: type, size of key and value, entries, flags.
    let attr: [u32; 5] = [2, 4, 8, 1, 0];
    // SAFETY: the attributes are alive and their length is their own.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, 0, attr.as_ptr(), size_of_val(&attr)) })
}

/// A descriptor of this very process, by way of its pidfd.
fn own_descriptor() -> io::Result<()> {
    // SAFETY: both take numbers.
    unsafe {
        let pidfd = checked(libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0))?;
        let got = descriptor(libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0));
        libc::close(pidfd as libc::c_int);
        got
    }
}

/// A word of its own memory, the way one reads another process's.
fn own_memory() -> io::Result<()> {
    let (from, mut to) = (7u64, 0u64);
    let of = |at: *mut libc::c_void| libc::iovec {
        iov_base: at,
        iov_len: size_of::<u64>(),
    };
    let remote = of((&raw const from).cast_mut().cast());
    let local = of((&raw mut to).cast());
    // SAFETY: both vectors are alive, and so is what they point to.
    let read = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    checked(read as libc::c_long).map(drop)
}

fn own_table_of_files() -> io::Result<()> {
    // SAFETY: takes a number; this thread shares no descriptors by number with others afterwards.
    checked(unsafe { libc::unshare(libc::CLONE_FILES) }.into()).map(drop)
}

/// It is there and no program: found out only by whoever may try.
fn execute() -> io::Result<()> {
    let (path, none) = (c"/proc/version", [std::ptr::null::<libc::c_char>()]);
    // SAFETY: the strings are alive, and both lists end with null.
    let done = unsafe { libc::execve(path.as_ptr(), none.as_ptr(), none.as_ptr()) };
    match checked(done.into()) {
        // Permission to execute is another errno's.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        other => other.map(drop),
    }
}

/// A process begins before it executes anything.
fn new_process() -> io::Result<()> {
    match Command::new("/proc/version").status() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        other => other.map(drop),
    }
}

fn enter(path: &str, kind: libc::c_int) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: takes a descriptor that is alive, and a number.
    checked(unsafe { libc::setns(file.as_raw_fd(), kind) }.into()).map(drop)
}

/// A socket that another process could connect to.
fn listener() -> io::Result<()> {
    std::net::TcpListener::bind("127.0.0.1:0").map(drop)
}

/// One call, and whether it is granted.
type Call<'a> = (&'a str, &'a (dyn Fn() -> io::Result<()> + Sync));

pub fn refused() -> Result<()> {
    let of_packets = || socket(libc::AF_PACKET);
    let of_names = || enter("/proc/self/ns/uts", libc::CLONE_NEWUTS);
    let of_networks = || enter("/proc/self/ns/net", libc::CLONE_NEWNET);
    let never: [Call<'_>; 9] = [
        ("a packet socket", &of_packets),
        ("a new map", &new_map),
        ("a process's descriptor", &own_descriptor),
        ("a process's memory", &own_memory),
        ("listen", &listener),
        ("unshare", &own_table_of_files),
        ("execve", &execute),
        ("a new process", &new_process),
        ("another kind of namespace", &of_names),
    ];
    let (inet, netlink) = (|| socket(libc::AF_INET6), || socket(libc::AF_NETLINK));
    let always: [Call<'_>; 2] = [("a socket", &inet), ("netlink", &netlink)];
    for (elsewhere, connects) in [(true, false), (false, true)] {
        let held = || -> Result<()> {
            for (what, call) in never.iter().chain(&always) {
                ensure!(call().is_ok(), "{what}, before: {:?}", call());
            }
            privileges::give_up(StillNeeded {
                elsewhere,
                connects,
            })?;
            for (what, call) in &never {
                let kind = call().map_err(|error| error.kind());
                ensure!(kind == Err(ErrorKind::PermissionDenied), "{what}: {kind:?}");
            }
            for (what, call) in &always {
                ensure!(call().is_ok(), "{what}: {:?}", call());
            }
            ensure!(of_networks().is_ok() == elsewhere, "{:?}", of_networks());
            for family in [libc::AF_INET, libc::AF_INET6] {
                let tcp = tcp_socket(family);
                ensure!(tcp.is_ok() == connects, "a TCP socket: {tcp:?}");
            }
            // Threads begin, and are bound too.
            let inner = std::thread::scope(|scope| scope.spawn(of_packets).join());
            let inner = inner.map_err(|_| anyhow!("it panicked"))?;
            ensure!(inner.is_err(), "a thread that was begun later");
            Ok(())
        };
        // Only this thread is bound.
        let thread = std::thread::scope(|scope| scope.spawn(held).join());
        thread.map_err(|_| anyhow!("it panicked"))??;
        ensure!(of_packets().is_ok(), "the others are bound too");
    }
    Ok(())
}
