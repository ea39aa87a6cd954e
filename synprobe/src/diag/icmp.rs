//! ICMP errors that come to a namespace, with who sent them and which connection they are about: what
//! `sk_err` does not tell.
//!
//! A raw socket is given a copy of each ICMP message that its filters let through; echo, neighbour
//! traffic and errors about UDP never reach it, so it costs nothing but for errors about TCP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::sys::netns::NetNs;

/// The longest message there can be: its checksum is over all of it.
const MESSAGE: usize = 65_535;
/// Room for errors until they are drained.
const RECEIVE_BUFFER: libc::c_int = 256 * 1024;
/// Errors taken at a time.
const BATCH: usize = 1024;

/// `ICMP_FILTER` of `linux/icmp.h`; its value is a mask of types that are kept back.
const ICMP_FILTER: libc::c_int = 1;
/// `ICMPV6_FILTER` of `linux/icmpv6.h`; 256 bits of types that are kept back.
const ICMPV6_FILTER: libc::c_int = 1;
const DEST_UNREACH: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const V6_DEST_UNREACH: u8 = 1;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;
const V4_TYPES: [u8; 3] = [DEST_UNREACH, TIME_EXCEEDED, PARAMETER_PROBLEM];
const V6_TYPES: [u8; 3] = [V6_DEST_UNREACH, V6_TIME_EXCEEDED, V6_PARAMETER_PROBLEM];

/// An ICMP error about a TCP segment of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Who sent it: a router, or the peer itself.
    pub from: IpAddr,
    /// ICMP (or ICMPv6) type.
    pub kind: u8,
    /// And code.
    pub code: u8,
    /// This host's end of the segment that it is about.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

impl IcmpError {
    /// In words, with the numbers (RFC 792, RFC 1812, RFC 4443).
    pub fn words(&self) -> String {
        let words = if self.local.is_ipv4() {
            match (self.kind, self.code) {
                (DEST_UNREACH, 0) => "network unreachable",
                (DEST_UNREACH, 1) => "host unreachable",
                (DEST_UNREACH, 2) => "protocol unreachable",
                (DEST_UNREACH, 3) => "port unreachable",
                (DEST_UNREACH, 4) => "fragmentation needed",
                (DEST_UNREACH, 6 | 7) => "destination unknown",
                (DEST_UNREACH, 9 | 10 | 13) => "administratively prohibited",
                (DEST_UNREACH, _) => "destination unreachable",
                (TIME_EXCEEDED, _) => "time exceeded (a routing loop, or too far)",
                _ => "parameter problem",
            }
        } else {
            match (self.kind, self.code) {
                (V6_DEST_UNREACH, 0) => "no route to destination",
                (V6_DEST_UNREACH, 1) => "administratively prohibited",
                (V6_DEST_UNREACH, 2) => "beyond scope of source address",
                (V6_DEST_UNREACH, 3) => "address unreachable",
                (V6_DEST_UNREACH, 4) => "port unreachable",
                (V6_DEST_UNREACH, 5) => "source address failed policy",
                (V6_DEST_UNREACH, 6) => "reject route to destination",
                (V6_DEST_UNREACH, _) => "destination unreachable",
                (V6_TIME_EXCEEDED, _) => "time exceeded (a routing loop, or too far)",
                _ => "parameter problem",
            }
        };
        format!("{words} (type {} code {})", self.kind, self.code)
    }
}

/// Where a message is put while it is read; one serves every namespace.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; MESSAGE].into())
    }
}

/// A raw socket, and how a message is read that it gives.
#[derive(Debug)]
struct Ear {
    fd: OwnedFd,
    parse: fn(&[u8], IpAddr) -> Option<IcmpError>,
    /// `SK_MEMINFO_DROPS`, as last told.
    drops: AtomicU32,
}

/// The raw sockets of one namespace.
#[derive(Debug)]
pub struct IcmpErrors {
    v4: Ear,
    /// `None` on a kernel without IPv6.
    v6: Option<Ear>,
}

impl IcmpErrors {
    /// Opens them inside `netns`.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW in that namespace, or when it may not be entered.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        netns.run(Self::open_here)?
    }

    /// Opens them in the calling thread's namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW in that namespace.
    pub fn open_here() -> io::Result<Self> {
        let ear = |family, parse| -> io::Result<Ear> {
            Ok(Ear {
                fd: raw_socket(family)?,
                parse,
                drops: AtomicU32::new(0),
            })
        };
        Ok(Self {
            v4: ear(libc::AF_INET, parse_v4)?,
            v6: ear(libc::AF_INET6, parse_v6).ok(),
        })
    }

    /// Gives every error that has come since the last call; bounded, for the rest the next call.
    pub fn drain(&self, buffer: &mut Buffer, mut each: impl FnMut(IcmpError)) {
        for ear in self.ears() {
            for _ in 0..BATCH {
                let Some((bytes, from)) = receive(&ear.fd, &mut buffer.0) else {
                    break;
                };
                if let Some(error) = (ear.parse)(bytes, from) {
                    each(error);
                }
            }
        }
    }

    /// How many messages the kernel has thrown away since the last call: there was no room for them,
    /// or (ICMPv6: `rawv6_rcv_skb()`) their checksum was wrong.
    pub fn drops(&self) -> u64 {
        let since = |ear: &Ear| {
            let now = drops(&ear.fd).ok()?;
            Some(now.wrapping_sub(ear.drops.swap(now, Ordering::Relaxed)))
        };
        self.ears().filter_map(since).map(u64::from).sum()
    }

    fn ears(&self) -> impl Iterator<Item = &Ear> {
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
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // What comes before both filters are in place is sorted out when it is read.
    if v4 {
        let kept_back = !V4_TYPES.iter().fold(0u32, |mask, kind| mask | 1 << kind);
        set(&fd, libc::SOL_RAW, ICMP_FILTER, &kept_back)?;
        attach(&fd, &mut about_tcp(true))?;
    } else {
        let mut kept_back = [u32::MAX; 8];
        for kind in V6_TYPES {
            kept_back[usize::from(kind >> 5)] &= !(1 << (kind & 31));
        }
        set(&fd, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &kept_back)?;
        attach(&fd, &mut about_tcp(false))?;
    }
    set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER)?;
    Ok(fd)
}

