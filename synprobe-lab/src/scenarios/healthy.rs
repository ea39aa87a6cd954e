use std::{io::Write, sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;

use crate::{
    GroundTruth, Lab, PORT, Server, Side,
    scenario::{Scenario, ScenarioRun},
};

const CLIENTS: u64 = 20;

/// Handshakes that complete without a problem.
pub(super) struct HealthyScenario;

impl Scenario for HealthyScenario {
    fn name(&self) -> &'static str {
        "healthy"
    }

    fn summary(&self) -> &'static str {
        "20 handshakes that complete at once: the baseline for the other scenarios"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let server = Server::start(vec![lab.listen(PORT, 128)?])?;
        for _ in 0..CLIENTS {
            if run.stopped() {
                break;
            }
            let mut client = run.connect(PORT)?;
            run.settle([&mut client])?;
            run.both_healthy(&client)?;
            run.with_retransmits(0);
            client.stream.write_all(b"hello\n")?;
            run.finish([client])?;
            run.pause(Duration::from_millis(20))?;
        }
        server.stop()?;
        run.expect(Side::Client, "ActiveOpens", CLIENTS..=CLIENTS);
        run.expect(Side::Server, "PassiveOpens", CLIENTS..=CLIENTS);
        for side in [Side::Client, Side::Server] {
            run.expect(side, "RetransSegs", 0..=0);
            run.expect(side, "TCPTimeouts", 0..=0);
            run.expect(side, "AttemptFails", 0..=0);
        }
        run.end()
    }
}
