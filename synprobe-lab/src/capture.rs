//! Captures every TCP segment on one end of the lab's link with the kernel's time stamps. Tests compare
//! synprobe's times with it.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use synprobe_common::sys::poll::{self, interest};

use crate::{
    ns::Ns,
    packet::TcpSegment,
    packet_socket::PacketSocket,
    server::{eventfd, signal},
};

/// A captured segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedSegment {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub mono_ns: u64,
    /// True for egress, false for ingress.
    pub outgoing: bool,
    /// The segment.
    pub segment: TcpSegment,
}

/// The result of a capture.
#[derive(Clone, Debug, Default)]
pub struct PacketTrace {
    /// The segments in capture order.
    pub segments: Vec<CapturedSegment>,
    /// Frames dropped because the receive buffer was full.
    pub missed: u32,
}

/// A running capture. It also contains segments that the fault injector drops on ingress.
pub struct Capture {
    wake: OwnedFd,
    thread: Option<JoinHandle<io::Result<PacketTrace>>>,
}

impl Capture {
    /// Starts a capture on the lab's interface in `ns`.
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

    /// Stops the capture. The trace contains everything captured so far.
    pub fn stop(mut self) -> Result<PacketTrace> {
        self.end()
            .unwrap_or(Ok(PacketTrace::default()))
            .context("capturing segments")
    }

    fn end(&mut self) -> Option<io::Result<PacketTrace>> {
        let thread = self.thread.take()?;
        signal(&self.wake);
        let panicked = |_| Err(io::Error::other(anyhow!("the capture panicked")));
        Some(thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // stop() returns the trace and the error.
        let _ = self.end();
    }
}

fn record(mut socket: PacketSocket, wake: &OwnedFd) -> io::Result<PacketTrace> {
    let mut trace = PacketTrace::default();
    loop {
        let mut rows = [
            interest(wake.as_raw_fd(), libc::POLLIN),
            interest(socket.fd().as_raw_fd(), libc::POLLIN),
        ];
        poll::wait(&mut rows, Instant::now() + Duration::from_secs(60))?;
        while let Some(frame) = socket.receive()? {
            let Some(segment) = TcpSegment::from_frame(frame.bytes) else {
                continue;
            };
            trace.segments.push(CapturedSegment {
                mono_ns: frame.mono_ns,
                outgoing: frame.outgoing,
                segment,
            });
        }
        if rows[0].revents != 0 {
            trace.missed = socket.missed()?;
            return Ok(trace);
        }
    }
}
