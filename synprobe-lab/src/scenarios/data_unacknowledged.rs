use std::{io::Write, sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;

use crate::{
    FaultInjector, GroundTruth, Lab, LossPattern, PORT, Server, Side, TcpCounters, data,
    scenario::{Scenario, ScenarioRun},
    socket,
};

/// Retransmissions of the segment before the path is mended: at 0.2, 0.6 and 1.4 s by default.
const LOST: u64 = 3;

/// The handshake passes and data does not, as in an MTU black hole.
pub(super) struct DataUnacknowledgedScenario;

impl Scenario for DataUnacknowledgedScenario {
    fn name(&self) -> &'static str {
        "data-unacknowledged"
    }

    fn summary(&self) -> &'static str {
        "the handshake completes, then data is lost four times in a row: a hanging connection"
    }

    fn nominal_seconds(&self) -> u32 {
        4
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        // Without tail-loss probes every retransmission is a time-out.
        lab.client.set_sysctl("ipv4/tcp_early_retrans", "0")?;
        let server = Server::start(vec![lab.listen(PORT, 128)?])?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        fault.set(0, data(), LossPattern::All, PORT)?;
        let mut client = run.connect(PORT)?;
        run.settle([&mut client])?;
        run.both_healthy(&client)?;
        client.stream.write_all(&[b'x'; 1000])?;
        while !run.stopped() && TcpCounters::read(&lab.client)?.get("RetransSegs") < LOST {
            run.check_deadline()?;
            socket::pause(Duration::from_millis(10), stop)?;
        }
        run.report_fault(&fault, 0, "data segments into the server")?;
        fault.lift(0)?;
        run.wait_acknowledged(&client)?;
        run.finish([client])?;
        server.stop()?;
        // The next one, after 1.6 s, is acknowledged.
        let all = LOST + 1;
        run.expect(Side::Client, "RetransSegs", all..=all);
        run.expect(Side::Client, "TCPTimeouts", all..=all);
        run.expect_retransmits(Side::Client, "rto", all..=all);
        run.end()
    }
}
