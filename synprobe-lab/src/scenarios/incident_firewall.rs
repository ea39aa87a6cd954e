use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    GroundTruth, Lab, PORT, Side,
    incident::{self, HALF_OPENS, LARGE_BACKLOG, RejectedClients},
    nft::{self, NftHook, NftRule},
    packet::flags,
    scenario::{Scenario, ScenarioRun},
};

/// Networks to which the server's rules drop SYN-ACKs.
const DROPPED: usize = 2;
const HOSTS: usize = 40;
/// Connected hosts of each network: first host number, and how many.
const CONNECTED: (u8, u8) = (100, 60);
const FIRST_REJECTED: u8 = 200;
const CAUSES: [VerdictKind; 2] = [VerdictKind::DroppedHere, VerdictKind::DroppedHere];
/// tcp_syn_linear_timeouts of the peers. The kernel removes a half-open after 1 s when it cannot
/// retransmit the SYN-ACK; a SYN every second makes it again.
const LINEAR_TIMEOUTS: &str = "40";
/// Half-opens that may be missing: removed, and not made again yet.
const SLACK: usize = 30;

/// The server's own rules drop its SYN-ACKs to two networks.
pub(super) struct IncidentFirewallScenario;

impl Scenario for IncidentFirewallScenario {
    fn name(&self) -> &'static str {
        "incident-firewall"
    }

    fn summary(&self) -> &'static str {
        "incident: 500 established, 307 half-open, new connects fail: nf_tables drop the SYN-ACKs"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        incident::prepare(lab)?;
        lab.client
            .try_sysctl("ipv4/tcp_syn_linear_timeouts", LINEAR_TIMEOUTS)?;
        incident::own_networks(lab, 0, incident::prefix(v6))?;
        let listener = lab.listen(PORT, LARGE_BACKLOG)?;
        let mut pool = incident::establish_all(&run, &listener, CONNECTED)?;
        if run.stopped() {
            return incident::end(run, pool, false);
        }

        let both = flags::SYN | flags::ACK;
        let rules = [0, 1].map(|network| NftRule {
            destination: Some((
                incident::client_address(v6, network, 0),
                incident::prefix(v6),
            )),
            source_port: Some(PORT),
            flags: Some((both, both)),
            ..NftRule::drop(NftHook::Output)
        });
        nft::install(&lab.server, v6, &rules)?;
        let mut calling = Vec::new();
        for n in 0..HALF_OPENS {
            if run.stopped() {
                break;
            }
            let (network, nth) = (n % DROPPED, n / DROPPED);
            let host = 1 + (nth % HOSTS) as u8;
            calling.push(incident::call(lab, network as u8, host, 0)?);
        }
        let mut rejected = RejectedClients::default();
        let stood = incident::hold(&mut run, &mut pool, SLACK, |run, since| {
            rejected.tick(since, |n| {
                let network = n % DROPPED as u8;
                incident::call(run.lab, network, FIRST_REJECTED + n, 0)
            })
        })?;
        rejected.check(&run)?;
        for client in calling.iter().chain(rejected.clients()) {
            // One half-open for each SYN.
            incident::both_may_be_seen(&mut run, client, 20, CAUSES);
        }
        let active = incident::ESTABLISHED as u64 + HALF_OPENS as u64;
        let callers = u64::from(RejectedClients::CALLERS);
        run.expect(Side::Client, "ActiveOpens", active..=active + callers);
        let passive = incident::ESTABLISHED as u64;
        run.expect(Side::Server, "PassiveOpens", passive..=passive);
        // No SYN-ACK is retransmitted: each attempt fails.
        run.expect(Side::Server, "TCPSynRetrans", 0..=0);
        drop(calling);
        incident::end(run, pool, stood)
    }
}
