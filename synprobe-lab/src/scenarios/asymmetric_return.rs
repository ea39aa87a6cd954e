use std::{net::SocketAddr, sync::atomic::AtomicBool};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, Client, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Side, bare_ack,
    router::{DnatRouter, TO_SERVER},
    scenario::{Scenario, ScenarioRun},
};

const CLIENTS: u64 = 3;
/// The half-opens expire after 1 + 2 s.
const RETRIES: u32 = 1;

/// The answer leaves by another device than the SYN came by, past a router that drops the final ACK: as a
/// stateful firewall does with what it has not seen whole.
pub(super) struct AsymmetricReturnScenario;

impl Scenario for AsymmetricReturnScenario {
    fn name(&self) -> &'static str {
        "asymmetric-return"
    }

    fn summary(&self) -> &'static str {
        "the SYN-ACK leaves by another device than the SYN came by; a firewall there drops the ACK"
    }

    fn nominal_seconds(&self) -> u32 {
        5
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "1")?;
        let router = DnatRouter::new(lab, &[])?;
        // As on its way: the firewall of this picture is another host, whose drops nobody sees.
        let mut firewall = FaultInjector::attach_to(&lab.server, TO_SERVER)?;
        firewall.set(0, bare_ack(), LossPattern::All, PORT)?;
        let address = router.address(lab, PORT);
        let _listener = lab.listen(PORT, 128)?;
        let local = SocketAddr::new(lab.as_sockets_write(lab.client_ip()), 0);
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Client::connect_from(&lab.client, local, address)?);
        }
        run.settle(&mut clients)?;
        run.wait_no_half_opens(PORT)?;
        for client in &clients {
            run.client_ended(client, Outcome::Established)?;
            run.with_cause(Cause::Healthy);
            run.server_ended(client, Outcome::Expired, 1..=1);
            run.with_retransmits(RETRIES);
            run.with_cause(VerdictKind::AsymmetricNat);
        }
        run.report_fault(&firewall, 0, "final ACKs past the router")?;
        drop(clients);
        let retransmitted = CLIENTS * u64::from(RETRIES);
        run.expect(Side::Client, "ActiveOpens", CLIENTS..=CLIENTS);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect(Side::Server, "TCPSynRetrans", retransmitted..=retransmitted);
        run.expect_retransmits(Side::Server, "synack", retransmitted..=retransmitted);
        run.end()
    }
}
