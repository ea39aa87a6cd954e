use std::{net::SocketAddr, sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    GroundTruth, Lab, Outcome, PORT, RawSender, Side,
    net::spoofed,
    scenario::{Scenario, ScenarioRun},
};

const PEERS: u16 = 5;
const SPACING: Duration = Duration::from_millis(200);

/// A few peers send one SYN each and nothing else.
pub(super) struct PeerSilentScenario;

impl Scenario for PeerSilentScenario {
    fn name(&self) -> &'static str {
        "peer-silent"
    }

    fn summary(&self) -> &'static str {
        "five peers send one SYN each and never answer: half-opens that expire after 7 s"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        // SYN-ACKs at 0, 1 and 3 s; expiry at 7 s.
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "2")?;
        let _listener = lab.listen(PORT, 128)?;
        let sender = RawSender::open(&lab.client, v6)?;
        let server = SocketAddr::new(lab.server_ip(), PORT);
        for n in 0..PEERS {
            if run.stopped() {
                break;
            }
            let peer = SocketAddr::new(spoofed(v6, n), 40_000 + n);
            sender.syn(peer, server, u32::from(n) << 24)?;
            run.peer_ended(server, peer, Outcome::Expired);
            run.with_retransmits(2);
            run.with_cause(VerdictKind::PeerSilent);
            run.pause(SPACING)?;
        }
        run.wait_no_half_opens(PORT)?;
        let peers = u64::from(PEERS);
        run.expect(Side::Client, "ActiveOpens", 0..=0);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        run.expect(Side::Server, "TCPSynRetrans", peers * 2..=peers * 2);
        // Plus one each for the expiry.
        run.expect(Side::Server, "TCPTimeouts", peers * 3..=peers * 3);
        run.expect_retransmits(Side::Server, "synack", peers * 2..=peers * 2);
        run.end()
    }
}
