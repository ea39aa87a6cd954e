//! The attempts: one socket for each address, started one after the other as an application would, each
//! followed to its end.

use std::{
    io::{self, PipeReader},
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use super::{
    icmp::{self, Icmp},
    order::STAGGER,
    path::{PathInfo, RedirectInfo, RouteLookup},
};
use crate::sys::{
    clock::monotonic_ns,
    poll::{interest, wait},
    sockopts::with_sockaddr,
};

/// A wait without another bound.
const LONG_WAIT: Duration = Duration::from_secs(3600);

/// How an attempt ended, as the socket saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// connect() succeeded.
    Connected,
    /// It failed with this errno.
    Failed(i32),
    /// `--timeout` passed first, and the socket was closed.
    TimedOut,
    /// The user interrupted it.
    Interrupted,
}

/// An attempt that has ended. Times are CLOCK_MONOTONIC, nanoseconds.
#[derive(Clone, Debug)]
pub struct AttemptResult {
    /// The address.
    pub peer: SocketAddr,
    /// When connect() was called.
    pub began_ns: u64,
    /// When the end was seen.
    pub ended_ns: u64,
    /// How it ended.
    pub end: AttemptEnd,
    /// The local address; `None`: the kernel chose none.
    pub local: Option<SocketAddr>,
    /// The last ICMP error that it received.
    pub icmp: Option<Icmp>,
    /// The route.
    pub path: PathInfo,
    /// The destination that a program of the cgroup gave it in place of the address called.
    pub rewritten: Option<SocketAddr>,
    /// Where this host sends it in place of the address called.
    pub redirect: Option<RedirectInfo>,
}

/// An attempt under way.
struct PendingAttempt {
    socket: OwnedFd,
    /// Index of the result.
    at: usize,
    deadline: Instant,
}

/// Tries every address until it ends, at most `timeout` after its start. An attempt starts 250 ms after the
/// one before it, or at once if that one has failed. Everything ends when the other end of `halted` is
/// closed. Sockets are opened in the calling thread's namespace.
///
/// # Errors
///
/// poll() failed. A failed connection is a result, not an error.
pub fn try_all(
    peers: &[SocketAddr],
    timeout: Duration,
    halted: &PipeReader,
    routes: &mut RouteLookup,
) -> io::Result<Vec<AttemptResult>> {
    let mut tried: Vec<AttemptResult> = Vec::new();
    let mut open: Vec<PendingAttempt> = Vec::new();
    let mut due = Instant::now();
    loop {
        let last_failed = tried
            .last()
            .is_some_and(|last| matches!(last.end, AttemptEnd::Failed(_)));
        if let Some(peer) = peers.get(tried.len())
            && (last_failed || due <= Instant::now())
        {
            let (result, socket) = begin(*peer, routes);
            // Counted from connect(): the lookups before it are not part of the stagger.
            due = Instant::now() + STAGGER;
            if let Some(socket) = socket {
                open.push(PendingAttempt {
                    socket,
                    at: tried.len(),
                    deadline: Instant::now() + timeout,
                });
            }
            tried.push(result);
            continue;
        }
        let more = tried.len() < peers.len();
        if open.is_empty() && !more {
            return Ok(tried);
        }
        let until = open
            .iter()
            .map(|o| o.deadline)
            .chain(more.then_some(due))
            .min()
            .unwrap_or_else(|| Instant::now() + LONG_WAIT);
        let mut rows: Vec<libc::pollfd> = open
            .iter()
            .map(|o| interest(o.socket.as_raw_fd(), libc::POLLOUT))
            .collect();
        rows.push(interest(halted.as_raw_fd(), 0));
        wait(&mut rows, until)?;
        let interrupted = rows.pop().is_some_and(|row| row.revents != 0);
        let now = Instant::now();
        let mut ready = rows.iter().map(|row| row.revents != 0);
        open.retain(|o| {
            let result = &mut tried[o.at];
            if ready.next() == Some(true)
                && let Some(end) = poll_attempt(&o.socket, result)
            {
                result.end = end;
            } else if interrupted {
                result.end = AttemptEnd::Interrupted;
            } else if o.deadline > now {
                return true;
            }
            result.ended_ns = monotonic_ns();
            false
        });
        if interrupted {
            return Ok(tried);
        }
    }
}

