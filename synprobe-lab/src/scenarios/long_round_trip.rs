use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    FaultInjector, FaultRule, GroundTruth, Lab, LossPattern, Outcome, PORT, Side,
    raw_peer::RawPeer,
    scenario::{Scenario, ScenarioRun},
};

const CLIENTS: u64 = 3;
/// Longer than the first time-out of a SYN (1 s), shorter than the second.
const ROUND_TRIP: Duration = Duration::from_millis(1_450);

/// The round trip is longer than the time-out of the SYN.
pub(super) struct LongRoundTripScenario;

impl Scenario for LongRoundTripScenario {
    fn name(&self) -> &'static str {
        "long-round-trip"
    }

    fn summary(&self) -> &'static str {
        "the round trip takes 1.45 s: every SYN is sent twice, and nothing is lost"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        // A peer of its own answers for the server, whose kernel sees none of it.
        let mut fault = FaultInjector::attach(&lab.server)?;
        fault.set(0, FaultRule::default(), LossPattern::All, PORT)?;
        let peer = RawPeer::serve_with_timestamps(lab, |_| ROUND_TRIP)?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(run.connect(PORT)?);
            run.pause(Duration::from_millis(20))?;
        }
        run.settle(&mut clients)?;
        for client in &clients {
            run.client_ended(client, Outcome::Established)?;
            run.with_retransmits(1);
            run.with_cause(VerdictKind::SpuriousRetransmit);
        }
        for client in clients {
            client.reset()?;
        }
        peer.stop()?;
        run.expect(Side::Client, "ActiveOpens", CLIENTS..=CLIENTS);
        run.expect(Side::Client, "TCPSynRetrans", CLIENTS..=CLIENTS);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect_retransmits(Side::Client, "syn", CLIENTS..=CLIENTS);
        run.end()
    }
}
