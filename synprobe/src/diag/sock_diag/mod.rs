//! The TCP sockets of a namespace, from NETLINK_SOCK_DIAG.
//!
//! A dump is a walk, not a snapshot: it reads the table bucket by bucket while connections come and go.
//! A socket in it existed at some moment between its two times. A socket that is missing may exist
//! nevertheless: within a bucket the kernel resumes by position, so a removal hides a neighbour
//! (`tcp_diag_dump()`, all versions), and NLM_F_DUMP_INTR does not show it. Where absence matters, use
//! [`SockDiag::get`].
//!
//! The cost is that of the host's whole connection table (`tcp_ehash_entries` buckets), however few
//! sockets the namespace has, unless only LISTEN is requested.

#[cfg(test)]
mod tests;

use std::{io, os::fd::OwnedFd, time::Instant};

use synprobe_ebpf::event::{AF_INET, AF_INET6, Flow};

use super::{
    buffers::Scratch,
    inet_diag_msg::{INET_DIAG_INFO, INET_DIAG_SKMEMINFO, Row, is_v4_mapped, mask},
    inet_diag_req::{InetDiagRequest, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK},
    netlink::{
        NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkMessage, NetlinkMessages,
    },
    netlink_socket::{self, answer, invalid, open_socket, receive},
};
use crate::sys::{clock::monotonic_ns, netns::NetNs};

/// `NLMSG_OVERRUN`: replies were lost.
const NLMSG_OVERRUN: u16 = 4;

/// Which sockets a dump takes. By family of the socket: an IPv6 one that talks to an IPv4 peer is
/// [`Families::V6`], with mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// AF_INET sockets alone.
    V4,
    /// AF_INET6 sockets alone.
    V6,
    /// Both, in one walk: half the cost of two.
    Both,
}

/// What to dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Families.
    pub families: Families,
    /// States, of [`mask`].
    pub states: u32,
    /// Only this local port; 0: any. Compared in the kernel, so it makes the dump cheaper.
    pub local_port: u16,
    /// Only this peer port; 0: any.
    pub peer_port: u16,
    /// Also fill [`Row::tcp_info`]. It takes each socket's lock (`tcp_get_info()`): only where needed.
    pub tcp_info: bool,
    /// Also fill [`Row::drops`].
    pub drops: bool,
}

impl Query {
    /// All sockets of both families in these states.
    #[must_use]
    pub fn states(states: u32) -> Self {
        Self {
            families: Families::Both,
            states,
            local_port: 0,
            peer_port: 0,
            tcp_info: false,
            drops: false,
        }
    }
}

/// Times and completeness of a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// CLOCK_MONOTONIC before the request was sent, nanoseconds.
    pub before_ns: u64,
    /// CLOCK_MONOTONIC after the last reply was read, nanoseconds.
    pub after_ns: u64,
    /// Rows seen.
    pub rows: u64,
    /// The kernel reports that the dump is incomplete.
    pub interrupted: bool,
}

/// A dump and its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SockDump {
    /// As [`Dump::before_ns`].
    pub before_ns: u64,
    /// As [`Dump::after_ns`].
    pub after_ns: u64,
    /// The sockets.
    pub rows: Vec<Row>,
    /// As [`Dump::interrupted`].
    pub interrupted: bool,
}

/// A NETLINK_SOCK_DIAG socket bound to one namespace; usable from any thread.
#[derive(Debug)]
pub struct SockDiag {
    fd: OwnedFd,
    seq: u32,
    netns: u32,
    /// A dump was not read to its end: the rest must be read before the next request.
    unfinished: bool,
}