/// Calls connect(). Returns the socket if the attempt has not ended.
fn begin(peer: SocketAddr, routes: &mut RouteLookup) -> (AttemptResult, Option<OwnedFd>) {
    let path = routes.to(peer);
    let socket = stream_socket(peer.is_ipv6());
    if let Ok(socket) = &socket {
        icmp::keep(socket);
    }
    let mut result = AttemptResult {
        peer,
        began_ns: monotonic_ns(),
        ended_ns: 0,
        end: AttemptEnd::TimedOut,
        local: None,
        icmp: None,
        path,
        rewritten: None,
        redirect: None,
    };
    let called = socket.and_then(|socket| {
        let called = with_sockaddr(peer, |address, len| {
            // SAFETY: the address is alive for the call and its length is its own.
            unsafe { libc::connect(socket.as_raw_fd(), address, len) }
        });
        let error = (called != 0).then(io::Error::last_os_error);
        result.local = local(socket.as_raw_fd());
        if let Some(local) = result.local {
            result.rewritten = routes.other_destination(&socket, local, peer);
        }
        match error {
            Some(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                result.icmp = icmp::take(&socket);
                Err(error)
            }
            Some(_) => Ok(Some(socket)),
            None => Ok(None),
        }
    });
    let (end, socket) = match called {
        Ok(Some(socket)) => return (result, Some(socket)),
        Ok(None) => (AttemptEnd::Connected, None),
        Err(error) => (
            AttemptEnd::Failed(error.raw_os_error().unwrap_or(libc::EIO)),
            None,
        ),
    };
    (result.end, result.ended_ns) = (end, monotonic_ns());
    (result, socket)
}

/// How the attempt ended; `None`: it is under way. A socket with an ICMP error in its queue is ready
/// before that.
fn poll_attempt(socket: &OwnedFd, result: &mut AttemptResult) -> Option<AttemptEnd> {
    /// `TCP_CLOSE` and `TCP_SYN_SENT` (include/net/tcp_states.h).
    const CLOSE: u8 = 7;
    const SYN_SENT: u8 = 2;
    let state = tcp_state(socket.as_raw_fd());
    if state == Some(SYN_SENT) {
        result.icmp = icmp::take(socket).or(result.icmp.take());
        return None;
    }
    // Read before the error queue: reading the queue clears it.
    let error = socket_error(socket.as_raw_fd());
    result.icmp = icmp::take(socket).or(result.icmp.take());
    result.local = local(socket.as_raw_fd()).or(result.local);
    Some(match (error, state) {
        (0, Some(CLOSE)) => {
            let known = result.icmp.as_ref().map(|icmp| icmp.errno);
            AttemptEnd::Failed(known.filter(|e| *e != 0).unwrap_or(libc::ECONNABORTED))
        }
        (0, _) => AttemptEnd::Connected,
        (error, _) => AttemptEnd::Failed(error),
    })
}

