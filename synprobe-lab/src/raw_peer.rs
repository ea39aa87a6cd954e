//! A TCP peer without a kernel stack: it plays one end of three-way handshakes from a namespace
//! without addresses, and waits as long as it is told before its SYN-ACK or its final ACK.
//!
//! It answers a FIN with RST, so that no connection outlives its test.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::net::{CLIENT_MAC, SERVER_MAC};
use super::packet::{Segment, flags};
use super::packet_socket::{PacketSocket, now_ns};
use super::server::{eventfd, signal};
use super::{Lab, PORT};
use synprobe_common::sys::poll::{self, interest};

/// What the peer knows of one handshake, times in nanoseconds of CLOCK_MONOTONIC. Times of
/// segments it received are the kernel's; those of segments it sent were taken just before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireHandshake {
    /// The client's port.
    pub client_port: u16,
    /// How long the peer waited, as it was told.
    pub delay: Duration,
    /// The first SYN.
    pub syn_ns: Option<u64>,
    /// The first SYN-ACK.
    pub syn_ack_ns: Option<u64>,
    /// The final ACK.
    pub ack_ns: Option<u64>,
}

/// The peer, at work in the server's namespace of a lab made with [`Lab::with_bare_server`].
pub struct WirePeer {
    wake: OwnedFd,
    thread: Option<JoinHandle<io::Result<Vec<WireHandshake>>>>,
}

impl WirePeer {
    /// Plays a server on [`PORT`]: the `n`th handshake (from 0) has its SYN answered after
    /// `delay(n)`.
    pub fn serve(lab: &Lab, delay: impl Fn(u32) -> Duration + Send + 'static) -> Result<Self> {
        Self::start(lab, Play::Server, delay)
    }

    /// Plays a client of the kernel's [`PORT`]: `count` handshakes, a SYN every `spacing`, the
    /// `n`th's SYN-ACK acknowledged after `delay(n)`.
    pub fn call(
        lab: &Lab,
        count: u16,
        spacing: Duration,
        delay: impl Fn(u32) -> Duration + Send + 'static,
    ) -> Result<Self> {
        Self::start(lab, Play::Client { count, spacing }, delay)
    }

    fn start(
        lab: &Lab,
        play: Play,
        delay: impl Fn(u32) -> Duration + Send + 'static,
    ) -> Result<Self> {
        let socket = PacketSocket::open(&lab.server)?;
        let wake = eventfd().context("an eventfd for the wire peer")?;
        let woken = wake.try_clone().context("an eventfd for the wire peer")?;
        let peer = Peer {
            socket,
            kernel: lab.client_ip(),
            own: lab.server_ip(),
            play,
            delay,
            due: BinaryHeap::new(),
            handshakes: Vec::new(),
            by_port: HashMap::new(),
        };
        let thread = thread::Builder::new()
            .name("lab-wire-peer".into())
            .spawn(move || peer.work(&woken))
            .context("starting the wire peer")?;
        Ok(Self {
            wake,
            thread: Some(thread),
        })
    }

    /// Ends it; the handshakes in the order in which they began.
    pub fn stop(mut self) -> Result<Vec<WireHandshake>> {
        self.end()
            .unwrap_or(Ok(Vec::new()))
            .context("the wire peer")
    }

