use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, FaultInjector, FaultRule, GroundTruth, Lab, LossPattern, PORT, Server, Side,
    packet::flags,
    scenario::{Scenario, ScenarioRun},
};

const CLIENTS: u64 = 4;
/// A SYN that asks for ECN (RFC 3168 section 6.1.1).
const ECN: u8 = 0xc0;

/// A device on the path drops SYNs that ask for ECN.
pub(super) struct OptionDroppedScenario;

impl Scenario for OptionDroppedScenario {
    fn name(&self) -> &'static str {
        "option-dropped"
    }

    fn summary(&self) -> &'static str {
        "SYNs that ask for ECN are lost: each connect succeeds with its second, plain SYN"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.client.set_sysctl("ipv4/tcp_ecn", "1")?;
        lab.client.set_sysctl("ipv4/tcp_ecn_fallback", "1")?;
        let server = Server::start(vec![lab.listen(PORT, 128)?])?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        let asks = FaultRule {
            flags_mask: flags::SYN | flags::ACK | ECN,
            flags_value: flags::SYN | ECN,
            ..FaultRule::default()
        };
        fault.set(0, asks, LossPattern::All, PORT)?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(run.connect(PORT)?);
        }
        run.settle(&mut clients)?;
        for client in &clients {
            run.both_established(client, VerdictKind::OptionDropped, Cause::Healthy)?;
        }
        // A FIN beside the final ACK, on another CPU, would make a second child for a moment, which PassiveOpens
        // counts (tcp_create_openreq_child()).
        run.wait_established(PORT, CLIENTS as usize)?;
        run.finish(clients)?;
        server.stop()?;
        run.report_fault(&fault, 0, "every SYN that asks for ECN")?;
        run.expect(Side::Client, "ActiveOpens", CLIENTS..=CLIENTS);
        run.expect(Side::Client, "TCPSynRetrans", CLIENTS..=CLIENTS);
        run.expect(Side::Server, "PassiveOpens", CLIENTS..=CLIENTS);
        run.expect_retransmits(Side::Client, "syn", CLIENTS..=CLIENTS);
        run.end()
    }
}
