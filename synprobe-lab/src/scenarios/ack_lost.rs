use std::{io::Write, sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Server, Side, bare_ack,
    scenario::{Scenario, ScenarioRun},
};

/// Port, and number of lost bare ACKs of the client.
const PARTIAL: [(u16, u32); 2] = [(PORT, 1), (PORT + 1, 2)];
const ALL_LOST: u16 = PORT + 2;
const SAVED_BY_DATA: u16 = PORT + 3;

/// The final ACK is lost: the client considers the connection established.
pub(super) struct AckLostScenario;

impl Scenario for AckLostScenario {
    fn name(&self) -> &'static str {
        "ack-lost"
    }

    fn summary(&self) -> &'static str {
        "the final ACK is lost: client connected, server half-open for 1 s, for 3 s, or until expiry"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn ports(&self) -> &'static [u16] {
        &[PORT, PORT + 1, PORT + 2, PORT + 3]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "2")?;
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let server = Server::start(listeners)?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        for (slot, (port, lost)) in (0..).zip(PARTIAL) {
            fault.set(slot, bare_ack(), LossPattern::First(lost.into()), port)?;
        }
        fault.set(2, bare_ack(), LossPattern::All, ALL_LOST)?;
        fault.set(3, bare_ack(), LossPattern::First(1), SAVED_BY_DATA)?;

        let mut partial = Vec::new();
        for (port, lost) in PARTIAL {
            partial.push((run.connect(port)?, lost));
        }
        let mut all_lost = run.connect(ALL_LOST)?;
        let mut saved = run.connect(SAVED_BY_DATA)?;
        run.settle(partial.iter_mut().map(|(client, _)| client))?;
        run.settle([&mut all_lost, &mut saved])?;

        run.pause(Duration::from_millis(300))?;
        saved.stream.write_all(b"hello\n")?;
        run.both_healthy(&saved)?;
        run.with_retransmits(0);
        // Whether this counts as slow depends on the peer's other handshakes.
        run.without_cause();
        run.finish([saved])?;

        let mut retransmitted = 0;
        for (client, lost) in partial {
            run.wait_no_half_opens(client.peer.port())?;
            run.both_established(&client, Cause::Healthy, VerdictKind::SlowPeer)?;
            run.with_retransmits(lost);
            retransmitted += u64::from(lost);
            run.finish([client])?;
        }
        run.wait_no_half_opens(ALL_LOST)?;
        run.client_ended(&all_lost, Outcome::Established)?;
        run.with_cause(Cause::Healthy);
        run.server_ended(&all_lost, Outcome::Expired, 1..=1);
        run.with_cause(VerdictKind::PeerSilent);
        run.with_retransmits(2);
        retransmitted += 2;
        // The server no longer knows it: it would answer a FIN with RST, but it ignores a RST.
        all_lost.reset()?;
        server.stop()?;

        run.report_fault(&fault, 0, "the first bare ACK to port 8080")?;
        run.report_fault(&fault, 1, "the first 2 bare ACKs to port 8081")?;
        run.report_fault(&fault, 2, "every bare ACK to port 8082")?;
        run.report_fault(&fault, 3, "the first bare ACK to port 8083")?;
        run.expect(Side::Client, "ActiveOpens", 4..=4);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Server, "PassiveOpens", 3..=3);
        run.expect(Side::Server, "TCPSynRetrans", retransmitted..=retransmitted);
        // Plus one for the expiry.
        run.expect(
            Side::Server,
            "TCPTimeouts",
            retransmitted + 1..=retransmitted + 1,
        );
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        run.expect_retransmits(Side::Server, "synack", retransmitted..=retransmitted);
        run.end()
    }
}
