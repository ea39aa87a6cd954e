//! A TCP peer without a kernel stack. It is one end of three-way handshakes, from a namespace without
//! addresses, and delays its SYN-ACK or its final ACK as requested.
//!
//! It answers a FIN with RST, so that no connection remains after a test.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use synprobe_common::sys::poll::{self, interest};

use crate::{
    Lab, PORT,
    net::{CLIENT_MAC, SERVER_MAC},
    packet::{TcpSegment, flags},
    packet_socket::{PacketSocket, now_ns},
    server::{eventfd, signal},
};

/// The peer's record of one handshake; times are CLOCK_MONOTONIC nanoseconds. For received segments they
/// are the kernel's time stamps; for sent segments they were read just before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawHandshake {
    /// The client's port.
    pub client_port: u16,
    /// The requested delay.
    pub delay: Duration,
    /// Time of the first SYN.
    pub syn_ns: Option<u64>,
    /// Time of the first SYN-ACK.
    pub syn_ack_ns: Option<u64>,
    /// Time of the final ACK.
    pub ack_ns: Option<u64>,
}

/// A running peer in the server's namespace of a lab made with [`Lab::with_bare_server`].
pub struct RawPeer {
    wake: OwnedFd,
    thread: Option<JoinHandle<io::Result<Vec<RawHandshake>>>>,
}

impl RawPeer {
    /// Acts as a server on [`PORT`]. It answers the SYN of the `n`th handshake (from 0) after `delay(n)`.
    pub fn serve(lab: &Lab, delay: impl Fn(u32) -> Duration + Send + 'static) -> Result<Self> {
        Self::start(lab, PeerSide::Server { echoes: false }, delay)
    }

    /// As [`RawPeer::serve`], with TCP timestamps: each SYN-ACK echoes that of the handshake's first SYN.
    pub fn serve_with_timestamps(
        lab: &Lab,
        delay: impl Fn(u32) -> Duration + Send + 'static,
    ) -> Result<Self> {
        Self::start(lab, PeerSide::Server { echoes: true }, delay)
    }

    /// Acts as a client of the kernel's [`PORT`]: `count` handshakes, a SYN every `spacing`. It answers the
    /// `n`th SYN-ACK after `delay(n)`.
    pub fn call(
        lab: &Lab,
        count: u16,
        spacing: Duration,
        delay: impl Fn(u32) -> Duration + Send + 'static,
    ) -> Result<Self> {
        Self::start(lab, PeerSide::Client { count, spacing }, delay)
    }

    fn start(
        lab: &Lab,
        side: PeerSide,
        delay: impl Fn(u32) -> Duration + Send + 'static,
    ) -> Result<Self> {
        let socket = PacketSocket::open(&lab.server)?;
        let wake = eventfd().context("an eventfd for the raw peer")?;
        let woken = wake.try_clone().context("an eventfd for the raw peer")?;
        let peer = PeerWorker {
            socket,
            kernel: lab.client_ip(),
            own: lab.server_ip(),
            side,
            delay,
            due: BinaryHeap::new(),
            handshakes: Vec::new(),
            by_port: HashMap::new(),
        };
        let thread = thread::Builder::new()
            .name("lab-raw-peer".into())
            .spawn(move || peer.work(&woken))
            .context("starting the raw peer")?;
        Ok(Self {
            wake,
            thread: Some(thread),
        })
    }

    /// Stops the peer. Returns the handshakes in the order in which they began.
    pub fn stop(mut self) -> Result<Vec<RawHandshake>> {
        self.end().unwrap_or(Ok(Vec::new())).context("the raw peer")
    }

    fn end(&mut self) -> Option<io::Result<Vec<RawHandshake>>> {
        let thread = self.thread.take()?;
        signal(&self.wake);
        let panicked = |_| Err(io::Error::other(anyhow!("the raw peer panicked")));
        Some(thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        // stop() returns the handshakes and the error.
        let _ = self.end();
    }
}

#[derive(Clone, Copy)]
enum PeerSide {
    Server { echoes: bool },
    Client { count: u16, spacing: Duration },
}

/// First port of the handshakes that the peer starts.
const FIRST_PORT: u16 = 30_000;
/// The peer's initial sequence number.
const OWN_ISN: u32 = 0x1000_0000;

struct PeerWorker<D> {
    socket: PacketSocket,
    kernel: IpAddr,
    own: IpAddr,
    side: PeerSide,
    delay: D,
    /// Segments to send, ordered by time.
    due: BinaryHeap<Reverse<(Instant, usize, Reply)>>,
    handshakes: Vec<RawHandshake>,
    by_port: HashMap<u16, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reply {
    Syn,
    SynAck { ack: u32, echo: Option<u32> },
    Ack { ack: u32 },
}

impl<D: Fn(u32) -> Duration> PeerWorker<D> {
    fn work(mut self, wake: &OwnedFd) -> io::Result<Vec<RawHandshake>> {
        if let PeerSide::Client { count, spacing } = self.side {
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
                if let Some(segment) = TcpSegment::from_frame(frame.bytes).filter(|_| !outgoing) {
                    let timestamp = TcpSegment::timestamp_of(frame.bytes);
                    self.received(segment, timestamp, mono_ns)?;
                }
            }
            if rows[0].revents != 0 {
                return Ok(self.handshakes);
            }
        }
    }

