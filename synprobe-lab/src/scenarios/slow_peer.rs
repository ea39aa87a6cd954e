use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::{
    model::VerdictKind,
    sys::poll::{self, interest},
};

use crate::{
    Cause, GroundTruth, Lab, Outcome, PORT, RawSender, Server, Side,
    net::spoofed,
    packet::{TcpSegment, flags},
    packet_socket::PacketSocket,
    scenario::{Scenario, ScenarioRun},
};

/// Handshakes with the usual delay.
const USUAL: u16 = 10;
/// The usual delay of the peer's ACK.
const USUAL_DELAY: Duration = Duration::from_millis(1);
/// The delay of one slow handshake.
const SLOW_DELAY: Duration = Duration::from_millis(400);

/// A peer answers late.
pub(super) struct SlowPeerScenario;

impl Scenario for SlowPeerScenario {
    fn name(&self) -> &'static str {
        "slow-peer"
    }

    fn summary(&self) -> &'static str {
        "a peer answers ten times after 1 ms, once after 400 ms, and once only the third SYN-ACK"
    }

    fn nominal_seconds(&self) -> u32 {
        4
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        let server = Server::start(vec![lab.listen(PORT, 128)?])?;
        let mut peer = SlowResponder {
            wire: PacketSocket::open(&lab.client)?,
            sender: RawSender::open(&lab.client, v6)?,
            local: SocketAddr::new(spoofed(v6, 0), 0),
            server: SocketAddr::new(lab.server_ip(), PORT),
        };
        let usual = (0..USUAL).map(|_| (1, USUAL_DELAY, Cause::Healthy));
        let slow = [
            (1, SLOW_DELAY, Cause::Verdict(VerdictKind::SlowPeer)),
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

/// A peer without a kernel stack, behind the client. A packet socket receives what is sent to it; the
/// client's kernel does not forward it.
struct SlowResponder {
    wire: PacketSocket,
    sender: RawSender,
    local: SocketAddr,
    server: SocketAddr,
}

impl SlowResponder {
    /// Answers the `nth` SYN-ACK (from 1). Resets the connection once the server has accepted the ACK.
    /// Returns false when the scenario must stop.
    fn shake_hands(&mut self, run: &ScenarioRun<'_>, nth: u32, after: Duration) -> Result<bool> {
        // Sequence numbers of successive handshakes are far apart.
        let seq = u32::from(self.local.port()) << 16;
        self.sender.syn(self.local, self.server, seq)?;
        let mut received = 0;
        let syn_ack = loop {
            if run.stopped() {
                return Ok(false);
            }
            run.check_deadline()?;
            match self.syn_ack()? {
                Some(_) if received + 1 < nth => received += 1,
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

    fn syn_ack(&mut self) -> io::Result<Option<TcpSegment>> {
        while let Some(frame) = self.wire.receive()? {
            let found = TcpSegment::from_frame(frame.bytes).filter(|segment| {
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
