use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, Client, FaultInjector, FaultRule, GroundTruth, Lab, LossPattern, Outcome, PORT, Server,
    Side,
    packet::flags,
    scenario::{Scenario, ScenarioRun},
    socket::settle,
};

/// The client's RSTs reach the server: the second SYN is accepted.
const RSTS_PASS: u16 = PORT;
/// They do not.
const RSTS_LOST: u16 = PORT + 1;
/// Client ports of the old connections and of the new ones. Outside the range from which the kernel chooses.
const OWN_PORTS: [u16; 2] = [20_001, 20_002];
/// How long the application waits. Its SYNs leave at 0, 0.01, 1 and 2 s; without linear time-outs at 0, 0.01
/// and 1 s.
const PATIENCE: Duration = Duration::from_millis(2_500);
const CAUSE: VerdictKind = VerdictKind::AnswerRejected;

/// The server still has the connection of a client that vanished and uses its port again.
pub(super) struct StaleEstablishedScenario;

fn rst() -> FaultRule {
    FaultRule {
        flags_mask: flags::RST,
        flags_value: flags::RST,
        ..FaultRule::default()
    }
}

impl Scenario for StaleEstablishedScenario {
    fn name(&self) -> &'static str {
        "stale-established"
    }

    fn summary(&self) -> &'static str {
        "the server still has an old connection of the client's port: it answers SYNs with challenge ACKs"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [u16] {
        &[RSTS_PASS, RSTS_LOST]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let server = Server::start(listeners)?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        for (slot, &port) in (0..).zip(self.ports()) {
            fault.set(slot, rst(), LossPattern::All, port)?;
        }
        let from = |own: u16, port: u16| {
            let own = lab.client_addr(own);
            Client::connect_from(&lab.client, own, lab.server_addr(port))
        };
        // The old connections, whose client closes with a RST that is lost.
        for (own, &port) in OWN_PORTS.into_iter().zip(self.ports()) {
            let mut old = from(own, port)?;
            run.settle([&mut old])?;
            run.client_ended(&old, Outcome::Established)?;
            run.with_retransmits(0);
            run.with_cause(Cause::Healthy);
            // The new connection of the same ends, which is made below, is healthy here as well.
            let count = if port == RSTS_PASS { 2 } else { 1 };
            run.server_ended(&old, Outcome::Established, count..=count);
            run.with_retransmits(0);
            run.with_cause(Cause::Healthy);
            run.wait_established(port, 1)?;
            old.reset()?;
        }
        fault.lift(0)?;
        let start = Instant::now();
        let mut accepted = from(OWN_PORTS[0], RSTS_PASS)?;
        let mut hopeless = from(OWN_PORTS[1], RSTS_LOST)?;
        run.settle([&mut accepted])?;
        settle([&mut hopeless], stop, start + PATIENCE)?;
        run.client_ended(&accepted, Outcome::Established)?;
        run.with_retransmits(1);
        run.with_cause(CAUSE);
        run.client_ended(&hopeless, Outcome::Abandoned)?;
        run.with_cause(CAUSE);
        drop(hopeless);
        run.finish([accepted])?;
        run.report_fault(&fault, 1, "every RST to port 8081")?;
        // The server's FIN meets no socket: the RST ends the old connection before it is repeated.
        fault.lift(1)?;
        server.stop()?;
        run.expect(Side::Client, "ActiveOpens", 4..=4);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Server, "PassiveOpens", 3..=3);
        run.expect(Side::Server, "TCPSYNChallenge", 3..=5);
        run.end()
    }
}
