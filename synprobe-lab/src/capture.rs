//! A record of every TCP segment on one end of the lab's link, with the kernel's time stamps: what
//! synprobe's times are held against.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::ns::Ns;
use super::packet::Segment;
use super::packet_socket::PacketSocket;
use super::server::{eventfd, signal};
use synprobe_common::sys::poll::{self, interest};

/// A segment and when it passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub mono_ns: u64,
    /// It left the namespace, and did not come in.
    pub outgoing: bool,
    /// The segment.
    pub segment: Segment,
}

/// What a capture has recorded.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The segments, in the order in which they passed.
    pub segments: Vec<Captured>,
    /// Frames that the capture was too slow for.
    pub missed: u32,
}

/// A capture under way. Segments that a fault loses on their way in are recorded too: the capture
/// sits before it.
pub struct Capture {
    wake: OwnedFd,
    thread: Option<JoinHandle<io::Result<Recording>>>,
}

impl Capture {
    /// Starts on the lab's interface in `ns`.
    pub fn start(ns: &Ns) -> Result<Self> {
        let socket = PacketSocket::open(ns)?;
        let wake = eventfd().context("an eventfd for the capture")?;
        let woken = wake.try_clone().context("an eventfd for the capture")?;
        let thread = thread::Builder::new()
            .name("lab-capture".into())
            .spawn(move || record(socket, &woken))
            .context("starting the capture")?;
        Ok(Self {
            wake,
            thread: Some(thread),
        })
    }

    /// Ends it; everything that had passed by now is in the recording.
    pub fn stop(mut self) -> Result<Recording> {
        self.end()
            .unwrap_or(Ok(Recording::default()))
            .context("capturing segments")
    }

    fn end(&mut self) -> Option<io::Result<Recording>> {
        let thread = self.thread.take()?;
        signal(&self.wake);
        let panicked = |_| Err(io::Error::other(anyhow!("the capture panicked")));
        Some(thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Whoever wants the recording, or its error, calls stop().
        let _ = self.end();
    }
}

fn record(mut socket: PacketSocket, wake: &OwnedFd) -> io::Result<Recording> {
    let mut recording = Recording::default();
    loop {
        let mut rows = [
            interest(wake.as_raw_fd(), libc::POLLIN),
            interest(socket.fd().as_raw_fd(), libc::POLLIN),
        ];
        poll::wait(&mut rows, Instant::now() + Duration::from_secs(60))?;
        while let Some(frame) = socket.receive()? {
            let Some(segment) = Segment::from_frame(frame.bytes) else {
                continue;
            };
            recording.segments.push(Captured {
                mono_ns: frame.mono_ns,
                outgoing: frame.outgoing,
                segment,
            });
        }
        if rows[0].revents != 0 {
            recording.missed = socket.missed()?;
            return Ok(recording);
        }
    }
}