    fn end(&mut self) -> Option<io::Result<Vec<WireHandshake>>> {
        let thread = self.thread.take()?;
        signal(&self.wake);
        let panicked = |_| Err(io::Error::other(anyhow!("the wire peer panicked")));
        Some(thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for WirePeer {
    fn drop(&mut self) {
        // Whoever wants the handshakes, or the error, calls stop().
        let _ = self.end();
    }
}

#[derive(Clone, Copy)]
enum Play {
    Server,
    Client { count: u16, spacing: Duration },
}

/// First port of the handshakes the peer starts, and its initial sequence number.
const FIRST_PORT: u16 = 30_000;
const OWN_ISN: u32 = 0x1000_0000;

struct Peer<D> {
    socket: PacketSocket,
    kernel: IpAddr,
    own: IpAddr,
    play: Play,
    delay: D,
    /// What to send, and when.
    due: BinaryHeap<Reverse<(Instant, usize, Reply)>>,
    handshakes: Vec<WireHandshake>,
    by_port: HashMap<u16, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reply {
    Syn,
    SynAck { ack: u32 },
    Ack { ack: u32 },
}

impl<D: Fn(u32) -> Duration> Peer<D> {
    fn work(mut self, wake: &OwnedFd) -> io::Result<Vec<WireHandshake>> {
        if let Play::Client { count, spacing } = self.play {
            for n in 0..count {
                let index = self.handshake(FIRST_PORT + n);
                let at = Instant::now() + spacing * n.into();
                self.due.push(Reverse((at, index, Reply::Syn)));
            }
        }
        loop {
            while let Some(&Reverse((at, index, what))) = self.due.peek() {
                if at > Instant::now() {
                    break;
                }
                self.due.pop();
                self.send(index, what)?;
            }
            let idle = Instant::now() + Duration::from_secs(60);
            let until = self.due.peek().map_or(idle, |Reverse((at, ..))| *at);
            let mut rows = [
                interest(wake.as_raw_fd(), libc::POLLIN),
                interest(self.socket.fd().as_raw_fd(), libc::POLLIN),
            ];
            poll::wait(&mut rows, until)?;
            while let Some(frame) = self.socket.receive()? {
                let (mono_ns, outgoing) = (frame.mono_ns, frame.outgoing);
                if let Some(segment) = Segment::from_frame(frame.bytes).filter(|_| !outgoing) {
                    self.received(segment, mono_ns)?;
                }
            }
            if rows[0].revents != 0 {
                return Ok(self.handshakes);
            }
        }
    }

    fn handshake(&mut self, client_port: u16) -> usize {
        let index = self.handshakes.len();
        self.handshakes.push(WireHandshake {
            client_port,
            delay: (self.delay)(index as u32),
            ..WireHandshake::default()
        });
        self.by_port.insert(client_port, index);
        index
    }

    fn received(&mut self, segment: Segment, mono_ns: u64) -> io::Result<()> {
        let kernel_is_client = matches!(self.play, Play::Server);
        let port = match kernel_is_client {
            true => segment.source.port(),
            false => segment.destination.port(),
        };
        const LOOKED_AT: u8 = flags::SYN | flags::ACK | flags::FIN | flags::RST;
        const SYN_ACK: u8 = flags::SYN | flags::ACK;
        match (segment.flags & LOOKED_AT, self.by_port.get(&port).copied()) {
            (flags::SYN, None) if kernel_is_client => {
                let index = self.handshake(port);
                self.handshakes[index].syn_ns = Some(mono_ns);
                let ack = segment.seq.wrapping_add(1);
                self.after_delay(index, mono_ns, Reply::SynAck { ack });
            }
            // A repeated one is answered by the ACK that is already due.
            (SYN_ACK, Some(index))
                if !kernel_is_client && self.handshakes[index].syn_ack_ns.is_none() =>
            {
                self.handshakes[index].syn_ack_ns = Some(mono_ns);
                let ack = segment.seq.wrapping_add(1);
                self.after_delay(index, mono_ns, Reply::Ack { ack });
            }
            (flags::ACK, Some(index)) if kernel_is_client => {
                self.handshakes[index].ack_ns.get_or_insert(mono_ns);
            }
            (had, Some(_)) if had & flags::FIN != 0 => {
                let reset = Segment {
                    source: segment.destination,
                    destination: segment.source,
                    seq: segment.ack,
                    ack: 0,
                    flags: flags::RST,
                    payload_len: 0,
                };
                self.transmit(&reset)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Counted from when the kernel handled the segment, not from when this thread got round to it.
    fn after_delay(&mut self, index: usize, mono_ns: u64, what: Reply) {
        let age = now_ns(libc::CLOCK_MONOTONIC).saturating_sub(mono_ns);
        let left = self.handshakes[index]
            .delay
            .saturating_sub(Duration::from_nanos(age));
        self.due.push(Reverse((Instant::now() + left, index, what)));
    }

    fn send(&mut self, index: usize, what: Reply) -> io::Result<()> {
        let client_port = self.handshakes[index].client_port;
        let (own_port, kernel_port) = match self.play {
            Play::Server => (PORT, client_port),
            Play::Client { .. } => (client_port, PORT),
        };
        let (flags, seq, ack) = match what {
            Reply::Syn => (flags::SYN, OWN_ISN, 0),
            Reply::SynAck { ack } => (flags::SYN | flags::ACK, OWN_ISN, ack),
            Reply::Ack { ack } => (flags::ACK, OWN_ISN + 1, ack),
        };
        let sent = self.transmit(&Segment {
            source: SocketAddr::new(self.own, own_port),
            destination: SocketAddr::new(self.kernel, kernel_port),
            seq,
            ack,
            flags,
            payload_len: 0,
        })?;
        let handshake = &mut self.handshakes[index];
        match what {
            Reply::Syn => handshake.syn_ns = Some(sent),
            Reply::SynAck { .. } => handshake.syn_ack_ns = Some(sent),
            Reply::Ack { .. } => handshake.ack_ns = Some(sent),
        }
        Ok(())
    }

    fn transmit(&self, segment: &Segment) -> io::Result<u64> {
        let frame = segment
            .to_frame(SERVER_MAC, CLIENT_MAC)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.socket.send(&frame)
    }
}
