use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::scenario::{Run, Scenario};
use crate::{Lab, Made, Outcome, PORT, Server, Side};

/// Four ports, and seven who want one. An even number: of an odd one the kernel does not look at all
/// (__inet_hash_connect()).
const RANGE: &str = "40000 40003";
const PORTS: usize = 4;
const CLIENTS: usize = 7;

/// connect() fails before it sends anything.
pub(super) struct PortsExhausted;

impl Scenario for PortsExhausted {
    fn name(&self) -> &'static str {
        "ports-exhausted"
    }

    fn summary(&self) -> &'static str {
        "the client has four local ports and calls seven times: three fail at once, EADDRNOTAVAIL"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        lab.client.set_sysctl("ipv4/ip_local_port_range", RANGE)?;
        let server = Server::start(vec![lab.listen(PORT, 128)?])?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = run.connect(PORT)?;
            run.settle([&mut client])?;
            clients.push(client);
            run.pause(Duration::from_millis(30))?;
        }
        // All are held until here: each keeps its port.
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
        // Without a port nothing tells one of them from another: one entry stands for all.
        run.made
            .handshakes
            .truncate(run.made.handshakes.len() - (CLIENTS - PORTS - 1));
        if let Some(last) = run.made.handshakes.last_mut() {
            let alike = (CLIENTS - PORTS) as u64;
            last.count = alike..=alike;
        }
        run.finish(clients)?;
        server.stop()?;
        let connected = PORTS as u64;
        // Of those that get no port nothing is counted.
        run.expect(Side::Client, "ActiveOpens", connected..=connected);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.expect(Side::Server, "PassiveOpens", connected..=connected);
        run.end()
    }
}
