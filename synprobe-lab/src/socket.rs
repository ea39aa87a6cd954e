//! Kernel sockets of the lab, made inside a namespace and usable from any thread.

use std::{
    io::{self, Read},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use synprobe_common::sys::{
    poll::{self, interest},
    sockopts::{set_option, with_sockaddr},
};

use crate::ns::Ns;

fn stream_socket(ns: &Ns, v6: bool) -> Result<OwnedFd> {
    ns.run(|| {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket() takes no pointers.
        let fd = unsafe { libc::socket(family, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("making a socket");
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// A non-blocking listener on every address of the namespace. With `dual_stack` an IPv6 listener also
/// accepts IPv4 peers.
pub fn listen(
    ns: &Ns,
    any: IpAddr,
    port: u16,
    backlog: i32,
    dual_stack: bool,
) -> Result<TcpListener> {
    listen_with(ns, any, port, backlog, dual_stack, libc::SO_REUSEADDR)
}

/// As [`listen`], with this option of SOL_SOCKET set: SO_REUSEPORT makes it a member of a group.
pub fn listen_with(
    ns: &Ns,
    any: IpAddr,
    port: u16,
    backlog: i32,
    dual_stack: bool,
    option: libc::c_int,
) -> Result<TcpListener> {
    let fd = stream_socket(ns, any.is_ipv6())?;
    let on: libc::c_int = 1;
    set_option(&fd, libc::SOL_SOCKET, option, &on)?;
    if any.is_ipv6() {
        let only = libc::c_int::from(!dual_stack);
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &only)?;
    }
    let bound = with_sockaddr(SocketAddr::new(any, port), |address, len| {
        // SAFETY: the address is alive for the call and its length is its own.
        unsafe { libc::bind(fd.as_raw_fd(), address, len) }
    });
    // SAFETY: listen() takes no pointers.
    if bound != 0 || unsafe { libc::listen(fd.as_raw_fd(), backlog) } != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("listening on port {port}"));
    }
    Ok(fd.into())
}

/// State of a connect(), as the application sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectState {
    /// Still in progress.
    Pending,
    /// Connected.
    Connected,
    /// Failed with this errno.
    Failed(i32),
}

/// A client socket.
pub struct Client {
    /// The socket.
    pub stream: TcpStream,
    /// The address that it connects to.
    pub peer: SocketAddr,
    /// Its local address, with the port that the kernel chose.
    pub local: SocketAddr,
    /// State so far.
    pub seen: ConnectState,
}

impl Client {
    /// Calls connect() without waiting. `prepare` may set options first.
    pub fn connect(
        ns: &Ns,
        peer: SocketAddr,
        prepare: impl FnOnce(&OwnedFd) -> io::Result<()>,
    ) -> Result<Self> {
        let fd = stream_socket(ns, peer.is_ipv6())?;
        prepare(&fd).context("setting a socket option")?;
        let called = with_sockaddr(peer, |address, len| {
            // SAFETY: the address is alive for the call and its length is its own.
            unsafe { libc::connect(fd.as_raw_fd(), address, len) }
        });
        let mut seen = ConnectState::Connected;
        if called != 0 {
            let error = io::Error::last_os_error();
            seen = match error.raw_os_error() {
                Some(libc::EINPROGRESS) => ConnectState::Pending,
                Some(errno) => ConnectState::Failed(errno),
                None => return Err(error.into()),
            };
        }
        let stream = TcpStream::from(fd);
        let local = stream
            .local_addr()
            .context("asking for the local address")?;
        Ok(Self {
            stream,
            peer,
            local,
            seen,
        })
    }

    /// As [`Client::connect`], from a given address and port (0: any). The address need not belong to a
    /// device.
    pub fn connect_from(ns: &Ns, local: SocketAddr, peer: SocketAddr) -> Result<Self> {
        Self::connect(ns, peer, |fd| {
            let on: libc::c_int = 1;
            let (level, name) = match local.is_ipv6() {
                true => (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
                false => (libc::IPPROTO_IP, libc::IP_FREEBIND),
            };
            set_option(fd, level, name, &on)?;
            let bound = with_sockaddr(local, |address, len| {
                // SAFETY: the address is alive for the call and its length is its own.
                unsafe { libc::bind(fd.as_raw_fd(), address, len) }
            });
            match bound {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }

    /// Number of bytes written and not acknowledged.
    pub fn unacknowledged(&self) -> Result<u32> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (TIOCOUTQ by its other name) writes one int, which is alive.
        let asked = unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        match asked {
            0 => Ok(bytes as u32),
            _ => Err(io::Error::last_os_error()).context("asking for unacknowledged data"),
        }
    }

    /// Segments that its socket has retransmitted, its SYN among them (`tcpi_total_retrans`).
    pub fn retransmits(&self) -> Result<u32> {
        // SAFETY: all-zero bytes are a valid `tcp_info`.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the value is alive and its length is its own.
        let got = unsafe {
            libc::getsockopt(
                self.stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut len,
            )
        };
        match got {
            0 => Ok(info.tcpi_total_retrans),
            _ => Err(io::Error::last_os_error()).context("asking for TCP_INFO"),
        }
    }

    /// Sends FIN and waits for the peer's FIN. No segment of the connection is outstanding afterwards.
    pub fn finish(mut self, stop: &AtomicBool, deadline: Instant) -> Result<()> {
        match self.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
            done => done.context("closing a connection")?,
        }
        let mut scratch = [0; 512];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    if Instant::now() >= deadline {
                        bail!("the peer of {} did not close in time", self.local);
                    }
                    let mut row = [interest(self.stream.as_raw_fd(), libc::POLLIN)];
                    poll::wait(&mut row, deadline.min(Instant::now() + poll::SLICE))?;
                }
                Err(error) => {
                    let ends = format!("{} to {}", self.local, self.peer);
                    return Err(error).with_context(|| format!("reading until the end, {ends}"));
                }
            }
        }
    }

    /// Closes with a RST instead of a FIN.
    pub fn reset(self) -> Result<()> {
        reset_at_close(&self.stream)
    }
}

/// Waits until a RST has ended a client's connection.
pub fn wait_reset(client: &Client, stop: &AtomicBool, deadline: Instant) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if let Some(error) = client.stream.take_error()? {
            // EPIPE: the FIN came first.
            match error.raw_os_error() {
                Some(libc::ECONNRESET | libc::EPIPE) => return Ok(()),
                _ => return Err(error).context("waiting for a RST"),
            }
        }
        if Instant::now() >= deadline {
            bail!("no RST came for {}", client.local);
        }
        pause(Duration::from_millis(1), stop)?;
    }
    Ok(())
}

