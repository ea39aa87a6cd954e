use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;

use crate::{
    FaultInjector, GroundTruth, Lab, PORT, Server, Side,
    scenario::{Scenario, ScenarioRun},
};

const BACKLOG: i32 = 3;
/// Capacity of the accept queue: one more than the backlog.
const QUEUED: usize = 4;
/// How long the application does not call accept().
const BUSY: Duration = Duration::from_secs(4);

/// The application does not call accept(): handshakes wait on both ends.
pub(super) struct AcceptQueueFullScenario;

impl Scenario for AcceptQueueFullScenario {
    fn name(&self) -> &'static str {
        "accept-queue-full"
    }

    fn summary(&self) -> &'static str {
        "the application does not accept for 4 s; SYNs and final ACKs are dropped at the full accept queue"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let listener = lab.listen(PORT, BACKLOG)?;

        let mut fault = FaultInjector::attach(&lab.server)?;
        let clients = run.fill_accept_queue(PORT, QUEUED, &mut fault)?;

        // Two clients find it full: the server drops their SYNs.
        let mut late = [run.connect(PORT)?, run.connect(PORT)?];

        run.pause(BUSY)?;
        let server = Server::start(vec![listener])?;
        run.settle(&mut late)?;
        run.wait_no_half_opens(PORT)?;

        // Dropped at 1 and 3 s, accepted at 7 s.
        run.full_queue_ended(clients, late, 3)?;
        server.stop()?;
        run.report_fault(&fault, 0, "the first final ACK of two handshakes")?;
        run.expect(Side::Client, "ActiveOpens", 8..=8);
        run.expect(Side::Server, "PassiveOpens", 8..=8);
        run.expect(Side::Server, "TCPTimeouts", 6..=6);
        run.expect(Side::Server, "TCPSynRetrans", 6..=6);
        // Two final ACKs at 1 and at 3 s, and the SYNs of the two late clients.
        run.expect(Side::Server, "ListenOverflows", 6..=16);
        run.expect_retransmits(Side::Server, "synack", 6..=6);
        run.expect_retransmits(Side::Client, "syn", 4..=12);
        run.end()
    }
}
