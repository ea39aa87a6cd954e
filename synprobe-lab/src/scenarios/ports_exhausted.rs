use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    GroundTruth, Lab, Outcome, PORT, Server, Side,
    scenario::{Scenario, ScenarioRun},
};

/// Four ports for seven clients. The number is even: of an odd number the kernel does not search all
/// (__inet_hash_connect()).
const RANGE: &str = "40000 40003";
const PORTS: usize = 4;
const CLIENTS: usize = 7;

/// connect() fails before it sends a SYN.
pub(super) struct PortsExhaustedScenario;

impl Scenario for PortsExhaustedScenario {
    fn name(&self) -> &'static str {
        "ports-exhausted"
    }

    fn summary(&self) -> &'static str {
        "the client has four local ports and connects seven times: three fail at once with EADDRNOTAVAIL"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.client.set_sysctl("ipv4/ip_local_port_range", RANGE)?;
        let server = Server::start(vec![lab.listen(PORT, 128)?])?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = run.connect(PORT)?;
            run.settle([&mut client])?;
            clients.push(client);
            run.pause(Duration::from_millis(30))?;
        }
        // All sockets are open until here, so each keeps its port.
        for (n, client) in clients.iter().enumerate() {
            if n < PORTS {
                run.both_healthy(client)?;
                run.with_retransmits(0);
            } else {
                run.client_ended(client, Outcome::Unreachable)?;
                run.with_retransmits(0);
                run.with_cause(VerdictKind::PortsExhausted);
            }
        }
        // Those without a port cannot be distinguished: one entry represents all of them.
        run.truth
            .handshakes
            .truncate(run.truth.handshakes.len() - (CLIENTS - PORTS - 1));
        if let Some(last) = run.truth.handshakes.last_mut() {
            let without_port = (CLIENTS - PORTS) as u64;
            last.count = without_port..=without_port;
        }
        run.finish(clients)?;
        server.stop()?;
        let connected = PORTS as u64;
        // The kernel does not count a connect() that gets no port.
        run.expect(Side::Client, "ActiveOpens", connected..=connected);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.expect(Side::Server, "PassiveOpens", connected..=connected);
        run.end()
    }
}
