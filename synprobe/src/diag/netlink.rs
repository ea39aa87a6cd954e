//! Netlink framing: messages in a datagram, attributes in a message. Any bytes give a result or an error,
//! never a panic. Headers are in the host's byte order and start
//! on multiples of four (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).

use std::io;

/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// `NLMSG_ERROR`, also the answer to a request that finds nothing.
pub(super) const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump, with a negative errno if it failed.
pub(super) const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`.
pub(super) const NLM_F_REQUEST: u16 = 1;
/// `NLM_F_DUMP`: `NLM_F_ROOT | NLM_F_MATCH`.
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the table changed under the dump.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NetlinkMessage<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: the request this answers.
    pub seq: u32,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

impl NetlinkMessage<'_> {
    /// The errno that a DONE or an ERROR carries: negative, 0 for success, absent from an old DONE.
    pub(super) fn errno(&self) -> io::Result<()> {
        match self
            .payload
            .first_chunk()
            .map(|code| i32::from_ne_bytes(*code))
        {
            Some(code) if code < 0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            _ => Ok(()),
        }
    }
}

/// A datagram is shorter than its headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink message: {left} bytes left, its header says {claimed}")]
pub(super) struct MalformedMessage {
    left: usize,
    claimed: u32,
}

/// The messages of one datagram, in order; ends after the first malformed one.
pub(super) struct NetlinkMessages<'a> {
    rest: &'a [u8],
}

impl<'a> NetlinkMessages<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for NetlinkMessages<'a> {
    type Item = Result<NetlinkMessage<'a>, MalformedMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let left = self.rest.len();
        let Some(header) = self.rest.first_chunk::<HEADER>() else {
            self.rest = &[];
            return Some(Err(MalformedMessage { left, claimed: 0 }));
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let claimed = u32::from_ne_bytes([l0, l1, l2, l3]);
        let len = claimed as usize;
        let Some(payload) = self.rest.get(HEADER..len) else {
            self.rest = &[];
            return Some(Err(MalformedMessage { left, claimed }));
        };
        // The last message of a datagram need not be padded.
        self.rest = self.rest.get(align4(len)..).unwrap_or(&[]);
        Some(Ok(NetlinkMessage {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        }))
    }
}

/// The attributes that follow a message's fixed part, as (type, value); ends at the first that does
/// not fit, since nothing after it can be trusted.
pub(super) struct NetlinkAttributes<'a> {
    rest: &'a [u8],
}

impl<'a> NetlinkAttributes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for NetlinkAttributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.rest.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.rest.get(4..len)?;
        self.rest = self.rest.get(align4(len)..).unwrap_or(&[]);
        // The two highest bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    }
}

fn align4(len: usize) -> usize {
    len.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((HEADER as u32 + payload.len() as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(2u16.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(align4(bytes.len()), 0);
        bytes
    }

    #[test]
    fn messages_follow_each_other_on_multiples_of_four() {
        let mut datagram = message(20, b"abc");
        datagram.extend(message(3, b""));
        let got: Vec<_> = NetlinkMessages::new(&datagram)
            .map(Result::unwrap)
            .collect();
        assert_eq!(got.len(), 2);
        assert_eq!(
            got[0],
            NetlinkMessage {
                kind: 20,
                flags: 2,
                seq: 7,
                payload: b"abc"
            }
        );
        assert_eq!((got[1].kind, got[1].payload), (3, &b""[..]));
    }

    #[test]
    fn every_truncation_ends_without_panic() {
        let mut datagram = message(20, b"abcdefgh");
        datagram.extend(message(20, b"ijkl"));
        for len in 0..datagram.len() {
            let got: Vec<_> = NetlinkMessages::new(&datagram[..len]).collect();
            let whole = got.iter().filter(|m| m.is_ok()).count();
            assert_eq!(whole, usize::from(len >= 24), "cut at {len}");
            // A cut within a message is an error, one between messages cannot be noticed.
            assert_eq!(
                got.iter().any(Result::is_err),
                len != 0 && len != 24,
                "cut at {len}"
            );
        }
    }

    #[test]
    fn a_length_shorter_than_the_header_is_malformed_and_ends_the_walk() {
        for claimed in [0u32, 1, 15, u32::MAX, u32::MAX - 2] {
            let mut datagram = message(20, b"abcd");
            datagram[..4].copy_from_slice(&claimed.to_ne_bytes());
            let got: Vec<_> = NetlinkMessages::new(&datagram).collect();
            assert_eq!(got, [Err(MalformedMessage { left: 20, claimed })]);
        }
    }

    #[test]
    fn attributes_are_masked_and_bounded() {
        let mut bytes = Vec::new();
        bytes.extend(5u16.to_ne_bytes());
        bytes.extend((11u16 | 0x8000).to_ne_bytes());
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(12u16.to_ne_bytes());
        bytes.extend(21u16.to_ne_bytes());
        bytes.extend(9u64.to_ne_bytes());
        let got: Vec<_> = NetlinkAttributes::new(&bytes).collect();
        assert_eq!(got, [(11, &[1u8][..]), (21, &9u64.to_ne_bytes()[..])]);
        for len in 0..bytes.len() {
            assert!(NetlinkAttributes::new(&bytes[..len]).count() <= 2);
        }
        // A zero length must not loop forever.
        assert_eq!(NetlinkAttributes::new(&[0; 32]).count(), 0);
    }
}
