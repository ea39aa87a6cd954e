//! Segments that no kernel socket sends, such as SYNs from spoofed addresses and RSTs.

use std::{
    io,
    net::{SocketAddr, SocketAddrV6},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use synprobe_common::sys::sockopts::with_sockaddr;

use crate::{
    ns::Ns,
    packet::{TcpSegment, flags},
};

/// Sends crafted segments from inside one namespace.
pub struct RawSender {
    fd: OwnedFd,
}

impl RawSender {
    /// Opens a raw socket for IPv4 or IPv6 (needs CAP_NET_RAW).
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

    /// Sends a RST without ACK. It ends a half-open only if `seq` is the next expected number.
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
        let segment = TcpSegment {
            source,
            destination,
            seq,
            ack,
            flags,
            payload_len: 0,
        };
        let packet = segment.to_ip().context("the address families differ")?;
        self.packet(&packet, destination)
    }

    /// Sends an IP packet unchanged; the kernel fills in only the IPv4 header checksum.
    pub fn packet(&self, packet: &[u8], destination: SocketAddr) -> Result<()> {
        // The address of a raw socket has no port: IPv6 rejects one.
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
            _ => Err(io::Error::last_os_error()).context("sending a crafted packet"),
        }
    }
}