impl SockDiag {
    /// Opens the socket inside `netns`.
    ///
    /// # Errors
    /// EPERM: the namespace cannot be entered; EPROTONOSUPPORT or ENOENT (at the first request)
    /// on a kernel without `CONFIG_INET_TCP_DIAG`. Needs no privilege beyond entering.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        let fd = netns.run(open_socket)??;
        Ok(Self {
            fd,
            seq: 0,
            netns: netns.inode(),
            unfinished: false,
        })
    }

    /// Makes every later request fail, as a kernel does that refuses it.
    #[cfg(test)]
    pub(crate) fn break_it(&self) {
        use std::os::fd::AsRawFd;
        let null = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: both descriptors are open; the socket's number then is of another file, and is closed once.
        assert!(unsafe { libc::dup2(null.as_raw_fd(), self.fd.as_raw_fd()) } >= 0);
    }

    /// Inode number of its namespace.
    #[must_use]
    pub fn netns(&self) -> u32 {
        self.netns
    }

    /// Calls `each` for every socket that matches, in the kernel's order; allocates nothing.
    ///
    /// # Errors
    /// The kernel's error; TimedOut: no answer; InvalidData: a malformed answer. The socket stays usable.
    pub fn dump_with(&mut self, query: &Query, each: impl FnMut(&Row)) -> io::Result<Dump> {
        self.dump_until(query, None, each)
    }

    /// The same, as long as there is time.
    ///
    /// # Errors
    /// As [`SockDiag::dump_with`]; TimedOut: no time is left.
    pub fn dump_until(
        &mut self,
        query: &Query,
        until: Option<Instant>,
        mut each: impl FnMut(&Row),
    ) -> io::Result<Dump> {
        let before_ns = monotonic_ns();
        self.send(&self.dump_request(query))?;
        let mut dump = Dump {
            before_ns,
            ..Dump::default()
        };
        let mut done = false;
        let mut scratch = Scratch::take();
        while !done {
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let datagram = receive(&self.fd, &mut scratch, 0)?;
            for message in NetlinkMessages::new(datagram) {
                let message = message.map_err(invalid)?;
                if message.seq != self.seq {
                    continue;
                }
                dump.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => {
                        each(&row(&message)?);
                        dump.rows += 1;
                    }
                    NLMSG_DONE | NLMSG_ERROR => {
                        // Nothing follows it.
                        self.unfinished = false;
                        message.errno()?;
                        done = true;
                    }
                    NLMSG_OVERRUN => dump.interrupted = true,
                    _ => {}
                }
            }
        }
        dump.after_ns = monotonic_ns();
        Ok(dump)
    }

    /// As [`SockDiag::dump_with`], kept in a vector.
    ///
    /// # Errors
    /// As [`SockDiag::dump_with`].
    pub fn dump(&mut self, query: &Query) -> io::Result<SockDump> {
        let mut rows = Vec::new();
        let dump = self.dump_with(query, |row| rows.push(*row))?;
        Ok(SockDump {
            before_ns: dump.before_ns,
            after_ns: dump.after_ns,
            rows,
            interrupted: dump.interrupted,
        })
    }

    /// Every half-open of both families: request_socks, and the few sockets that are truly in
    /// SYN_RECV (TCP Fast Open, simultaneous open), which alone have an inode.
    /// Those answered with a SYN cookie are never among them: the kernel keeps nothing of them.
    ///
    /// # Errors
    /// As [`SockDiag::dump_with`].
    pub fn half_opens(&mut self) -> io::Result<SockDump> {
        self.dump(&Query::states(mask::SYN_RECV))
    }

    /// Looks up one connection through the hash: cheap, and unlike a dump it misses nothing. If there is
    /// none, the kernel returns the listener that its packets would reach (`inet_lookup()`): check
    /// [`Row::state`]. `ifindex` is needed for link-local addresses and
    /// sockets bound to a device, else 0.
    ///
    /// # Errors
    /// As [`SockDiag::dump_with`]; no such connection is `Ok(None)`.
    pub fn get(&mut self, flow: &Flow, ifindex: u32) -> io::Result<Option<Row>> {
        self.send(&self.get_request(flow, ifindex))?;
        let unfinished = &mut self.unfinished;
        answer(&self.fd, self.seq, |message| match message.kind {
            SOCK_DIAG_BY_FAMILY => {
                *unfinished = false;
                row(message).map(|row| Some(Some(row)))
            }
            NLMSG_ERROR => {
                *unfinished = false;
                match message.errno() {
                    Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
                    _ => Ok(Some(None)),
                }
            }
            _ => Ok(None),
        })
    }

    fn dump_request(&self, query: &Query) -> InetDiagRequest {
        let ext = u8::from(query.tcp_info) << (INET_DIAG_INFO - 1)
            | u8::from(query.drops) << (INET_DIAG_SKMEMINFO - 1);
        let mut request = match query.families {
            Families::Both => InetDiagRequest::both(ext, query.states),
            Families::V4 => InetDiagRequest::one(NLM_F_DUMP, AF_INET, ext, query.states),
            Families::V6 => InetDiagRequest::one(NLM_F_DUMP, AF_INET6, ext, query.states),
        };
        request.id(0, &query.local_port.to_be_bytes());
        request.id(2, &query.peer_port.to_be_bytes());
        request
    }

    fn get_request(&self, flow: &Flow, ifindex: u32) -> InetDiagRequest {
        // An IPv6 socket with IPv4 addresses is hashed by those: AF_INET finds it too.
        let mapped = is_v4_mapped(&flow.local_addr) && is_v4_mapped(&flow.peer_addr);
        let family = if mapped { AF_INET } else { AF_INET6 };
        let mut request = InetDiagRequest::one(0, family, 0, 0);
        request.id(0, &flow.local_port.to_be_bytes());
        request.id(2, &flow.peer_port.to_be_bytes());
        let significant = if mapped { 12.. } else { 0.. };
        request.id(4, &flow.local_addr[significant.clone()]);
        request.id(20, &flow.peer_addr[significant]);
        request.id(36, &ifindex.to_ne_bytes());
        request
    }

    fn send(&mut self, request: &InetDiagRequest) -> io::Result<()> {
        if self.unfinished {
            // Reading drives the rest of the dump, so this ends it.
            let mut scratch = Scratch::take();
            loop {
                match receive(&self.fd, &mut scratch, libc::MSG_DONTWAIT) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
                    // Too large or an overrun: the rest is discarded anyway.
                    Err(_) => {}
                }
            }
        }
        self.seq = self.seq.wrapping_add(1);
        let mut bytes = request.bytes;
        bytes[8..12].copy_from_slice(&self.seq.to_ne_bytes());
        netlink_socket::send(&self.fd, &bytes[..request.len])?;
        self.unfinished = true;
        Ok(())
    }
}

fn row(message: &NetlinkMessage<'_>) -> io::Result<Row> {
    Row::parse(message.payload).ok_or_else(|| {
        invalid(format!(
            "sock_diag sent a malformed row of {} bytes",
            message.payload.len()
        ))
    })
}
