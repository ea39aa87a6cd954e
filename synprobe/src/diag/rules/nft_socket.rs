//! Dumps of nf_tables by nfnetlink.

use std::{io, os::fd::OwnedFd};

use crate::diag::{
    netlink::{
        HEADER, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
        NetlinkAttributes,
    },
    netlink_socket::{self, answer, invalid, open_netlink},
};

/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// Whether to go on with a dump.
pub(super) enum Next {
    Go,
    Stop,
}

/// A socket of NETLINK_NETFILTER in the calling thread's namespace. A dump that was stopped leaves the rest unread:
/// open another one.
pub(super) struct NftSocket {
    fd: OwnedFd,
    seq: u32,
}

/// The answer to a dump.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DumpEnd {
    Whole,
    /// The rules changed meanwhile.
    Interrupted,
    Stopped,
}

impl NftSocket {
    pub fn open() -> io::Result<Self> {
        let fd = open_netlink(libc::NETLINK_NETFILTER)?;
        Ok(Self { fd, seq: 0 })
    }

    /// Calls `each` with the family and the attributes of every object of that kind (`NFT_MSG_GET…`).
    ///
    /// # Errors
    /// EPERM: CAP_NET_ADMIN is missing; others of the kernel; TimedOut; InvalidData: a malformed answer.
    pub fn dump(
        &mut self,
        kind: libc::c_int,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(u8, &[u8]) -> Next,
    ) -> io::Result<DumpEnd> {
        self.send(kind, NLM_F_DUMP, family, attributes)?;
        let mut end = DumpEnd::Whole;
        answer(&self.fd, self.seq, |message| {
            if message.flags & NLM_F_DUMP_INTR != 0 {
                end = DumpEnd::Interrupted;
            }
            if matches!(message.kind, NLMSG_DONE | NLMSG_ERROR) {
                message.errno()?;
                return Ok(Some(end));
            }
            let Some((header, rest)) = message.payload.split_at_checked(NFGENMSG) else {
                return Err(invalid("a message of nf_tables is too short"));
            };
            Ok(match each(header[0], rest) {
                Next::Go => None,
                Next::Stop => Some(DumpEnd::Stopped),
            })
        })
    }

    /// Calls `each` with the one object that a request of that kind returns.
    ///
    /// # Errors
    /// As [`NftSocket::dump`].
    pub fn get(&mut self, kind: libc::c_int, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.send(kind, 0, 0, &[])?;
        answer(&self.fd, self.seq, |message| {
            if message.kind == NLMSG_ERROR {
                return message.errno().map(Some);
            }
            each(message.payload.get(NFGENMSG..).unwrap_or_default());
            Ok(Some(()))
        })
    }

    fn send(
        &mut self,
        kind: libc::c_int,
        flags: u16,
        family: u8,
        attributes: &[u8],
    ) -> io::Result<()> {
        self.seq += 1;
        let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16;
        let len = (HEADER + NFGENMSG + attributes.len()) as u32;
        let mut bytes = Vec::with_capacity(len as usize);
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(self.seq.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(attributes);
        netlink_socket::send(&self.fd, &bytes)
    }
}

/// The first attribute of a type.
pub(super) fn attr(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    NetlinkAttributes::new(bytes).find_map(|(k, value)| (k == kind).then_some(value))
}

/// A number in network byte order.
pub(super) fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    let value = attr(bytes, kind)?.first_chunk()?;
    Some(u32::from_be_bytes(*value))
}

/// The same of 64 bits.
pub(super) fn number64(bytes: &[u8], kind: u16) -> Option<u64> {
    let value = attr(bytes, kind)?.first_chunk()?;
    Some(u64::from_be_bytes(*value))
}

/// A string, without its zero.
pub(super) fn string(bytes: &[u8], kind: u16) -> Option<String> {
    let value = attr(bytes, kind)?;
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    Some(String::from_utf8_lossy(&value[..end]).into_owned())
}

/// An attribute of a request: a string with its zero.
pub(super) fn with_string(kind: u16, text: &str) -> Vec<u8> {
    let len = 4 + text.len() + 1;
    let mut bytes = Vec::with_capacity(len + 3);
    bytes.extend((len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(text.bytes());
    bytes.resize((len + 3) & !3, 0);
    bytes
}
