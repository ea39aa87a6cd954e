//! SYN-ACKs to two networks are lost, on the only path or on a return path of their own.

use std::{net::SocketAddr, sync::atomic::AtomicBool};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, FaultInjector, FaultRule, GroundTruth, Lab, LossPattern, PORT, Role, Side,
    incident::{self, HALF_OPENS, LARGE_BACKLOG, RejectedClients},
    router::DnatRouter,
    scenario::{Scenario, ScenarioRun},
    syn_ack,
};

/// Networks whose SYN-ACKs are lost.
const LOST: usize = 2;
/// Each address connects several times. The fault matches these connections by ports outside the
/// ephemeral range.
const HOSTS: usize = 40;
const FIRST_PORT: u16 = 20_001;
const PORTS: u16 = 4;
/// Connected hosts of each network: first host number, and how many.
const CONNECTED: (u8, u8) = (100, 60);
const FIRST_REJECTED: u8 = 200;
/// Port of the virtual address.
const VIRTUAL_PORT: u16 = 80;

/// The SYN-ACKs are lost on the path of the SYNs.
pub(super) struct IncidentSynAckLostScenario;

impl Scenario for IncidentSynAckLostScenario {
    fn name(&self) -> &'static str {
        "incident-synack-lost"
    }

    fn summary(&self) -> &'static str {
        "incident: 500 established, 307 half-open, new connects fail: SYN-ACKs to two networks are lost"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let trouble = || Ok((None, lab.server_addr(PORT)));
        unanswered(
            ScenarioRun::new(self, lab, stop),
            trouble,
            VerdictKind::SynackLost,
        )
    }
}

/// Clients that connect to a virtual address get the answer from another address, past the router, and
/// a device on their side drops it. The other clients connect to the server itself.
pub(super) struct IncidentAsymmetricNatScenario;

impl Scenario for IncidentAsymmetricNatScenario {
    fn name(&self) -> &'static str {
        "incident-asymmetric-nat"
    }

    fn summary(&self) -> &'static str {
        "incident: 500 established, 307 half-open: DNAT without SNAT, answers come from another address"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let trouble = || {
            let router = DnatRouter::new(lab, &[(VIRTUAL_PORT, PORT)])?;
            let address = router.address(lab, VIRTUAL_PORT);
            Ok((Some(router), address))
        };
        unanswered(
            ScenarioRun::new(self, lab, stop),
            trouble,
            VerdictKind::AsymmetricNat,
        )
    }
}

/// Runs the incident. `trouble` starts it once all clients are connected and returns the address to
/// connect to from then on. `cause` is the expected verdict of the half-opens.
fn unanswered(
    mut run: ScenarioRun<'_>,
    trouble: impl FnOnce() -> Result<(Option<DnatRouter>, SocketAddr)>,
    cause: VerdictKind,
) -> Result<GroundTruth> {
    let lab = run.lab;
    incident::prepare(lab)?;
    incident::own_networks(lab, 0, incident::prefix(lab.family.wire_is_v6()))?;
    let listener = lab.listen(PORT, LARGE_BACKLOG)?;
    // The established connections are from all networks: they precede the incident.
    let mut pool = incident::establish_all(&run, &listener, CONNECTED)?;
    if run.stopped() {
        return incident::end(run, pool, false);
    }

    let (_router, target) = trouble()?;
    let call = |network: usize, host, port| {
        let local = incident::local(lab, network as u8, host, port);
        Client::connect_from(&lab.client, local, target)
    };
    let mut fault = FaultInjector::attach(&lab.client)?;
    for n in 0..PORTS {
        let towards = FaultRule {
            destination_port: FIRST_PORT + n,
            ..syn_ack()
        };
        fault.set(n.into(), towards, LossPattern::All, PORT)?;
    }
    let mut calling = Vec::new();
    for n in 0..HALF_OPENS {
        if run.stopped() {
            break;
        }
        let (network, nth) = (n % LOST, n / LOST);
        let port = FIRST_PORT + (nth / HOSTS) as u16;
        calling.push(call(network, 1 + (nth % HOSTS) as u8, port)?);
    }
    let mut rejected = RejectedClients::default();
    let stood = incident::hold(&mut run, &mut pool, 0, |_, since| {
        rejected.tick(since, |n| {
            call(usize::from(n) % LOST, FIRST_REJECTED + n, FIRST_PORT)
        })
    })?;
    rejected.check(&run)?;
    for client in calling.iter().chain(rejected.clients()) {
        // The next SYN makes a half-open again whose timer ended it.
        let ends = (client.local, lab.server_addr(PORT));
        incident::may_be_seen(&mut run, Role::Server, ends, 2, cause);
        let ends = (client.local, client.peer);
        incident::may_be_seen(&mut run, Role::Client, ends, 1, VerdictKind::Filtered);
    }
    for n in 0..PORTS {
        let what = format!("SYN-ACKs to port {} of two networks", FIRST_PORT + n);
        run.report_fault(&fault, n.into(), &what)?;
    }
    let active = incident::ESTABLISHED as u64 + HALF_OPENS as u64;
    let callers = u64::from(RejectedClients::CALLERS);
    run.expect(Side::Client, "ActiveOpens", active..=active + callers);
    let passive = incident::ESTABLISHED as u64;
    run.expect(Side::Server, "PassiveOpens", passive..=passive);
    run.expect(Side::Server, "ListenDrops", 0..=0);
    run.expect(Side::Server, "EmbryonicRsts", 0..=0);
    drop(calling);
    // Closing the listener ends the half-opens. Otherwise a SYN-ACK that is retransmitted after the fault
    // is lifted would be answered with RST.
    drop(listener);
    incident::end(run, pool, stood)
}