fn stream_socket(v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The socket's own address, once it has a port.
fn local(fd: RawFd) -> Option<SocketAddr> {
    // SAFETY: the descriptor is open and stays ours: `ManuallyDrop` never closes it.
    let stream = std::mem::ManuallyDrop::new(unsafe { std::net::TcpStream::from_raw_fd(fd) });
    stream.local_addr().ok().filter(|addr| addr.port() != 0)
}

fn socket_error(fd: RawFd) -> i32 {
    // SAFETY: as in `local`.
    let stream = std::mem::ManuallyDrop::new(unsafe { std::net::TcpStream::from_raw_fd(fd) });
    match stream.take_error() {
        Ok(None) => 0,
        Ok(Some(error)) | Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// `tcpi_state`, the first byte of `struct tcp_info`.
fn tcp_state(fd: RawFd) -> Option<u8> {
    let mut state = 0_u8;
    let mut len = size_of_val(&state) as libc::socklen_t;
    // SAFETY: the kernel writes no more than the one byte that the length allows.
    let got = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut len,
        )
    };
    (got == 0 && len == 1).then_some(state)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::sys::netns::NetNs;

    /// A loopback address that only these tests use.
    const HERE: Ipv4Addr = Ipv4Addr::new(127, 83, 0, 1);

    fn routes() -> RouteLookup {
        RouteLookup::open(&NetNs::current().unwrap())
    }

    fn try_them(peers: &[SocketAddr], timeout: Duration) -> Vec<AttemptResult> {
        let (halted, _halt) = io::pipe().unwrap();
        try_all(peers, timeout, &halted, &mut routes()).unwrap()
    }

    /// A listener whose queues are full drops every further SYN: silence without a namespace.
    fn silent() -> (TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        // SAFETY: listen() takes no pointers.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let mut fill = Vec::new();
        while let Ok(stream) =
            std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(300))
        {
            fill.push(stream);
        }
        (listener, fill, addr)
    }

    #[test]
    fn each_address_is_tried_to_its_end() {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let open = listener.local_addr().unwrap();
        let closed = SocketAddr::from((Ipv4Addr::new(127, 83, 0, 2), open.port()));
        let tried = try_them(&[closed, open], Duration::from_secs(5));
        assert_eq!(tried[0].end, AttemptEnd::Failed(libc::ECONNREFUSED));
        assert_eq!(tried[1].end, AttemptEnd::Connected);
        assert_eq!(
            tried[1].local.map(|addr| addr.ip()),
            tried[1].path.source,
            "as the path says"
        );
        assert_eq!(tried[1].path.interface.as_deref(), Some("lo"));
        let after = tried[1].began_ns - tried[0].ended_ns;
        assert!(
            after < 100_000_000,
            "at once after a failure, not {after} ns"
        );
    }

    #[test]
    fn silence_is_waited_for_and_the_next_begins_meanwhile() {
        let (_listener, _fill, silent) = silent();
        let open = TcpListener::bind((HERE, 0)).unwrap();
        let timeout = Duration::from_millis(900);
        let tried = try_them(&[silent, open.local_addr().unwrap()], timeout);
        assert_eq!(
            (tried[0].end, tried[1].end),
            (AttemptEnd::TimedOut, AttemptEnd::Connected)
        );
        let stagger = Duration::from_nanos(tried[1].began_ns - tried[0].began_ns);
        assert!((STAGGER..STAGGER * 2).contains(&stagger), "{stagger:?}");
        let waited = Duration::from_nanos(tried[0].ended_ns - tried[0].began_ns);
        assert!((timeout..timeout * 2).contains(&waited), "{waited:?}");
        assert!(tried[1].ended_ns < tried[0].ended_ns);
        assert!(tried[0].local.is_some(), "the port is known all the same");
    }

    #[test]
    fn an_interruption_ends_it() {
        let (_listener, _fill, silent) = silent();
        let (halted, halt) = io::pipe().unwrap();
        drop(halt);
        let tried = try_all(
            &[silent, silent],
            Duration::from_secs(60),
            &halted,
            &mut routes(),
        );
        let tried = tried.unwrap();
        assert_eq!(tried.len(), 1, "the second is not begun");
        assert_eq!(tried[0].end, AttemptEnd::Interrupted);
    }

    #[test]
    fn what_connect_itself_refuses_is_over_at_once() {
        // A group: `tcp_v4_connect()` refuses it whatever the routes are, and nothing is sent.
        let tried = try_them(&["224.0.0.1:80".parse().unwrap()], Duration::from_secs(5));
        assert_eq!(
            tried[0].end,
            AttemptEnd::Failed(libc::ENETUNREACH),
            "{tried:?}"
        );
        assert!(tried[0].ended_ns >= tried[0].began_ns);
    }
}
