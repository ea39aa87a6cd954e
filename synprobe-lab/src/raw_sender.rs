//! Segments that no kernel socket sends: a SYN from an address that nobody has, the RST that
//! follows it.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use super::ns::Ns;
use super::packet::{Segment, flags};
use synprobe_common::sys::sockopts::with_sockaddr;

/// Sends hand-made segments from inside one namespace.
pub struct RawSender {
    fd: OwnedFd,
}

impl RawSender {
    /// Opens one for IPv4 or IPv6 (needs CAP_NET_RAW).
    pub fn open(ns: &Ns, v6: bool) -> Result<Self> {
        ns.run(|| {
            let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
            // SAFETY: socket() takes no pointers.
            let fd = unsafe {
                libc::socket(
                    family,
                    libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                    libc::IPPROTO_RAW,
                )
            };
            if fd < 0 {
                return Err(io::Error::last_os_error()).context("a raw socket (needs CAP_NET_RAW)");
            }
            // SAFETY: the descriptor was just made and belongs to nobody else.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            Ok(Self { fd })
        })
    }

    /// Sends a SYN.
    pub fn syn(&self, source: SocketAddr, destination: SocketAddr, seq: u32) -> Result<()> {
        self.send(source, destination, (seq, 0), flags::SYN)
    }

    /// Sends a RST without ACK; it kills a half-open only if `seq` is the one expected next.
    pub fn rst(&self, source: SocketAddr, destination: SocketAddr, seq: u32) -> Result<()> {
        self.send(source, destination, (seq, 0), flags::RST)
    }

    /// Sends a bare ACK.
    pub fn ack(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        seq: u32,
        ack: u32,
    ) -> Result<()> {
        self.send(source, destination, (seq, ack), flags::ACK)
    }

    fn send(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        (seq, ack): (u32, u32),
        flags: u8,
    ) -> Result<()> {
        let segment = Segment {
            source,
            destination,
            seq,
            ack,
            flags,
            payload_len: 0,
        };
        let packet = segment.to_ip().context("addresses of two families")?;
        self.packet(&packet, destination)
    }

    /// Sends an IP packet as it is; the kernel fills in the IPv4 header's checksum alone.
    pub fn packet(&self, packet: &[u8], destination: SocketAddr) -> Result<()> {
        // A raw socket's address carries no port: IPv6 refuses one.
        let to = match destination {
            SocketAddr::V4(v4) => SocketAddr::from((*v4.ip(), 0)),
            SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), 0, 0, 0).into(),
        };
        let sent = with_sockaddr(to, |address, len| {
            // SAFETY: the packet and the address are alive, and the lengths are their own.
            unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    packet.as_ptr().cast(),
                    packet.len(),
                    0,
                    address,
                    len,
                )
            }
        });
        match sent {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()).context("sending a hand-made packet"),
        }
    }
}
