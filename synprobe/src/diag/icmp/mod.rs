//! ICMP errors that a namespace receives, with their sender and the connection they are about. `sk_err`
//! has neither.
//!
//! A raw socket receives a copy of each ICMP message that passes its filters. Echo, neighbour discovery
//! and errors about UDP do not pass, so it costs something only for errors about TCP.

mod message;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

pub use message::IcmpError;
use message::{V4_TYPES, V6_TYPES, parse_v4, parse_v6};

use crate::sys::{netns::NetNs, sockopts::set_option};

/// The longest possible message: its checksum covers all of it, bytes.
const MESSAGE: usize = 65_535;
/// SO_RCVBUF: holds errors until they are drained, bytes.
const RECEIVE_BUFFER: libc::c_int = 256 * 1024;
/// Errors read from one socket in one call.
const BATCH: usize = 1024;

/// `ICMP_FILTER` of `linux/icmp.h`; its value is a mask of types that are blocked.
const ICMP_FILTER: libc::c_int = 1;
/// `ICMPV6_FILTER` of `linux/icmpv6.h`; 256 bits of types that are blocked.
const ICMPV6_FILTER: libc::c_int = 1;
/// Memory for one message; one buffer serves every namespace.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; MESSAGE].into())
    }
}

/// A raw socket, and the parser for its messages.
#[derive(Debug)]
struct RawIcmpSocket {
    fd: OwnedFd,
    parse: fn(&[u8], IpAddr) -> Option<IcmpError>,
    /// `SK_MEMINFO_DROPS` at the last reading.
    drops: AtomicU32,
}

/// The raw sockets of one namespace.
#[derive(Debug)]
pub struct IcmpErrors {
    /// Inode of the namespace; 0: the caller's.
    netns: u32,
    v4: RawIcmpSocket,
    /// `None` on a kernel without IPv6.
    v6: Option<RawIcmpSocket>,
}

impl IcmpErrors {
    /// Opens them inside `netns`.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW in that namespace, or when it may not be entered.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        let opened = netns.run(Self::open_here)??;
        Ok(Self {
            netns: netns.inode(),
            ..opened
        })
    }

    /// Inode of the namespace that they were opened in; 0 with [`Self::open_here`].
    pub fn netns(&self) -> u32 {
        self.netns
    }

    /// Opens them in the calling thread's namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW in that namespace.
    pub fn open_here() -> io::Result<Self> {
        let socket = |family, parse| -> io::Result<RawIcmpSocket> {
            Ok(RawIcmpSocket {
                fd: raw_socket(family)?,
                parse,
                drops: AtomicU32::new(0),
            })
        };
        Ok(Self {
            netns: 0,
            v4: socket(libc::AF_INET, parse_v4)?,
            v6: socket(libc::AF_INET6, parse_v6).ok(),
        })
    }

    /// Passes on the errors received since the last call: a bounded number, the rest at the next call.
    pub fn drain(&self, buffer: &mut Buffer, mut each: impl FnMut(IcmpError)) {
        for socket in self.sockets() {
            for _ in 0..BATCH {
                let Some((bytes, from)) = receive(&socket.fd, &mut buffer.0) else {
                    break;
                };
                if let Some(error) = (socket.parse)(bytes, from) {
                    each(error);
                }
            }
        }
    }

    /// Messages that the kernel has discarded since the last call: the receive buffer was full, or
    /// (ICMPv6: `rawv6_rcv_skb()`) the checksum was wrong.
    pub fn drops(&self) -> u64 {
        let since = |socket: &RawIcmpSocket| {
            let now = drops(&socket.fd).ok()?;
            Some(now.wrapping_sub(socket.drops.swap(now, Ordering::Relaxed)))
        };
        self.sockets().filter_map(since).map(u64::from).sum()
    }

    fn sockets(&self) -> impl Iterator<Item = &RawIcmpSocket> {
        std::iter::once(&self.v4).chain(&self.v6)
    }
}

