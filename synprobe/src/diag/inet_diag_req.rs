//! Requests to sock_diag.

use super::netlink::{HEADER, NLM_F_DUMP, NLM_F_REQUEST};

/// `TCPDIAG_GETSOCK`: the request before `SOCK_DIAG_BY_FAMILY`, still served by every kernel. Its
/// dump takes both families in one walk (`inet_diag_dump_compat()` sets AF_UNSPEC).
pub(super) const TCPDIAG_GETSOCK: u16 = 18;
/// `SOCK_DIAG_BY_FAMILY`.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// A request: header and `inet_diag_req_v2` (56 bytes) or `inet_diag_req` (60). The sender sets `nlmsg_seq`.
pub(super) struct InetDiagRequest {
    pub(super) bytes: [u8; HEADER + 60],
    pub(super) len: usize,
    /// Where `struct inet_diag_sockid` starts.
    id: usize,
}

impl InetDiagRequest {
    /// `SOCK_DIAG_BY_FAMILY` with `struct inet_diag_req_v2`.
    pub(super) fn one(flags: u16, family: u16, ext: u8, states: u32) -> Self {
        let mut request = Self::new(SOCK_DIAG_BY_FAMILY, flags, HEADER + 56, HEADER + 8);
        request.bytes[HEADER] = family as u8;
        request.bytes[HEADER + 1] = libc::IPPROTO_TCP as u8;
        request.bytes[HEADER + 2] = ext;
        request.bytes[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
        request
    }

    /// `TCPDIAG_GETSOCK` with `struct inet_diag_req`.
    pub(super) fn both(ext: u8, states: u32) -> Self {
        let mut request = Self::new(TCPDIAG_GETSOCK, NLM_F_DUMP, HEADER + 60, HEADER + 4);
        request.bytes[HEADER + 3] = ext;
        request.bytes[HEADER + 52..HEADER + 56].copy_from_slice(&states.to_ne_bytes());
        request
    }

    fn new(kind: u16, flags: u16, len: usize, id: usize) -> Self {
        let mut request = Self {
            bytes: [0; HEADER + 60],
            len,
            id,
        };
        request.bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        request.bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        request.bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        // INET_DIAG_NOCOOKIE: any socket matches.
        request.id(40, &[0xff; 8]);
        request
    }

    /// Writes a member of the sockid at its offset there.
    pub(super) fn id(&mut self, at: usize, value: &[u8]) {
        let start = self.id + at;
        self.bytes[start..start + value.len()].copy_from_slice(value);
    }
}
