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

const ATTEMPTS: u64 = 3;
/// Ends before an answer is due, at 1 s.
const IMPATIENT: Duration = Duration::from_millis(500);

/// A client with a short timeout, on a path without answers.
pub(super) struct ImpatientScenario;

impl Scenario for ImpatientScenario {
    fn name(&self) -> &'static str {
        "impatient"
    }

    fn summary(&self) -> &'static str {
        "every SYN is lost; the application gives up after half a second, three times in a row"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let _listener = lab.listen(PORT, 128)?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        fault.set(0, syn(), LossPattern::All, PORT)?;
        let patience = Duration::from_millis(100)..=Duration::from_millis(900);
        for _ in 0..ATTEMPTS {
            if run.stopped() {
                break;
            }
            let mut client = run.connect(PORT)?;
            let until = Instant::now() + run.vary(IMPATIENT, patience.clone());
            settle([&mut client], stop, until)?;
            run.client_ended(&client, Outcome::Abandoned)?;
            run.with_cause(VerdictKind::Abandoned);
        }
        run.report_fault(&fault, 0, "SYNs into the server")?;
        run.expect(Side::Client, "ActiveOpens", ATTEMPTS..=ATTEMPTS);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Client, "TCPSynRetrans", 0..=0);
        run.expect_retransmits(Side::Client, "syn", 0..=0);
        run.end()
    }
}
