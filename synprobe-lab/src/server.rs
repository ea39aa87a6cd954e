//! The lab's application on the server's side: accepts, reads until the end, closes.

use std::{
    collections::HashMap,
    io::{self, Read},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use synprobe_common::sys::poll::{self, interest};

/// Connections accepted before ended ones are closed. After a pause more connections can wait than the
/// descriptor limit allows.
const ACCEPTED_AT_ONCE: u64 = 64;

/// Totals of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerTotals {
    /// Connections accepted.
    pub accepted: u64,
    /// Bytes read from them.
    pub bytes: u64,
}

/// A running server. Dropping it stops it.
pub struct Server {
    wake: OwnedFd,
    thread: Option<JoinHandle<io::Result<ServerTotals>>>,
}

impl Server {
    /// Starts a server for these non-blocking listeners.
    pub fn start(listeners: Vec<TcpListener>) -> Result<Self> {
        let wake = eventfd().context("an eventfd for the server")?;
        let woken = wake.try_clone().context("an eventfd for the server")?;
        let thread = thread::Builder::new()
            .name("lab-server".into())
            .spawn(move || serve(&listeners, &woken))
            .context("starting the server")?;
        Ok(Self {
            wake,
            thread: Some(thread),
        })
    }

    /// Stops the server and returns its totals.
    pub fn stop(mut self) -> Result<ServerTotals> {
        self.end()
            .unwrap_or(Ok(ServerTotals::default()))
            .context("the lab's server")
    }

    fn end(&mut self) -> Option<io::Result<ServerTotals>> {
        let thread = self.thread.take()?;
        signal(&self.wake);
        Some(
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other(anyhow!("the thread panicked")))),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Another error is being returned already; this one may be its cause.
        if let Some(Err(error)) = self.end() {
            eprintln!("the lab's server: {error}");
        }
    }
}

/// An eventfd that wakes a thread.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: eventfd() takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Wakes the thread that polls the descriptor.
pub(super) fn signal(eventfd: &OwnedFd) {
    let one = 1u64;
    // SAFETY: the value is alive and 8 bytes long, as eventfd wants. It cannot fail: the counter is
    // far from its maximum.
    unsafe { libc::write(eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
}

fn serve(listeners: &[TcpListener], wake: &OwnedFd) -> io::Result<ServerTotals> {
    let mut served = ServerTotals::default();
    let mut open: HashMap<RawFd, TcpStream> = HashMap::new();
    loop {
        let mut rows = vec![interest(wake.as_raw_fd(), libc::POLLIN)];
        let fixed = listeners.iter().map(AsRawFd::as_raw_fd);
        rows.extend(
            fixed
                .chain(open.keys().copied())
                .map(|fd| interest(fd, libc::POLLIN)),
        );
        poll::wait(&mut rows, Instant::now() + Duration::from_secs(60))?;
        if rows[0].revents != 0 {
            return Ok(served);
        }
        for row in rows.iter().filter(|row| row.revents != 0) {
            if let Some(stream) = open.get_mut(&row.fd)
                && read_some(stream, &mut served)?
            {
                open.remove(&row.fd);
            }
        }
        for listener in listeners {
            served.accepted += accept_some(listener, &mut open)?;
        }
    }
}

/// Accepts connections; returns their number.
fn accept_some(listener: &TcpListener, open: &mut HashMap<RawFd, TcpStream>) -> io::Result<u64> {
    for accepted in 0..ACCEPTED_AT_ONCE {
        let Some(stream) = accept(listener)? else {
            return Ok(accepted);
        };
        stream.set_nonblocking(true)?;
        open.insert(stream.as_raw_fd(), stream);
    }
    Ok(ACCEPTED_AT_ONCE)
}

fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // The peer closed it before accept().
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads available data; true at the end of the connection.
fn read_some(stream: &mut TcpStream, served: &mut ServerTotals) -> io::Result<bool> {
    let mut scratch = [0; 4096];
    loop {
        match stream.read(&mut scratch) {
            Ok(0) => return Ok(true),
            Ok(got) => served.bytes += got as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_connections_are_closed_before_all_are_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        for _ in 0..=ACCEPTED_AT_ONCE {
            drop(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        }
        let mut open = HashMap::new();
        assert_eq!(accept_some(&listener, &mut open).unwrap(), ACCEPTED_AT_ONCE);
        assert_eq!(open.len() as u64, ACCEPTED_AT_ONCE);
        assert_eq!(accept_some(&listener, &mut open).unwrap(), 1);
    }
}
