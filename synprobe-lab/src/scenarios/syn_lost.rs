use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Server, Side,
    scenario::{Scenario, ScenarioRun},
    syn,
};

/// Port, and lost SYNs of each handshake.
const PARTIAL: [(u16, u32); 2] = [(PORT, 1), (PORT + 1, 3)];
const ALL_LOST: u16 = PORT + 2;

/// SYNs are lost on the way to the server.
pub(super) struct SynLostScenario;

impl Scenario for SynLostScenario {
    fn name(&self) -> &'static str {
        "syn-lost"
    }

    fn summary(&self) -> &'static str {
        "SYNs are lost: handshakes complete after 1 and 3 retransmissions, and one never does"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn ports(&self) -> &'static [u16] {
        &[PORT, PORT + 1, PORT + 2]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.client.set_sysctl("ipv4/tcp_syn_retries", "2")?;
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let server = Server::start(listeners)?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        let mut clients = Vec::new();
        let mut retransmitted = 0;
        for (slot, (port, lost)) in (0..).zip(PARTIAL) {
            // Without linear timeouts there are only 2 retransmissions.
            let lost = if linear { lost } else { lost.min(2) };
            fault.set(slot, syn(), LossPattern::First(lost.into()), port)?;
            for _ in 0..2 {
                clients.push((run.connect(port)?, lost));
                retransmitted += u64::from(lost);
            }
        }
        fault.set(2, syn(), LossPattern::All, ALL_LOST)?;
        let mut hopeless = run.connect(ALL_LOST)?;
        // The kernel gives up 7 s after the first SYN; with linear timeouts that is after 5 retransmissions.
        let retries = if linear { 5 } else { 2 };

        run.settle(clients.iter_mut().map(|(client, _)| client))?;
        for (client, lost) in &clients {
            run.client_ended(client, Outcome::Established)?;
            run.with_retransmits(*lost);
            run.with_cause(VerdictKind::SynLostThenOk);
            run.server_ended(client, Outcome::Established, 1..=1);
            run.with_retransmits(0);
            run.with_cause(Cause::Healthy);
        }
        run.finish(clients.into_iter().map(|(client, _)| client))?;
        run.settle([&mut hopeless])?;
        run.client_ended(&hopeless, Outcome::TimedOut)?;
        run.with_retransmits(retries);
        run.with_cause(VerdictKind::Filtered);
        server.stop()?;

        retransmitted += u64::from(retries);
        run.report_fault(&fault, 0, "the first SYN of each handshake with port 8080")?;
        run.report_fault(&fault, 1, "the first SYNs of each handshake with port 8081")?;
        run.report_fault(&fault, 2, "every SYN to port 8082")?;
        run.expect(Side::Client, "ActiveOpens", 5..=5);
        run.expect(Side::Client, "AttemptFails", 1..=1);
        run.expect(Side::Client, "TCPSynRetrans", retransmitted..=retransmitted);
        // Plus one for the expiry.
        run.expect(
            Side::Client,
            "TCPTimeouts",
            retransmitted + 1..=retransmitted + 1,
        );
        run.expect(Side::Server, "PassiveOpens", 4..=4);
        run.expect(Side::Server, "TCPTimeouts", 0..=0);
        run.expect_retransmits(Side::Client, "syn", retransmitted..=retransmitted);
        run.end()
    }
}
