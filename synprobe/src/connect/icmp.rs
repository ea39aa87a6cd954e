//! The ICMP errors that a connect received, and who sent them. A socket keeps them in its error queue if
//! IP_RECVERR is set (`ip(7)`; for a TCP socket in SYN_SENT since Linux 5.8, 45af29ca761c).

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use crate::sys::sockopts::set_option;

/// One ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// ICMPv6 and not ICMP.
    pub v6: bool,
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Who sent it.
    pub from: Option<IpAddr>,
    /// The errno that the kernel derives from it.
    pub errno: i32,
}

impl Icmp {
    /// Its meaning in words (RFC 792, RFC 1812, RFC 4443).
    pub fn text(&self) -> String {
        let known = match (self.v6, self.kind, self.code) {
            (false, 3, 0) => "network unreachable",
            (false, 3, 1) => "host unreachable",
            (false, 3, 2) => "protocol unreachable",
            (false, 3, 3) | (true, 1, 4) => "port unreachable",
            (false, 3, 4) => "fragmentation needed",
            (false, 3, 9 | 10 | 13) | (true, 1, 1) => "administratively prohibited",
            (false, 11, _) | (true, 3, _) => "time exceeded: a routing loop",
            (true, 1, 0) => "no route to destination",
            (true, 1, 3) => "address unreachable",
            (true, 1, 5) => "source address failed policy",
            (true, 1, 6) => "route rejected",
            (true, 2, _) => "packet too big",
            _ => return format!("type {}, code {}", self.kind, self.code),
        };
        known.to_owned()
    }
}

/// Sets IP_RECVERR. Without it only the sender is unknown.
pub fn keep(socket: &impl AsRawFd) {
    let on: libc::c_int = 1;
    let _ = set_option(socket, libc::SOL_IP, libc::IP_RECVERR, &on);
    let _ = set_option(socket, libc::SOL_IPV6, libc::IPV6_RECVERR, &on);
}

/// Empties the error queue and returns the last error. This clears the socket's own error: read SO_ERROR
/// first.
pub fn take(socket: &impl AsRawFd) -> Option<Icmp> {
    let mut last = None;
    // The queue is bounded by the receive buffer.
    while let Ok(icmp) = take_one(socket) {
        last = icmp.or(last);
    }
    last
}

/// `struct sock_extended_err` and the address behind it (SO_EE_OFFENDER).
#[repr(C)]
#[derive(Clone, Copy)]
struct ErrorQueueEntry {
    error: libc::sock_extended_err,
    offender: libc::sockaddr_in6,
}

fn take_one(socket: &impl AsRawFd) -> io::Result<Option<Icmp>> {
    // The packet that caused the error; its bytes are not needed.
    let mut packet = [0_u8; 1];
    let mut control = [0_u64; 32];
    let mut part = libc::iovec {
        iov_base: packet.as_mut_ptr().cast(),
        iov_len: packet.len(),
    };
    // SAFETY: msghdr is integers and pointers; null and 0 mean that there is none.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the message and all it points to live through the call, with their own lengths.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = None;
    // SAFETY: the kernel has filled in the control buffer, which is aligned for a cmsghdr; the macros
    // stay within the length that it left in the message.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: a header within the buffer.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        let is_error = matches!(
            (level, kind),
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
        );
        if is_error {
            // SAFETY: only computes where the header's data begin, within the buffer.
            let data = unsafe { libc::CMSG_DATA(header) };
            let room = control.as_ptr_range().end as usize - data as usize;
            // SAFETY: all zero is a valid value of these plain integers.
            let mut kept: ErrorQueueEntry = unsafe { mem::zeroed() };
            // SAFETY: no more than there is on both sides, which do not overlap. Behind what the
            // kernel wrote the buffer is zero.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    data,
                    (&raw mut kept).cast::<u8>(),
                    room.min(size_of::<ErrorQueueEntry>()),
                );
            }
            found = read(&kept).or(found);
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(found)
}

fn read(kept: &ErrorQueueEntry) -> Option<Icmp> {
    let v6 = match kept.error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => false,
        libc::SO_EE_ORIGIN_ICMP6 => true,
        _ => return None,
    };
    let from = match libc::c_int::from(kept.offender.sin6_family) {
        libc::AF_INET => {
            // SAFETY: the bytes are those of a sockaddr_in, which is the shorter of the two.
            let v4: libc::sockaddr_in =
                unsafe { std::ptr::read_unaligned((&raw const kept.offender).cast()) };
            Some(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            Some(IpAddr::from(Ipv6Addr::from(kept.offender.sin6_addr.s6_addr)).to_canonical())
        }
        _ => None,
    };
    Some(Icmp {
        v6,
        kind: kept.error.ee_type,
        code: kept.error.ee_code,
        from: from.filter(|addr| !addr.is_unspecified()),
        errno: i32::try_from(kept.error.ee_errno).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn icmp(v6: bool, kind: u8, code: u8) -> String {
        let icmp = Icmp {
            v6,
            kind,
            code,
            from: None,
            errno: 0,
        };
        icmp.text()
    }

    #[test]
    fn errors_have_names() {
        assert_eq!(icmp(false, 3, 1), "host unreachable");
        assert_eq!(icmp(false, 3, 13), "administratively prohibited");
        assert_eq!(icmp(true, 1, 0), "no route to destination");
        assert_eq!(icmp(true, 1, 1), "administratively prohibited");
        assert_eq!(icmp(false, 3, 99), "type 3, code 99");
    }

    #[test]
    fn a_socket_that_met_none_has_none() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        keep(&socket);
        assert_eq!(take(&socket), None);
    }

    #[test]
    fn the_sender_is_read_from_the_queue() {
        // A datagram to a port of this host where nobody listens: the host itself answers.
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = closed.local_addr().unwrap();
        drop(closed);
        let socket = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
        keep(&socket);
        socket.send_to(b"?", to).unwrap();
        let icmp = take(&socket).unwrap();
        assert_eq!(icmp.text(), "port unreachable");
        assert_eq!(icmp.from, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(icmp.errno, libc::ECONNREFUSED);
        assert_eq!(take(&socket), None, "taken");
    }
}
