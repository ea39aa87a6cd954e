use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Side,
    scenario::{Scenario, ScenarioRun},
    socket::settle,
    syn,
};

/// How long each application waits (milliseconds), and how many SYN retransmissions happen by then.
const PATIENCE: [(u64, u32); 3] = [(500, 0), (1500, 1), (2600, 2)];

/// The application gives up before the kernel does.
pub(super) struct AbandonedScenario;

impl Scenario for AbandonedScenario {
    fn name(&self) -> &'static str {
        "abandoned"
    }

    fn summary(&self) -> &'static str {
        "SYNs are lost; the application closes its sockets after 0.5, 1.5 and 2.6 s, without an error"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        // The third SYN leaves at 2 s with linear timeouts and at 3 s without: request linear ones.
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let _listener = lab.listen(PORT, 128)?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        fault.set(0, syn(), LossPattern::All, PORT)?;
        let start = Instant::now();
        let mut clients = Vec::new();
        for _ in PATIENCE {
            clients.push(run.connect(PORT)?);
        }
        let mut retransmitted = 0;
        for ((usual, retransmits), mut client) in PATIENCE.into_iter().zip(clients) {
            // Between this SYN and the next one.
            let earliest = Duration::from_millis(u64::from(retransmits) * 1000 + 150);
            let latest = earliest + Duration::from_millis(700);
            let patience = run.vary(Duration::from_millis(usual), earliest..=latest);
            let retransmits = if linear {
                retransmits
            } else {
                retransmits.min(1)
            };
            settle([&mut client], stop, start + patience)?;
            run.client_ended(&client, Outcome::Abandoned)?;
            run.with_retransmits(retransmits);
            // Once an answer was due, its absence is the cause and not the application.
            run.with_cause(match usual {
                500 => VerdictKind::Abandoned,
                _ => VerdictKind::Filtered,
            });
            retransmitted += u64::from(retransmits);
        }
        run.report_fault(&fault, 0, "SYNs into the server")?;
        run.expect(Side::Client, "ActiveOpens", 3..=3);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Client, "TCPSynRetrans", retransmitted..=retransmitted);
        run.expect(Side::Client, "TCPTimeouts", retransmitted..=retransmitted);
        run.expect_retransmits(Side::Client, "syn", retransmitted..=retransmitted);
        run.end()
    }
}