/// Lets errors about TCP through, whole. A raw IPv4 socket's filter sees the outer IP header first, a
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
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
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

fn set<T>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value is alive and its length is its own size.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
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
        // A raw IPv4 socket gives the outer header, and the sender with it.
        let bytes = buffer.get(12..16)?.first_chunk::<4>()?;
        Ipv4Addr::from(*bytes).into()
    } else {
        Ipv6Addr::from(from.sin6_addr.s6_addr).into()
    };
    Some((buffer.get(..got)?, addr))
}

/// A message as a raw IPv4 socket gives it: outer IP header, ICMP header, embedded packet.
///
/// Raw sockets get theirs before `icmp_rcv()` looks at the checksum: what that will throw away must not
/// be told as what the kernel heard.
fn parse_v4(bytes: &[u8], from: IpAddr) -> Option<IcmpError> {
    let outer = usize::from(*bytes.first()? & 0xf) * 4;
    let icmp = bytes.get(outer..)?;
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    let inner = icmp.get(8..)?;
    if !V4_TYPES.contains(&kind)
        || *inner.first()? >> 4 != 4
        || *inner.get(9)? != libc::IPPROTO_TCP as u8
        || !sums_up(icmp)
    {
        return None;
    }
    let at = |n: usize| -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(*inner.get(n..)?.first_chunk::<4>()?))
    };
    let tcp = inner.get(usize::from(*inner.first()? & 0xf) * 4..)?;
    let (source, destination) = ports(tcp)?;
    Some(IcmpError {
        from,
        kind,
        code,
        local: SocketAddr::new(at(12)?.into(), source),
        peer: SocketAddr::new(at(16)?.into(), destination),
    })
}

/// A message as a raw ICMPv6 socket gives it: ICMPv6 header, embedded packet. Extension headers of the
/// embedded packet are not followed: a SYN of this host has none. `rawv6_rcv_skb()` has looked at the
/// checksum.
fn parse_v6(icmp: &[u8], from: IpAddr) -> Option<IcmpError> {
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    let inner = icmp.get(8..)?;
    if !V6_TYPES.contains(&kind)
        || *inner.first()? >> 4 != 6
        || *inner.get(6)? != libc::IPPROTO_TCP as u8
    {
        return None;
    }
    let at = |n: usize| -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(*inner.get(n..)?.first_chunk::<16>()?))
    };
    let (source, destination) = ports(inner.get(40..)?)?;
    Some(IcmpError {
        from,
        kind,
        code,
        local: SocketAddr::new(at(8)?.into(), source),
        peer: SocketAddr::new(at(24)?.into(), destination),
    })
}

/// Whether the Internet checksum (RFC 1071) that is among these bytes is right.
fn sums_up(bytes: &[u8]) -> bool {
    let mut sum = bytes.chunks(2).fold(0u32, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([pair[0], low]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

fn ports(tcp: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *tcp.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use synprobe_lab::packet::checksum;

    /// Host unreachable, about 10.0.0.1:40000 to 10.9.9.9:8080; `cut` bytes short, `protocol` inside.
    fn v4(cut: usize, protocol: u8) -> Vec<u8> {
        let mut bytes = vec![0x45; 1];
        bytes.resize(12, 0);
        bytes.extend([10, 0, 0, 254, 10, 0, 0, 1]);
        bytes.extend([3, 1, 0, 0, 0, 0, 0, 0]);
        let mut inner = vec![0u8; 20];
        (inner[0], inner[9]) = (0x45, protocol);
        inner[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 9, 9, 9]);
        bytes.extend(inner);
        bytes.extend([0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 1]);
        bytes.truncate(bytes.len() - cut);
        if bytes.len() >= 24 {
            let sum = checksum(&[&bytes[20..]]).to_be_bytes();
            bytes[22..24].copy_from_slice(&sum);
        }
        bytes
    }

    #[test]
    fn who_says_what_of_which_connection() {
        let router: IpAddr = "10.0.0.254".parse().unwrap();
        let error = parse_v4(&v4(0, 6), router).unwrap();
        assert_eq!(error.words(), "host unreachable (type 3 code 1)");
        assert_eq!(error.local, "10.0.0.1:40000".parse().unwrap());
        assert_eq!(error.peer, "10.9.9.9:8080".parse().unwrap());
        assert_eq!(error.from, router);
    }

    #[test]
    fn a_message_cut_short_damaged_or_about_something_else_is_nothing() {
        let router: IpAddr = "10.0.0.254".parse().unwrap();
        let whole = v4(0, 6);
        for cut in 0..=whole.len() {
            let bytes = v4(cut, 6);
            let known = parse_v4(&bytes, router).is_some();
            assert_eq!(known, bytes.len() >= 20 + 8 + 20 + 4, "{cut}");
            let _ = parse_v6(&bytes, router);
        }
        for bit in 20 * 8..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_v4(&damaged, router), None, "{bit}");
        }
        assert_eq!(parse_v4(&v4(0, 17), router), None);
    }
}
