//! An AF_PACKET socket on one end of the lab's link, with the kernel's own time stamps.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::net::INTERFACE;
use super::ns::Ns;
use synprobe_common::sys::poll;
use synprobe_common::sys::sockopts::set_option;

/// Enough for everything that the lab sends before a thread comes round to reading it.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;

/// A frame as it was received.
pub(super) struct Frame<'a> {
    /// When the kernel handled it, CLOCK_MONOTONIC, nanoseconds.
    pub(super) mono_ns: u64,
    /// It left through the interface, and did not come in.
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
            // Protocol 0 hears nothing until bind() names the interface.
            // SAFETY: socket() takes no pointers.
            let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error())
                    .context("a packet socket (needs CAP_NET_RAW)");
            }
            // SAFETY: the descriptor was just made and belongs to nobody else.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            stamp_times(&fd)?;
            until_times_are_stamped()?;
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

    /// Sends a frame; the time just before, CLOCK_MONOTONIC.
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

    /// The next frame, or `None` when there is none yet.
    pub(super) fn receive(&mut self) -> io::Result<Option<Frame<'_>>> {
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
        Ok(Some(Frame {
            mono_ns: realtime.wrapping_sub(realtime_ahead_ns()),
            outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
            bytes: &self.buffer[..(got as usize).min(self.buffer.len())],
        }))
    }

    /// Frames that found the receive buffer full since the last call.
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

fn stamp_times(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)
}

/// How long the kernel may take to begin.
const STAMPS_BEGIN: Duration = Duration::from_secs(5);

/// A datagram on loopback that has not come by now was lost: what is sent there arrives within the
/// call, or when ksoftirqd comes round to it.
const LOST_AFTER: Duration = Duration::from_millis(250);

/// Waits until packets are stamped where they are handled. The first socket that asks for stamps has
/// that switched on by deferred work (`net_enable_timestamp`), and until then a packet is given the
/// time at which it is read (`__sock_recv_timestamp`). Needs the loopback device to be up.
///
/// A datagram may be lost: all namespaces share the queue of each CPU through which loopback and veth
/// hand over (`enqueue_to_backlog`, `net.core.netdev_max_backlog`), so a flood in any of them fills it
/// for all (`/proc/net/softnet_stat`, second column). Then another is sent.
fn until_times_are_stamped() -> Result<()> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a socket on loopback")?;
    stamp_times(&receiver)?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a socket on loopback")?;
    sender.connect(receiver.local_addr()?)?;
    let began = Instant::now();
    while began.elapsed() < STAMPS_BEGIN {
        sender.send(&[0])?;
        let sent_ns = now_ns(libc::CLOCK_REALTIME);
        // Another time than that of the sending, for the clock to tell them apart.
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
        "in {STAMPS_BEGIN:?} no datagram on loopback was stamped where it was handled: loopback is \
         down, or loses everything, or the kernel does not stamp packets yet"
    )
}

fn time_stamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: the message was filled by recvmsg() and its control buffer is alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it points to a whole header inside the control buffer.
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

/// How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC; of a few readings, the one least disturbed.
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
