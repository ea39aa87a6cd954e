//! ICMP errors that come to a namespace, with who sent them and which connection they are about: what
//! `sk_err` does not tell.
//!
//! A raw socket is given a copy of each ICMP message that its filter lets through; echo and neighbour
//! traffic never reach it, so it costs nothing but for errors.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::netns::NetNs;

/// The longest part of a message that is looked at: outer IPv4 header, ICMP header, embedded IP header
/// with options, and the first eight bytes of TCP.
const BUFFER: usize = 60 + 8 + 60 + 8;
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

/// The raw sockets of one namespace.
#[derive(Debug)]
pub struct IcmpErrors {
    v4: OwnedFd,
    /// `None` on a kernel without IPv6.
    v6: Option<OwnedFd>,
}

impl IcmpErrors {
    /// Opens them inside `netns`.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW in that namespace, or when it may not be entered.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        netns.run(|| {
            Ok(Self {
                v4: raw_socket(libc::AF_INET)?,
                v6: raw_socket(libc::AF_INET6).ok(),
            })
        })?
    }

    /// Gives every error that has come since the last call; bounded, for the rest the next call.
    pub fn drain(&self, mut each: impl FnMut(IcmpError)) {
        let mut buffer = [0; BUFFER];
        for (fd, parse) in [
            (
                Some(&self.v4),
                parse_v4 as fn(&[u8], IpAddr) -> Option<IcmpError>,
            ),
            (self.v6.as_ref(), parse_v6),
        ] {
            let Some(fd) = fd else { continue };
            for _ in 0..BATCH {
                let Some((bytes, from)) = receive(fd, &mut buffer) else {
                    break;
                };
                if let Some(error) = parse(bytes, from) {
                    each(error);
                }
            }
        }
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
    if v4 {
        let wanted = [DEST_UNREACH, TIME_EXCEEDED, PARAMETER_PROBLEM];
        let kept_back = !wanted.iter().fold(0u32, |mask, kind| mask | 1 << kind);
        set(&fd, libc::SOL_RAW, ICMP_FILTER, &kept_back)?;
    } else {
        let mut kept_back = [u32::MAX; 8];
        for kind in [V6_DEST_UNREACH, V6_TIME_EXCEEDED, V6_PARAMETER_PROBLEM] {
            kept_back[usize::from(kind >> 5)] &= !(1 << (kind & 31));
        }
        set(&fd, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &kept_back)?;
    }
    set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER)?;
    Ok(fd)
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
fn receive<'b>(fd: &OwnedFd, buffer: &'b mut [u8; BUFFER]) -> Option<(&'b [u8], IpAddr)> {
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
    Some((buffer.get(..got.min(BUFFER))?, addr))
}

/// A message as a raw IPv4 socket gives it: outer IP header, ICMP header, embedded packet.
fn parse_v4(bytes: &[u8], from: IpAddr) -> Option<IcmpError> {
    let outer = usize::from(*bytes.first()? & 0xf) * 4;
    let icmp = bytes.get(outer..)?;
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    let inner = icmp.get(8..)?;
    if *inner.first()? >> 4 != 4 || *inner.get(9)? != libc::IPPROTO_TCP as u8 {
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
/// embedded packet are not followed: a SYN of this host has none.
fn parse_v6(icmp: &[u8], from: IpAddr) -> Option<IcmpError> {
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    let inner = icmp.get(8..)?;
    if *inner.first()? >> 4 != 6 || *inner.get(6)? != libc::IPPROTO_TCP as u8 {
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

fn ports(tcp: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *tcp.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4() -> Vec<u8> {
        let mut bytes = vec![0x45; 1];
        bytes.resize(12, 0);
        bytes.extend([10, 0, 0, 254, 10, 0, 0, 1]);
        bytes.extend([3, 1, 0, 0, 0, 0, 0, 0]);
        let mut inner = vec![0u8; 20];
        (inner[0], inner[9]) = (0x45, 6);
        inner[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 9, 9, 9]);
        bytes.extend(inner);
        bytes.extend([0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 1]);
        bytes
    }

    #[test]
    fn who_says_what_of_which_connection() {
        let router: IpAddr = "10.0.0.254".parse().unwrap();
        let error = parse_v4(&v4(), router).unwrap();
        assert_eq!(error.words(), "host unreachable (type 3 code 1)");
        assert_eq!(error.local, "10.0.0.1:40000".parse().unwrap());
        assert_eq!(error.peer, "10.9.9.9:8080".parse().unwrap());
        assert_eq!(error.from, router);
    }

    #[test]
    fn a_message_cut_short_or_about_something_else_is_nothing() {
        let router: IpAddr = "10.0.0.254".parse().unwrap();
        let whole = v4();
        for len in 0..whole.len() {
            let known = parse_v4(&whole[..len], router).is_some();
            assert_eq!(known, len >= 20 + 8 + 20 + 4, "{len}");
            let _ = parse_v6(&whole[..len], router);
        }
        let mut udp = whole;
        udp[20 + 8 + 9] = 17;
        assert_eq!(parse_v4(&udp, router), None);
    }
}