    fn handshake(&mut self, client_port: u16) -> usize {
        let index = self.handshakes.len();
        self.handshakes.push(RawHandshake {
            client_port,
            delay: (self.delay)(index as u32),
            ..RawHandshake::default()
        });
        self.by_port.insert(client_port, index);
        index
    }

    fn received(
        &mut self,
        segment: TcpSegment,
        timestamp: Option<u32>,
        mono_ns: u64,
    ) -> io::Result<()> {
        let kernel_is_client = matches!(self.side, PeerSide::Server { .. });
        let echoes = matches!(self.side, PeerSide::Server { echoes: true });
        let port = match kernel_is_client {
            true => segment.source.port(),
            false => segment.destination.port(),
        };
        const RELEVANT: u8 = flags::SYN | flags::ACK | flags::FIN | flags::RST;
        const SYN_ACK: u8 = flags::SYN | flags::ACK;
        match (segment.flags & RELEVANT, self.by_port.get(&port).copied()) {
            // Others may call the kernel of this namespace meanwhile.
            (flags::SYN, None) if kernel_is_client && segment.destination.port() == PORT => {
                let index = self.handshake(port);
                self.handshakes[index].syn_ns = Some(mono_ns);
                let ack = segment.seq.wrapping_add(1);
                let echo = timestamp.filter(|_| echoes);
                self.after_delay(index, mono_ns, Reply::SynAck { ack, echo });
            }
            // A retransmitted SYN-ACK is answered by the ACK that is already due.
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
                let reset = TcpSegment {
                    source: segment.destination,
                    destination: segment.source,
                    seq: segment.ack,
                    ack: 0,
                    flags: flags::RST,
                    payload_len: 0,
                };
                self.transmit(&reset, None)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Schedules a segment. The delay starts when the kernel processed the received segment.
    fn after_delay(&mut self, index: usize, mono_ns: u64, what: Reply) {
        let age = now_ns(libc::CLOCK_MONOTONIC).saturating_sub(mono_ns);
        let left = self.handshakes[index]
            .delay
            .saturating_sub(Duration::from_nanos(age));
        self.due.push(Reverse((Instant::now() + left, index, what)));
    }

    fn send(&mut self, index: usize, what: Reply) -> io::Result<()> {
        let client_port = self.handshakes[index].client_port;
        let (own_port, kernel_port) = match self.side {
            PeerSide::Server { .. } => (PORT, client_port),
            PeerSide::Client { .. } => (client_port, PORT),
        };
        let (flags, seq, ack) = match what {
            Reply::Syn => (flags::SYN, OWN_ISN, 0),
            Reply::SynAck { ack, .. } => (flags::SYN | flags::ACK, OWN_ISN, ack),
            Reply::Ack { ack } => (flags::ACK, OWN_ISN + 1, ack),
        };
        let echo = match what {
            Reply::SynAck { echo, .. } => echo,
            Reply::Syn | Reply::Ack { .. } => None,
        };
        let segment = TcpSegment {
            source: SocketAddr::new(self.own, own_port),
            destination: SocketAddr::new(self.kernel, kernel_port),
            seq,
            ack,
            flags,
            payload_len: 0,
        };
        let sent = self.transmit(&segment, echo.map(|echo| (1, echo)))?;
        let handshake = &mut self.handshakes[index];
        match what {
            Reply::Syn => handshake.syn_ns = Some(sent),
            Reply::SynAck { .. } => handshake.syn_ack_ns = Some(sent),
            Reply::Ack { .. } => handshake.ack_ns = Some(sent),
        }
        Ok(())
    }

    fn transmit(&self, segment: &TcpSegment, timestamps: Option<(u32, u32)>) -> io::Result<u64> {
        let frame = segment
            .to_frame_with(SERVER_MAC, CLIENT_MAC, timestamps)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.socket.send(&frame)
    }
}