fn raw_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    let v4 = family == libc::AF_INET;
    let protocol = if v4 {
        libc::IPPROTO_ICMP
    } else {
        libc::IPPROTO_ICMPV6
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket() takes no pointers.
    let raw = unsafe { libc::socket(family, kind, protocol) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // Messages that arrive before both filters are set are rejected by the parser.
    if v4 {
        let blocked = !V4_TYPES.iter().fold(0u32, |mask, kind| mask | 1 << kind);
        set_option(&fd, libc::SOL_RAW, ICMP_FILTER, &blocked)?;
        attach(&fd, &mut about_tcp(true))?;
    } else {
        let mut blocked = [u32::MAX; 8];
        for kind in V6_TYPES {
            blocked[usize::from(kind >> 5)] &= !(1 << (kind & 31));
        }
        set_option(&fd, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)?;
        attach(&fd, &mut about_tcp(false))?;
    }
    set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER)?;
    Ok(fd)
}

/// Passes errors about TCP, uncut. A raw IPv4 socket's filter sees the outer IP header first, a
/// raw ICMPv6 socket's the ICMPv6 header. A load beyond the end rejects the packet.
fn about_tcp(v4: bool) -> [libc::sock_filter; 8] {
    use libc::{
        BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD,
        BPF_LDX, BPF_MSH, BPF_RET, BPF_W,
    };
    let op = |code: u32, k: u32, jf: u8| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    // X: where the ICMP header begins.
    let (start, byte) = match v4 {
        true => (
            op(BPF_LDX | BPF_B | BPF_MSH, 0, 0),
            BPF_LD | BPF_B | BPF_IND,
        ),
        false => (
            op(BPF_LDX | BPF_W | BPF_IMM, 0, 0),
            BPF_LD | BPF_B | BPF_ABS,
        ),
    };
    // Version, and where the protocol (next header) is, of the embedded IP header.
    let (version, protocol) = if v4 { (0x40, 9) } else { (0x60, 6) };
    [
        start,
        op(byte, 8, 0),
        op(BPF_ALU | BPF_AND | BPF_K, 0xf0, 0),
        op(BPF_JMP | BPF_JEQ | BPF_K, version, 3),
        op(byte, 8 + protocol, 0),
        op(BPF_JMP | BPF_JEQ | BPF_K, libc::IPPROTO_TCP as u32, 1),
        op(BPF_RET | BPF_K, u32::MAX, 0),
        op(BPF_RET | BPF_K, 0, 0),
    ]
}

fn attach(fd: &OwnedFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // The kernel copies the instructions before it returns.
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// `SK_MEMINFO_DROPS`, since the socket was opened; it wraps.
fn drops(fd: &OwnedFd) -> io::Result<u32> {
    let mut words = [0u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the words and the length are alive, and the length is theirs.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match done {
        0 => Ok(words[libc::SK_MEMINFO_DROPS as usize]),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One message and its sender; `None` when there is none.
fn receive<'b>(fd: &OwnedFd, buffer: &'b mut [u8]) -> Option<(&'b [u8], IpAddr)> {
    // SAFETY: all-zero bytes are a valid sockaddr_in6, the larger of the two.
    let mut from: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&from) as libc::socklen_t;
    // SAFETY: the buffer and the address are alive, and their lengths are their own.
    let got = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            (&raw mut from).cast(),
            &raw mut len,
        )
    };
    let got = usize::try_from(got).ok()?;
    let addr: IpAddr = if i32::from(from.sin6_family) == libc::AF_INET {
        // A raw IPv4 socket delivers the outer header, which has the sender.
        let bytes = buffer.get(12..16)?.first_chunk::<4>()?;
        Ipv4Addr::from(*bytes).into()
    } else {
        Ipv6Addr::from(from.sin6_addr.s6_addr).into()
    };
    Some((buffer.get(..got)?, addr))
}
