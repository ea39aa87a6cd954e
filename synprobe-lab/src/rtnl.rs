//! The part of netlink that the lab needs for namespaces, links and rules.

use std::{
    ffi::CString,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Instant,
};

use synprobe_common::sys::poll;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// RFC 2863 `up`, of `linux/if.h`.
const IF_OPER_UP: u8 = 6;

/// A request under construction: header, fixed part of the family, attributes.
pub struct NetlinkRequest(Vec<u8>);

impl NetlinkRequest {
    /// Starts a request of type `kind`; adds `flags` to NLM_F_REQUEST and NLM_F_ACK.
    pub fn new(kind: u16, flags: libc::c_int, fixed: &[u8]) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    /// Adds an attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value);
        self
    }

    /// Requests no answer.
    pub fn without_ack(mut self) -> Self {
        let flags = (libc::NLM_F_REQUEST as u16).to_ne_bytes();
        self.0[6..8].copy_from_slice(&flags);
        self
    }

    fn wants_ack(&self) -> bool {
        u16::from_ne_bytes([self.0[6], self.0[7]]) & libc::NLM_F_ACK as u16 != 0
    }

    /// Adds a nested attribute (NLA_F_NESTED) with the attributes that `fill` adds.
    pub fn nested(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        self.nest(kind | libc::NLA_F_NESTED as u16, &[], fill)
    }

    /// Adds an attribute with `fixed` and the attributes that `fill` adds.
    pub fn nest(self, kind: u16, fixed: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let mut outer = self.0;
        let start = outer.len();
        outer.extend_from_slice(&[0; 4]);
        outer.extend_from_slice(fixed);
        let mut bytes = fill(Self(outer)).0;
        let len = (bytes.len() - start) as u16;
        bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        Self(bytes)
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// `struct ifinfomsg`.
pub fn link_header(index: u32, flags: libc::c_int, change: libc::c_int) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// A netlink socket of the calling thread's namespace.
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    /// Messages that arrived while another one was awaited.
    pending: Vec<(u16, Vec<u8>)>,
}

