use std::{net::SocketAddr, sync::atomic::AtomicBool};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Side,
    router::DnatRouter,
    scenario::{Scenario, ScenarioRun},
    syn_ack,
};

/// The client's kernel answers the unexpected SYN-ACK with RST.
const ANSWERED: u16 = PORT;
/// The SYN-ACK does not reach the client.
const LOST: u16 = PORT + 1;
/// Clients of each port.
const CLIENTS: u64 = 3;
/// The kernel gives up after 3 s. With linear timeouts the SYNs leave at 0, 1 and 2 s.
const RETRIES: u32 = 2;

/// A router rewrites the destination but not the source. The server answers directly, from its own
/// address.
pub(super) struct DnatWithoutSnatScenario;

impl Scenario for DnatWithoutSnatScenario {
    fn name(&self) -> &'static str {
        "dnat-without-snat"
    }

    fn summary(&self) -> &'static str {
        "a router does DNAT without SNAT: the SYN-ACK bypasses it and comes from another address"
    }

    fn nominal_seconds(&self) -> u32 {
        7
    }

    fn ports(&self) -> &'static [u16] {
        &[ANSWERED, LOST]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        lab.client.set_sysctl("ipv4/tcp_syn_retries", "1")?;
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "1")?;
        let router = DnatRouter::new(lab, &[(ANSWERED, ANSWERED), (LOST, LOST)])?;
        let _listeners = [lab.listen(ANSWERED, 128)?, lab.listen(LOST, 128)?];
        let mut fault = FaultInjector::attach(&lab.client)?;
        fault.set(0, syn_ack(), LossPattern::All, LOST)?;
        let mut clients = Vec::new();
        let local = SocketAddr::new(lab.as_sockets_write(lab.client_ip()), 0);
        for port in [ANSWERED, LOST] {
            for _ in 0..CLIENTS {
                let address = router.address(lab, port);
                clients.push(Client::connect_from(&lab.client, local, address)?);
            }
        }
        run.settle(&mut clients)?;
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        let syns = u64::from(retries) + 1;
        for client in &clients {
            run.client_ended(client, Outcome::TimedOut)?;
            run.with_retransmits(retries);
            run.with_cause(VerdictKind::Filtered);
            let port = client.peer.port();
            let server = SocketAddr::new(lab.server_ip(), port);
            let peer = SocketAddr::new(client.local.ip().to_canonical(), client.local.port());
            // A half-open that exists for one round trip may appear in no event and no dump.
            let (outcome, count) = match port {
                ANSWERED => (Outcome::Reset, 0..=syns),
                _ => (Outcome::Expired, 1..=1),
            };
            run.peer_ended(server, peer, outcome);
            if let Some(made) = run.truth.handshakes.last_mut() {
                made.count = count;
            }
            run.with_cause(VerdictKind::AsymmetricNat);
        }
        drop(clients);
        run.wait_no_half_opens(LOST)?;
        run.report_fault(&fault, 0, "SYN-ACKs from port 8081 into the client")?;
        run.note("a half-open that the client's RST ends within one round trip may go unseen");
        let retransmitted = 2 * CLIENTS * u64::from(retries);
        let resets = CLIENTS * syns;
        run.expect(Side::Client, "ActiveOpens", 2 * CLIENTS..=2 * CLIENTS);
        run.expect(Side::Client, "TCPSynRetrans", retransmitted..=retransmitted);
        run.expect(Side::Client, "TCPAbortOnTimeout", 2 * CLIENTS..=2 * CLIENTS);
        run.expect(Side::Client, "OutRsts", resets..=resets);
        run.expect(Side::Server, "EmbryonicRsts", resets..=resets);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect_retransmits(Side::Client, "syn", retransmitted..=retransmitted);
        run.end()
    }
}
