//! Netlink sockets: opening, and reading one datagram at a time.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{
    buffers::Scratch,
    netlink::{NetlinkMessage, NetlinkMessages},
};

/// SO_RCVBUF, bytes: lets the kernel work ahead of the reader.
static RCVBUF: libc::c_int = 1 << 20;
/// The kernel answers within send() and recv(): no answer for this many seconds is an error.
const TIMEOUT_S: i32 = 5;

/// The first value that `take` makes of the messages with this number, the answers to one request.
///
/// # Errors
/// Those of `take` and of [`receive`]; InvalidData: a malformed message.
pub(super) fn answer<T>(
    fd: &OwnedFd,
    seq: u32,
    mut take: impl FnMut(&NetlinkMessage<'_>) -> io::Result<Option<T>>,
) -> io::Result<T> {
    let mut scratch = Scratch::take();
    loop {
        let datagram = receive(fd, &mut scratch, 0)?;
        for message in NetlinkMessages::new(datagram) {
            let message = message.map_err(invalid)?;
            if message.seq == seq
                && let Some(taken) = take(&message)?
            {
                return Ok(taken);
            }
        }
    }
}

/// Sends one request.
pub(super) fn send(fd: &OwnedFd, request: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer is alive and its length is its own.
    let sent = unsafe {
        libc::send(
            fd.as_raw_fd(),
            request.as_ptr().cast(),
            request.len(),
            libc::MSG_NOSIGNAL,
        )
    };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives one datagram. TimedOut: there is none; InvalidData: it does not fit.
pub(super) fn receive<'a>(
    fd: &OwnedFd,
    buffer: &'a mut [u8],
    flags: libc::c_int,
) -> io::Result<&'a [u8]> {
    let received = loop {
        // SAFETY: the pointer and the length are of one live slice. MSG_TRUNC makes the result the
        // datagram's true length; no more than the slice's is written.
        let received = unsafe {
            libc::recv(
                fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags | libc::MSG_TRUNC,
            )
        };
        if let Ok(received) = usize::try_from(received) {
            break received;
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the kernel did not answer",
                ));
            }
            _ => return Err(error),
        }
    };
    let room = buffer.len();
    buffer
        .get(..received)
        .ok_or_else(|| invalid(format!("the kernel sent {received} bytes, {room} fit")))
}

/// Opens a sock_diag socket in the calling thread's namespace.
pub(super) fn open_socket() -> io::Result<OwnedFd> {
    open_netlink(libc::NETLINK_SOCK_DIAG)
}

/// Opens a netlink socket of that protocol in the calling thread's namespace.
pub(super) fn open_netlink(protocol: libc::c_int) -> io::Result<OwnedFd> {
    let check = |result: libc::c_int| match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: no memory is involved.
    let raw = check(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol,
        )
    })?;
    // SAFETY: it was just opened, and nothing else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let timeout = libc::timeval {
        tv_sec: TIMEOUT_S.into(),
        tv_usec: 0,
    };
    // SAFETY: each option is read from a live value of the size given.
    check(unsafe {
        libc::setsockopt(
            raw,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    })?;
    // SAFETY: as above. A smaller buffer than asked for (net.core.rmem_max) will do.
    check(unsafe {
        libc::setsockopt(
            raw,
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const RCVBUF).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    // SAFETY: sockaddr_nl is plain integers; all zero is the kernel's own address but for family.
    let mut kernel: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    // Connected to the kernel, it receives nothing from other processes, which could forge rows.
    // SAFETY: the address is read from a live value of the size given.
    check(unsafe {
        libc::connect(
            raw,
            (&raw const kernel).cast(),
            size_of::<libc::sockaddr_nl>() as libc::socklen_t,
        )
    })?;
    Ok(fd)
}

/// A malformed answer.
pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