impl Netlink {
    /// Opens a socket of `protocol` (NETLINK_*) that also receives the multicast `groups`.
    pub fn open(protocol: libc::c_int, groups: libc::c_int) -> io::Result<Self> {
        // SAFETY: socket() takes no pointers.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = groups as u32;
        // SAFETY: the address is alive and its length is its own size.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        match bound {
            0 => Ok(Self {
                fd,
                sequence: 0,
                pending: Vec::new(),
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends a request and waits for the kernel's answer.
    pub fn request(&mut self, message: NetlinkRequest) -> io::Result<()> {
        self.request_all(vec![message])
    }

    /// Sends requests in one datagram and waits for all acknowledgements; returns the first error.
    pub fn request_all(&mut self, requests: Vec<NetlinkRequest>) -> io::Result<()> {
        let (mut bytes, mut unacknowledged) = (Vec::new(), Vec::new());
        for message in requests {
            self.sequence += 1;
            if message.wants_ack() {
                unacknowledged.push(self.sequence);
            }
            bytes.extend(message.finish(self.sequence));
        }
        self.send(&bytes)?;
        while !unacknowledged.is_empty() {
            let datagram = self.receive()?;
            self.keep(&datagram);
            for (kind, sequence, body) in messages(&datagram) {
                if kind != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                match word(body, 0) {
                    Some(0) => unacknowledged.retain(|&one| one != sequence),
                    Some(code) => {
                        return Err(io::Error::from_raw_os_error((code as i32).wrapping_neg()));
                    }
                    None => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer is alive and its length is its own.
        match unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until the link `index` is operational. Needs RTMGRP_LINK; also asks once.
    ///
    /// The flag IFF_RUNNING is not sufficient: it is set before the kernel has checked the carrier, and
    /// until then the kernel drops what is sent.
    pub fn wait_running(&mut self, index: u32, deadline: Instant) -> io::Result<()> {
        self.sequence += 1;
        let ask = NetlinkRequest::new(libc::RTM_GETLINK, 0, &link_header(index, 0, 0));
        self.send(&ask.finish(self.sequence))?;
        self.wait(libc::RTM_NEWLINK, deadline, |body| {
            word(body, 4) == Some(index)
                && attribute(body.get(16..).unwrap_or_default(), libc::IFLA_OPERSTATE)
                    == Some(&[IF_OPER_UP])
        })
    }

    /// Waits until `address` has its route in the local table. Needs RTMGRP_IPV6_ROUTE.
    ///
    /// The kernel adds the route of an IPv6 address from a work queue, even without duplicate address
    /// detection. Until then the address is not local.
    pub fn wait_local_route(&mut self, address: &[u8], deadline: Instant) -> io::Result<()> {
        self.wait(libc::RTM_NEWROUTE, deadline, |body| {
            body.get(7) == Some(&libc::RTN_LOCAL)
                && attribute(body.get(12..).unwrap_or_default(), libc::RTA_DST) == Some(address)
        })
    }

    fn wait(
        &mut self,
        wanted: u16,
        deadline: Instant,
        is_it: impl Fn(&[u8]) -> bool,
    ) -> io::Result<()> {
        loop {
            let pending = std::mem::take(&mut self.pending);
            if pending
                .iter()
                .any(|(kind, body)| *kind == wanted && is_it(body))
            {
                return Ok(());
            }
            if !poll::readable(&self.fd, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let datagram = self.receive()?;
            self.keep(&datagram);
        }
    }

    fn keep(&mut self, datagram: &[u8]) {
        let all = messages(datagram).into_iter();
        self.pending
            .extend(all.map(|(kind, _, body)| (kind, body.to_vec())));
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0u8; 32 * 1024];
        // SAFETY: the buffer is alive and its length is its own.
        let got = unsafe {
            libc::recv(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
            )
        };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        buffer.truncate(got as usize);
        Ok(buffer)
    }
}

/// The address family of an address, as netlink has it.
pub fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// The number of a device of the calling thread's namespace.
pub fn index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: the name is a live NUL-terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// An address in network order, as in packets and attributes.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The value of the first attribute of kind `wanted`.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let &[a, b, c, d, ..] = attributes {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([c, d]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The (type, sequence, body) of each message in a datagram.
fn messages(mut bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut found = Vec::new();
    while let (Some(len), Some(kind), Some(sequence)) =
        (word(bytes, 0), word(bytes, 4), word(bytes, 8))
    {
        let len = len as usize;
        let Some(body) = bytes.get(HEADER..len) else {
            break;
        };
        found.push((kind as u16, sequence, body));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nests_know_their_length() {
        let bytes = NetlinkRequest::new(16, 0, &[])
            .attr(3, b"ab\0")
            .nest(18, &[], |m| m.attr(1, b"veth"))
            .finish(7);
        assert_eq!(bytes.len(), HEADER + 8 + 12);
        assert_eq!(bytes[HEADER..HEADER + 8], [7, 0, 3, 0, b'a', b'b', 0, 0]);
        assert_eq!(bytes[HEADER + 8..HEADER + 12], [12, 0, 18, 0]);
        assert_eq!(attribute(&bytes[HEADER..], 3), Some(&b"ab\0"[..]));
        assert_eq!(attribute(&bytes[HEADER..], 18).map(<[u8]>::len), Some(8));
        assert_eq!(attribute(&bytes[HEADER..], 4), None);
        let found = messages(&bytes);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1, found[0].2.len()), (16, 7, 20));
    }

    #[test]
    fn truncated_datagrams_are_not_read_past_their_end() {
        let whole = NetlinkRequest::new(16, 0, &[1; 16]).finish(1);
        for len in 0..whole.len() {
            assert!(messages(&whole[..len]).is_empty());
        }
    }
}
