use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    GroundTruth, Lab, Outcome, PORT, Side,
    scenario::{Scenario, ScenarioRun},
};

const CLIENTS: u64 = 5;

/// No listener on the port.
pub(super) struct RefusedScenario;

impl Scenario for RefusedScenario {
    fn name(&self) -> &'static str {
        "refused"
    }

    fn summary(&self) -> &'static str {
        "no listener on the port: the server answers each SYN with RST (ECONNREFUSED)"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        for _ in 0..CLIENTS {
            if run.stopped() {
                break;
            }
            let mut client = run.connect(PORT)?;
            run.settle([&mut client])?;
            run.client_ended(&client, Outcome::Refused)?;
            run.with_retransmits(0);
            run.with_cause(VerdictKind::Refused);
            run.pause(Duration::from_millis(50))?;
        }
        run.expect(Side::Client, "ActiveOpens", CLIENTS..=CLIENTS);
        run.expect(Side::Client, "AttemptFails", CLIENTS..=CLIENTS);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.expect(Side::Server, "OutRsts", CLIENTS..=CLIENTS);
        run.end()
    }
}
