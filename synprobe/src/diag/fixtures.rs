//! A namespace in which handshakes hang on purpose, without a firewall.
//!
//! ```text
//!   127.0.0.1 ── lo ── 198.18.0.0/15 (routed to lo; no host answers)
//! ```
//!
//! Packets to 198.18.0.0/15 come back through lo, where the address is not local, and are dropped. A
//! connect() stays in SYN_SENT, and a forged SYN leaves its half-open in SYN_RECV. No RST comes.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::sys::{netns::NetNs, sysctl::set_sysctl};

/// Waits until a condition holds. A fork of another test may delay it: until its exec(), the child holds
/// every descriptor of this process.
pub(crate) fn eventually(what: &str, so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !so() {
        assert!(start.elapsed().as_secs() < 10, "never: {what}");
        std::thread::yield_now();
    }
}

/// A namespace with the route above.
pub(crate) fn netns_with_void() -> NetNs {
    let ns = NetNs::new_anonymous().unwrap();
    set_sysctl(&ns, "net.ipv4.conf.all.rp_filter", "0").unwrap();
    set_sysctl(&ns, "net.ipv4.conf.lo.rp_filter", "0").unwrap();
    ns.run(add_route).unwrap();
    ns
}

fn add_route() {
    fn address(ip: [u8; 4]) -> libc::sockaddr {
        let mut data = [0; 14];
        for (to, from) in data[2..6].iter_mut().zip(ip) {
            *to = from as libc::c_char;
        }
        libc::sockaddr {
            sa_family: libc::AF_INET as libc::sa_family_t,
            sa_data: data,
        }
    }
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut device = *b"lo\0";
    // SAFETY: rtentry is integers and pointers that may be null; all zero is a valid value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = address([198, 18, 0, 0]);
    route.rt_genmask = address([255, 254, 0, 0]);
    route.rt_flags = libc::RTF_UP as libc::c_ushort;
    route.rt_dev = device.as_mut_ptr().cast();
    // SAFETY: SIOCADDRT reads one rtentry and the string it points to; both outlive the call.
    let added = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) };
    assert_eq!(added, 0, "{}", io::Error::last_os_error());
}

/// Sends TCP segments with a forged source.
pub(crate) struct Forger(OwnedFd);

impl Forger {
    pub(crate) fn new(ns: &NetNs) -> Self {
        let raw = ns
            .run(|| {
                // SAFETY: no memory is involved.
                unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) }
            })
            .unwrap();
        assert!(raw >= 0, "{}", io::Error::last_os_error());
        // SAFETY: it was just opened, and nothing else knows it.
        Self(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    /// A bare SYN. Loopback is synchronous: when this returns, the half-open is there.
    pub(crate) fn syn(&self, from: SocketAddrV4, to: SocketAddrV4) {
        let mut packet = [0u8; 40];
        // The kernel fills in length, id and checksum of the IPv4 header (IP_HDRINCL).
        packet[0] = 0x45;
        packet[8] = 64;
        packet[9] = libc::IPPROTO_TCP as u8;
        packet[12..16].copy_from_slice(&from.ip().octets());
        packet[16..20].copy_from_slice(&to.ip().octets());
        packet[20..22].copy_from_slice(&from.port().to_be_bytes());
        packet[22..24].copy_from_slice(&to.port().to_be_bytes());
        packet[24..28].copy_from_slice(&1000u32.to_be_bytes());
        packet[32] = 5 << 4;
        packet[33] = 0x02;
        packet[34..36].copy_from_slice(&64240u16.to_be_bytes());
        let sum = checksum(&packet[12..], u32::from(packet[9]) + 20);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(to.ip().octets()),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: buffer and address are live values of the sizes given.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            )
        };
        assert_eq!(sent, 40, "{}", io::Error::last_os_error());
    }
}

/// The internet checksum over 16-bit words, `start` included.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum = start + words.sum::<u32>();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The n-th address and port of the void; all differ for n below 2^31.
pub(crate) fn nobody(n: u32) -> SocketAddrV4 {
    let host = n / 60_000;
    let port = 1024 + (n % 60_000) as u16;
    SocketAddrV4::new(
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + host),
        port,
    )
}

/// connect() that does not wait; it stays in SYN_SENT where nobody answers.
pub(crate) fn connect_nonblocking(to: SocketAddrV4) -> OwnedFd {
    // SAFETY: no memory is involved.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) };
    assert!(raw >= 0);
    // SAFETY: it was just opened, and nothing else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(to.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is a live value of the size given.
    let result = unsafe {
        libc::connect(
            raw,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    assert_eq!(result, -1);
    assert_eq!(
        io::Error::last_os_error().raw_os_error(),
        Some(libc::EINPROGRESS)
    );
    fd
}