/// Makes close() send a RST instead of a FIN.
pub fn reset_at_close(stream: &TcpStream) -> Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(stream, libc::SOL_SOCKET, libc::SO_LINGER, &linger).context("setting SO_LINGER")
}

/// Waits until no connect() is in progress, `until` has passed, or `stop` is set.
pub fn settle<'a>(
    clients: impl IntoIterator<Item = &'a mut Client>,
    stop: &AtomicBool,
    until: Instant,
) -> Result<()> {
    let mut pending: Vec<_> = clients
        .into_iter()
        .filter(|client| client.seen == ConnectState::Pending)
        .collect();
    while !pending.is_empty() && !stop.load(Ordering::Relaxed) && Instant::now() < until {
        let mut rows: Vec<_> = pending
            .iter()
            .map(|client| interest(client.stream.as_raw_fd(), libc::POLLOUT))
            .collect();
        poll::wait(&mut rows, until.min(Instant::now() + poll::SLICE))?;
        for (client, row) in pending.iter_mut().zip(&rows) {
            if row.revents & (libc::POLLOUT | libc::POLLHUP) == 0 {
                // A soft ICMP error. Reading SO_ERROR would clear it, and a blocking connect() would
                // continue.
                if row.revents != 0 {
                    drain_error_queue(&client.stream);
                }
                continue;
            }
            client.seen = match client.stream.take_error().context("asking for SO_ERROR")? {
                None => ConnectState::Connected,
                Some(error) => ConnectState::Failed(error.raw_os_error().unwrap_or(0)),
            };
        }
        pending.retain(|client| client.seen == ConnectState::Pending);
    }
    Ok(())
}

/// Removes one message from the error queue, so that poll() no longer reports it.
fn drain_error_queue(stream: &TcpStream) {
    let mut scratch = [0u8; 64];
    // SAFETY: the buffer is alive and its length is its own. Without a message the call fails.
    unsafe {
        libc::recv(
            stream.as_raw_fd(),
            scratch.as_mut_ptr().cast(),
            scratch.len(),
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
}

/// Waits for `pause`, or until `stop` is set.
pub fn pause(pause: Duration, stop: &AtomicBool) -> Result<()> {
    let until = Instant::now() + pause;
    while !stop.load(Ordering::Relaxed) && Instant::now() < until {
        poll::wait(&mut [], until.min(Instant::now() + poll::SLICE))?;
    }
    Ok(())
}
