//! SYN-ACKs towards two networks are lost, on the one way there is or on a way of their own.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::incident::{self, HALF_OPENS, ROOMY_BACKLOG, ShutOut};
use crate::router::Router;
use crate::scenario::{Run, Scenario};
use crate::{Client, Fault, FaultRule, Lab, Lose, Made, PORT, Role, Side, syn_ack};

/// Networks to which no SYN-ACK gets through.
const LOST: usize = 2;
/// Each address calls several times; the fault knows the calls by their ports, which the kernel gives
/// to nobody else.
const HOSTS: usize = 40;
const FIRST_PORT: u16 = 20_001;
const PORTS: u16 = 4;
/// Where the hosts of each network begin that are connected already, and how many they are.
const CONNECTED: (u8, u8) = (100, 60);
const SHUT_OUT: u8 = 200;
/// The virtual address's port.
const VIRTUAL_PORT: u16 = 80;

/// The SYN-ACKs are lost on the way that the SYNs came.
pub(super) struct IncidentSynAckLost;

impl Scenario for IncidentSynAckLost {
    fn name(&self) -> &'static str {
        "incident-synack-lost"
    }

    fn summary(&self) -> &'static str {
        "500 work on, 307 are half-open, nobody gets in: SYN-ACKs to two networks are lost"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let trouble = || Ok((None, lab.server_addr(PORT)));
        unanswered(Run::new(self, lab, stop), trouble, VerdictKind::SynackLost)
    }
}

/// Those who call by a virtual address are answered from another one, past the router, and what is
/// before them throws that away. The others call the server itself.
pub(super) struct IncidentAsymmetricNat;

impl Scenario for IncidentAsymmetricNat {
    fn name(&self) -> &'static str {
        "incident-asymmetric-nat"
    }

    fn summary(&self) -> &'static str {
        "500 work on, 307 are half-open: called through DNAT, answered from another address"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let trouble = || {
            let router = Router::new(lab, &[(VIRTUAL_PORT, PORT)])?;
            let address = router.address(lab, VIRTUAL_PORT);
            Ok((Some(router), address))
        };
        unanswered(
            Run::new(self, lab, stop),
            trouble,
            VerdictKind::AsymmetricNat,
        )
    }
}

/// `trouble` comes when everybody is connected, and tells what is called from then on; `cause` is why
/// a half-open stays one.
fn unanswered(
    mut run: Run<'_>,
    trouble: impl FnOnce() -> Result<(Option<Router>, SocketAddr)>,
    cause: VerdictKind,
) -> Result<Made> {
    let lab = run.lab;
    incident::prepare(lab)?;
    incident::own_networks(lab, 0, incident::prefix(lab.family.wire_is_v6()))?;
    let listener = lab.listen(PORT, ROOMY_BACKLOG)?;
    // Those connected are of all networks: they came before the trouble.
    let mut crowd = incident::crowd(&run, &listener, CONNECTED)?;
    if run.stopped() {
        return incident::end(run, crowd, false);
    }

    let (_router, called) = trouble()?;
    let call = |network: usize, host, port| {
        let local = incident::local(lab, network as u8, host, port);
        Client::connect_from(&lab.client, local, called)
    };
    let mut fault = Fault::attach(&lab.client)?;
    for n in 0..PORTS {
        let towards = FaultRule {
            destination_port: FIRST_PORT + n,
            ..syn_ack()
        };
        fault.set(n.into(), towards, Lose::All, PORT)?;
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
    let mut shut_out = ShutOut::default();
    let stood = incident::hold(&mut run, &mut crowd, 0, |_, since| {
        shut_out.tick(since, |n| {
            call(usize::from(n) % LOST, SHUT_OUT + n, FIRST_PORT)
        })
    })?;
    shut_out.check(&run)?;
    for client in calling.iter().chain(shut_out.clients()) {
        // One that its timer ended is made anew by the next SYN.
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
    let callers = u64::from(ShutOut::CALLERS);
    run.expect(Side::Client, "ActiveOpens", active..=active + callers);
    let passive = incident::ESTABLISHED as u64;
    run.expect(Side::Server, "PassiveOpens", passive..=passive);
    run.expect(Side::Server, "ListenDrops", 0..=0);
    run.expect(Side::Server, "EmbryonicRsts", 0..=0);
    drop(calling);
    // With it the half-opens end. One whose SYN-ACK were sent again after the fault is gone would be
    // reset by a host that knows nothing of it.
    drop(listener);
    incident::end(run, crowd, stood)
}
