use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::Cause;
use crate::net::spoofed;
use crate::packet::{Segment, flags};
use crate::packet_socket::PacketSocket;
use crate::scenario::{Run, Scenario};
use crate::{Lab, Made, Outcome, PORT, RawSender, Server, Side};
use synprobe_common::sys::poll::{self, interest};

/// How often the peer answers as fast as it usually does, and how fast.
const USUAL: u16 = 10;
const USUALLY: Duration = Duration::from_millis(1);
/// How long it takes once.
const ONCE: Duration = Duration::from_millis(400);

/// A peer that answers, but late.
pub(super) struct SlowPeer;

impl Scenario for SlowPeer {
    fn name(&self) -> &'static str {
        "slow-peer"
    }

    fn summary(&self) -> &'static str {
        "a peer answers ten times after 1 ms, then once after 400 ms, and once only the third SYN-ACK"
    }

    fn nominal_seconds(&self) -> u32 {
        4
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        let server = Server::start(vec![lab.listen(PORT, 128)?])?;
        let mut peer = Peer {
            wire: PacketSocket::open(&lab.client)?,
            sender: RawSender::open(&lab.client, v6)?,
            local: SocketAddr::new(spoofed(v6, 0), 0),
            server: SocketAddr::new(lab.server_ip(), PORT),
        };
        let usual = (0..USUAL).map(|_| (1, USUALLY, Cause::Healthy));
        let slow = [
            (1, ONCE, Cause::Verdict(VerdictKind::SlowPeer)),
            (3, Duration::ZERO, Cause::Verdict(VerdictKind::SlowPeer)),
        ];
        for (port, (nth, after, cause)) in (40_000..).zip(usual.chain(slow)) {
            peer.local.set_port(port);
            if !peer.shake_hands(&run, nth, after)? {
                break;
            }
            run.peer_ended(peer.server, peer.local, Outcome::Established);
            run.with_retransmits(nth - 1);
            run.with_cause(cause);
        }
        server.stop()?;
        let all = u64::from(USUAL) + 2;
        run.expect(Side::Client, "ActiveOpens", 0..=0);
        run.expect(Side::Server, "PassiveOpens", all..=all);
        run.expect(Side::Server, "TCPSynRetrans", 2..=2);
        run.expect(Side::Server, "TCPTimeouts", 2..=2);
        run.expect_retransmits(Side::Server, "synack", 2..=2);
        run.end()
    }
}

/// A peer without a kernel stack, beyond the client: the client's namespace hears what is sent to it,
/// and discards it, for it does not forward.
struct Peer {
    wire: PacketSocket,
    sender: RawSender,
    local: SocketAddr,
    server: SocketAddr,
}

impl Peer {
    /// Answers the `nth` SYN-ACK (from 1) and, once that was taken, resets the connection; false when
    /// the scenario is to stop.
    fn shake_hands(&mut self, run: &Run<'_>, nth: u32, after: Duration) -> Result<bool> {
        // Next time's sequence number is far from this time's.
        let seq = u32::from(self.local.port()) << 16;
        self.sender.syn(self.local, self.server, seq)?;
        let mut heard = 0;
        let syn_ack = loop {
            if run.stopped() {
                return Ok(false);
            }
            run.check_deadline()?;
            match self.syn_ack()? {
                Some(_) if heard + 1 < nth => heard += 1,
                Some(segment) => break segment,
                None => self.wait()?,
            }
        };
        run.pause(after)?;
        let (seq, ack) = (seq.wrapping_add(1), syn_ack.seq.wrapping_add(1));
        self.sender.ack(self.local, self.server, seq, ack)?;
        run.wait_no_half_opens(PORT)?;
        self.sender.rst(self.local, self.server, seq)?;
        Ok(!run.stopped())
    }

    fn syn_ack(&mut self) -> io::Result<Option<Segment>> {
        while let Some(frame) = self.wire.receive()? {
            let found = Segment::from_frame(frame.bytes).filter(|segment| {
                segment.source == self.server
                    && segment.destination == self.local
                    && segment.flags & (flags::SYN | flags::ACK) == flags::SYN | flags::ACK
            });
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn wait(&self) -> io::Result<()> {
        let mut row = [interest(self.wire.fd().as_raw_fd(), libc::POLLIN)];
        poll::wait(&mut row, Instant::now() + poll::SLICE).map(drop)
    }
}
