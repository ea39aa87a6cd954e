use std::{
    net::SocketAddr,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, GroundTruth, Lab, Outcome, PORT, Side,
    nft::{self, NftRule},
    scenario::{Scenario, ScenarioRun},
    socket::settle,
};

/// The one port that the rule gives to all connections.
const NAT_PORT: u16 = 45_000;
const CLIENTS: u64 = 3;
/// The applications' SYNs are tried at 0, 1 and 2 s.
const PATIENCE: Duration = Duration::from_millis(2500);
const RETRIES: u64 = 2;

/// The client's source NAT has one port. The first connection gets it. Connection tracking cannot insert the SYNs
/// of the others and drops them (`__nf_conntrack_confirm()`, insert_failed).
pub(super) struct SnatExhaustedScenario;

impl Scenario for SnatExhaustedScenario {
    fn name(&self) -> &'static str {
        "snat-exhausted"
    }

    fn summary(&self) -> &'static str {
        "the client's source NAT is out of ports: connection tracking drops its own SYNs"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let translated = SocketAddr::new(lab.client_ip(), NAT_PORT);
        let rule = NftRule {
            snat_port: Some(NAT_PORT),
            ..NftRule::snat(PORT, lab.client_ip())
        };
        nft::install(&lab.client, lab.family.wire_is_v6(), &[rule])?;
        let _listener = lab.listen(PORT, 128)?;
        let start = Instant::now();
        let mut holder = run.connect(PORT)?;
        run.settle([&mut holder])?;
        run.client_ended(&holder, Outcome::Established)?;
        run.with_cause(Cause::Healthy);
        let server = SocketAddr::new(lab.server_ip(), PORT);
        run.peer_ended(server, translated, Outcome::Established);
        run.with_cause(Cause::Healthy);

        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(run.connect(PORT)?);
        }
        settle(&mut clients, stop, start + PATIENCE)?;
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        run.clients_abandoned(&clients, 0, VerdictKind::DroppedHere)?;
        drop(clients);
        holder.reset()?;
        run.note("no SYN of the later clients leaves: each attempt fails with EPERM");
        let failed = CLIENTS * retries;
        run.expect(Side::Client, "ActiveOpens", CLIENTS + 1..=CLIENTS + 1);
        run.expect(Side::Client, "TCPSynRetrans", failed..=failed);
        run.expect(Side::Client, "TCPRetransFail", failed..=failed);
        run.expect(Side::Server, "PassiveOpens", 1..=1);
        run.expect_retransmits(Side::Client, "syn", 0..=0);
        run.end()
    }
}
