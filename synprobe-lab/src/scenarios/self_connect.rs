use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, GroundTruth, Lab, Outcome, Side,
    scenario::{Scenario, ScenarioRun},
};

/// Ports that call themselves.
const PORTS: [u16; 3] = [20_001, 20_002, 20_003];

/// A client calls a port of its own host on which nothing listens, and gets that very port as its local one.
pub(super) struct SelfConnectScenario;

impl Scenario for SelfConnectScenario {
    fn name(&self) -> &'static str {
        "self-connect"
    }

    fn summary(&self) -> &'static str {
        "a client calls a port of its own host from that very port: it is connected to itself"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [u16] {
        &PORTS
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        for port in PORTS {
            let itself = lab.client_addr(port);
            let mut client = Client::connect_from(&lab.client, itself, itself)?;
            run.settle([&mut client])?;
            run.client_ended(&client, Outcome::Established)?;
            run.with_retransmits(0);
            run.with_cause(VerdictKind::SelfConnect);
            run.pause(Duration::from_millis(30))?;
            client.reset()?;
        }
        let all = PORTS.len() as u64;
        run.expect(Side::Client, "ActiveOpens", all..=all);
        run.expect(Side::Client, "PassiveOpens", 0..=0);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.end()
    }
}
