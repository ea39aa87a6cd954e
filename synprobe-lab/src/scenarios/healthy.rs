use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;

use crate::scenario::{Run, Scenario};
use crate::{Lab, Made, PORT, Server, Side};

const CLIENTS: u64 = 20;

/// Handshakes as they should be.
pub(super) struct Healthy;

impl Scenario for Healthy {
    fn name(&self) -> &'static str {
        "healthy"
    }

    fn summary(&self) -> &'static str {
        "20 handshakes that complete at once: what the others are compared with"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
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
