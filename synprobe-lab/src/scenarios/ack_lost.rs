use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::Cause;
use crate::scenario::{Run, Scenario};
use crate::{Fault, Lab, Lose, Made, Outcome, PORT, Server, Side, bare_ack};

/// Port, how many of the client's bare ACKs are lost.
const PARTLY: [(u16, u32); 2] = [(PORT, 1), (PORT + 1, 2)];
const WHOLLY: u16 = PORT + 2;
const SAVED_BY_DATA: u16 = PORT + 3;

/// The last segment of the handshake is lost: the client believes it is connected.
pub(super) struct AckLost;

impl Scenario for AckLost {
    fn name(&self) -> &'static str {
        "ack-lost"
    }

    fn summary(&self) -> &'static str {
        "the final ACK is lost: the client is connected, the server is half-open for 1 s, 3 s, for good"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn ports(&self) -> &'static [u16] {
        &[PORT, PORT + 1, PORT + 2, PORT + 3]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "2")?;
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let server = Server::start(listeners)?;
        let mut fault = Fault::attach(&lab.server)?;
        for (slot, (port, lost)) in (0..).zip(PARTLY) {
            fault.set(slot, bare_ack(), Lose::First(lost.into()), port)?;
        }
        fault.set(2, bare_ack(), Lose::All, WHOLLY)?;
        fault.set(3, bare_ack(), Lose::First(1), SAVED_BY_DATA)?;

        let mut partly = Vec::new();
        for (port, lost) in PARTLY {
            partly.push((run.connect(port)?, lost));
        }
        let mut wholly = run.connect(WHOLLY)?;
        let mut saved = run.connect(SAVED_BY_DATA)?;
        run.settle(partly.iter_mut().map(|(client, _)| client))?;
        run.settle([&mut wholly, &mut saved])?;

        run.pause(Duration::from_millis(300))?;
        saved.stream.write_all(b"hello\n")?;
        run.both_healthy(&saved)?;
        run.with_retransmits(0);
        // Late: whether that is far over what this peer usually takes depends on what else there was.
        run.without_cause();
        run.finish([saved])?;

        let mut resent = 0;
        for (client, lost) in partly {
            run.wait_no_half_opens(client.peer.port())?;
            run.both_established(&client, Cause::Healthy, VerdictKind::SlowPeer)?;
            run.with_retransmits(lost);
            resent += u64::from(lost);
            run.finish([client])?;
        }
        run.wait_no_half_opens(WHOLLY)?;
        run.client_ended(&wholly, Outcome::Established)?;
        run.with_cause(Cause::Healthy);
        run.server_ended(&wholly, Outcome::Expired, 1..=1);
        run.with_cause(VerdictKind::PeerSilent);
        run.with_retransmits(2);
        resent += 2;
        // The server has forgotten it and would answer a FIN with RST; a RST it ignores.
        wholly.reset()?;
        server.stop()?;

        run.report_fault(&fault, 0, "the first bare ACK to port 8080")?;
        run.report_fault(&fault, 1, "the first 2 bare ACKs to port 8081")?;
        run.report_fault(&fault, 2, "every bare ACK to port 8082")?;
        run.report_fault(&fault, 3, "the first bare ACK to port 8083")?;
        run.expect(Side::Client, "ActiveOpens", 4..=4);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Server, "PassiveOpens", 3..=3);
        run.expect(Side::Server, "TCPSynRetrans", resent..=resent);
        // One more: the expiry.
        run.expect(Side::Server, "TCPTimeouts", resent + 1..=resent + 1);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        run.expect_retransmits(Side::Server, "synack", resent..=resent);
        run.end()
    }
}
