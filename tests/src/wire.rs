//! Times of segments on the wire, from a capture: the independent reference for every time and interval.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{
    Lab, Ns, PORT, SocketFamily,
    capture::{Capture, CapturedSegment, PacketTrace},
    packet::{TcpSegment, flags},
};

/// Flags that distinguish the segments of a handshake.
const KIND_FLAGS: u8 = flags::SYN | flags::ACK | flags::RST | flags::FIN;
/// SYN only.
pub const SYN: u8 = flags::SYN;
/// SYN with ACK.
pub const SYN_ACK: u8 = flags::SYN | flags::ACK;
/// A bare ACK.
pub const ACK: u8 = flags::ACK;

/// The segments of a complete capture.
pub struct WireTimes(Vec<CapturedSegment>);

impl WireTimes {
    /// Stops a capture.
    ///
    /// # Errors
    ///
    /// When it dropped frames.
    pub fn of(capture: Capture) -> Result<Self> {
        let trace: PacketTrace = capture.stop()?;
        ensure!(
            trace.missed == 0,
            "the capture missed {} frames",
            trace.missed
        );
        Ok(Self(trace.segments))
    }

    /// Times of the segments with these flags in one direction between two ports, earliest first,
    /// CLOCK_MONOTONIC nanoseconds.
    pub fn times(&self, kind: u8, outgoing: bool, local_port: u16, peer_port: u16) -> Vec<u64> {
        let is = |c: &&CapturedSegment| {
            let segment: &TcpSegment = &c.segment;
            let (local, peer) = match outgoing {
                true => (segment.source, segment.destination),
                false => (segment.destination, segment.source),
            };
            c.outgoing == outgoing
                && segment.flags & KIND_FLAGS == kind
                && segment.payload_len == 0
                && (local.port(), peer.port()) == (local_port, peer_port)
        };
        self.0.iter().filter(is).map(|c| c.mono_ns).collect()
    }

    /// The first of [`WireTimes::times`].
    pub fn first(&self, kind: u8, outgoing: bool, local: u16, peer: u16) -> Result<u64> {
        let times = self.times(kind, outgoing, local, peer);
        times
            .first()
            .copied()
            .with_context(|| format!("no segment {kind:#x} between ports {local} and {peer}"))
    }
}

/// A listener in `ns` on [`PORT`], with queues for every handshake of a test.
pub fn listener(lab: &Lab, ns: &Ns) -> Result<std::net::TcpListener> {
    let any = match lab.family {
        SocketFamily::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketFamily::V6 | SocketFamily::V4Mapped => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    synprobe_lab::listen(ns, any, PORT, 1024, lab.family == SocketFamily::V4Mapped)
}

/// A reported duration minus the duration between two times on the wire, microseconds.
pub fn off_us(reported_us: u64, from_ns: u64, to_ns: u64) -> i64 {
    let wire_us = to_ns.saturating_sub(from_ns) / 1000;
    reported_us as i64 - wire_us as i64
}

/// Longer than any test.
pub const NEVER: Duration = Duration::from_secs(3600);

/// Binds a socket to an address.
///
/// # Errors
///
/// The error of bind().
pub fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let bound = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: the address is alive for the call and its length is its own size.
            unsafe {
                libc::bind(
                    fd.as_raw_fd(),
                    (&raw const raw).cast(),
                    size_of_val(&raw) as _,
                )
            }
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: the address is alive for the call and its length is its own size.
            unsafe {
                libc::bind(
                    fd.as_raw_fd(),
                    (&raw const raw).cast(),
                    size_of_val(&raw) as _,
                )
            }
        }
    };
    match bound {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
