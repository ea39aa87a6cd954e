//! An AF_PACKET socket on one end of the lab's link, with the kernel's time stamps.

use std::{
    ffi::CString,
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use synprobe_common::sys::{poll, sockopts::set_option};

use crate::{net::INTERFACE, ns::Ns};

/// Large enough for everything that the lab sends before a thread reads it.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;

/// A received frame.
pub(super) struct CapturedFrame<'a> {
    /// When the kernel processed it, CLOCK_MONOTONIC, nanoseconds.
    pub(super) mono_ns: u64,
    /// True for egress, false for ingress.
    pub(super) outgoing: bool,
    pub(super) bytes: &'a [u8],
}

pub(super) struct PacketSocket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// Opens one on the lab's interface in `ns` (needs CAP_NET_RAW).
    pub(super) fn open(ns: &Ns) -> Result<Self> {
        ns.run(|| {
            let protocol = (libc::ETH_P_ALL as u16).to_be();
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // With protocol 0 it receives nothing until bind() names the interface.
            // SAFETY: socket() takes no pointers.
            let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error())
                    .context("a packet socket (needs CAP_NET_RAW)");
            }
            // SAFETY: the descriptor was just made and belongs to nobody else.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            enable_time_stamps(&fd)?;
            wait_for_time_stamping()?;
            set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER)?;
            let name = CString::new(INTERFACE)?;
            // SAFETY: all-zero bytes are a valid sockaddr_ll.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            // SAFETY: the name is a live NUL-terminated string.
            address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
            // SAFETY: the address is alive and its length is its own size.
            let bound = unsafe {
                libc::bind(
                    fd.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of_val(&address) as libc::socklen_t,
                )
            };
            if bound != 0 {
                return Err(io::Error::last_os_error()).context("binding a packet socket");
            }
            Ok(Self {
                fd,
                buffer: vec![0; 2048],
            })
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends a frame. Returns the time just before, CLOCK_MONOTONIC nanoseconds.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<u64> {
        let now = now_ns(libc::CLOCK_MONOTONIC);
        // SAFETY: the frame is alive and its length is its own.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(now)
    }

    /// The next frame; `None` when there is none yet.
    pub(super) fn receive(&mut self) -> io::Result<Option<CapturedFrame<'_>>> {
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        // u64s, so that the control messages are aligned.
        let mut control = [0u64; 16];
        let mut part = libc::iovec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // SAFETY: all-zero bytes are a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of_val(&from) as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: all that the message points to is alive, with its own lengths.
        let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        if got < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        let realtime = time_stamp(&message).unwrap_or_else(|| now_ns(libc::CLOCK_REALTIME));
        Ok(Some(CapturedFrame {
            mono_ns: realtime.wrapping_sub(realtime_ahead_ns()),
            outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
            bytes: &self.buffer[..(got as usize).min(self.buffer.len())],
        }))
    }

    /// Frames dropped at a full receive buffer since the last call.
    pub(super) fn missed(&self) -> io::Result<u32> {
        let mut statistics = [0u32; 2];
        let mut len = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the array is alive and `len` is its size; tpacket_stats is two u32.
        let got = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        match got {
            0 => Ok(statistics[1]),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn enable_time_stamps(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)
}

/// The kernel must start time stamping within this time.
const STAMPING_DEADLINE: Duration = Duration::from_secs(5);

/// A datagram on loopback that has not arrived after this time is lost: it normally arrives within the
/// call, or when ksoftirqd runs.
const LOST_AFTER: Duration = Duration::from_millis(250);

/// Waits until the kernel stamps packets on arrival. The first socket that requests time stamps enables
/// this by deferred work (`net_enable_timestamp`). Until then a packet gets the time of its read
/// (`__sock_recv_timestamp`). Needs the loopback device to be up.
///
/// A datagram may be lost: loopback and veth of all namespaces share one queue for each CPU
/// (`enqueue_to_backlog`, `net.core.netdev_max_backlog`). A flood in any namespace fills it for all
/// (`/proc/net/softnet_stat`, second column). In that case another datagram is sent.
fn wait_for_time_stamping() -> Result<()> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a socket on loopback")?;
    enable_time_stamps(&receiver)?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a socket on loopback")?;
    sender.connect(receiver.local_addr()?)?;
    let began = Instant::now();
    while began.elapsed() < STAMPING_DEADLINE {
        sender.send(&[0])?;
        let sent_ns = now_ns(libc::CLOCK_REALTIME);
        // Wait for the clock to advance, so that the two times differ.
        while now_ns(libc::CLOCK_REALTIME) == sent_ns {}
        if !poll::readable(&receiver, Instant::now() + LOST_AFTER)? {
            continue;
        }
        let mut control = [0u64; 16];
        // SAFETY: all-zero bytes are a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: all that the message points to is alive, with its own length.
        if unsafe { libc::recvmsg(receiver.as_raw_fd(), &raw mut message, 0) } < 0 {
            return Err(io::Error::last_os_error()).context("a datagram on loopback");
        }
        if time_stamp(&message).context("a datagram without a time stamp")? <= sent_ns {
            return Ok(());
        }
    }
    bail!(
        "no datagram on loopback was time-stamped on arrival within {STAMPING_DEADLINE:?}: loopback is \
         down, or loses every datagram, or the kernel does not stamp packets yet"
    )
}

fn time_stamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: the message was filled by recvmsg() and its control buffer is alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: it is not null, so it points to a whole header inside the control buffer.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_TIMESTAMPNS {
            // SAFETY: such a message carries a timespec; it may be unaligned.
            let time: libc::timespec =
                unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(header).cast()) };
            return Some(nanoseconds(time));
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, from the shortest of three readings.
fn realtime_ahead_ns() -> u64 {
    (0..3)
        .map(|_| {
            let before = now_ns(libc::CLOCK_MONOTONIC);
            let realtime = now_ns(libc::CLOCK_REALTIME);
            let after = now_ns(libc::CLOCK_MONOTONIC);
            let taken = after.wrapping_sub(before);
            (taken, realtime.wrapping_sub(before + taken / 2))
        })
        .min()
        .map_or(0, |(_, ahead)| ahead)
}

pub(super) fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the timespec is alive. These clocks always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    nanoseconds(time)
}

fn nanoseconds(time: libc::timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
