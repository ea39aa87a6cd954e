use std::{io::Write, sync::atomic::AtomicBool};

use anyhow::{Context, Result};
use synprobe_common::model::VerdictKind;

use crate::{
    FaultInjector, GroundTruth, Lab, LossPattern, PORT, Role, Side, bare_ack,
    incident::{self, ClientPool, ESTABLISHED, HALF_OPENS, NETWORKS, RejectedClients},
    scenario::{Scenario, ScenarioRun},
};

/// Half-opens count against the backlog too, so it exceeds their number.
const BACKLOG: i32 = 310;
/// Capacity of the accept queue: one more than the backlog.
const QUEUED: usize = 311;
/// Hosts of each network with half-opens.
const HOSTS: usize = 20;
/// Connected hosts of each network: first host number, and how many.
const CONNECTED: (u8, u8) = (100, 60);
const FIRST_REJECTED: u8 = 200;

/// The application stops accepting, and the accept queue fills.
///
/// The half-opens arrived while the queue had room. Their final ACKs are lost until it is full.
pub(super) struct IncidentAcceptQueueScenario;

impl Scenario for IncidentAcceptQueueScenario {
    fn name(&self) -> &'static str {
        "incident-accept-queue"
    }

    fn summary(&self) -> &'static str {
        "incident: 500 established, 307 half-open, new connects fail: the application stopped accepting"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        incident::prepare(lab)?;
        incident::own_networks(lab, 0, incident::prefix(lab.family.wire_is_v6()))?;
        let listener = lab.listen(PORT, BACKLOG)?;
        let mut pool = ClientPool::default();
        let accepted = ESTABLISHED - QUEUED;
        incident::establish(&run, &mut pool, accepted, CONNECTED)?;
        incident::accept(&run, &mut pool, &listener, accepted)?;

        // The application accepts no more from here on. Fill the queue except for one place.
        incident::establish(&run, &mut pool, ESTABLISHED - 1, CONNECTED)?;
        if run.stopped() {
            return incident::end(run, pool, false);
        }
        let mut fault = FaultInjector::attach(&lab.server)?;
        fault.set(0, bare_ack(), LossPattern::All, PORT)?;
        let mut calling = Vec::new();
        for n in 0..HALF_OPENS {
            if run.stopped() {
                break;
            }
            let network = (n % usize::from(NETWORKS)) as u8;
            let host = 1 + (n / usize::from(NETWORKS) % HOSTS) as u8;
            calling.push(incident::call(lab, network, host, 0)?);
        }
        run.settle(&mut calling)?;
        // A client whose ACK carries data takes the last place.
        incident::establish(&run, &mut pool, ESTABLISHED, CONNECTED)?;
        if let Some(mut last) = pool.newest().filter(|_| !run.stopped()) {
            last.write_all(b"x")
                .context("sending the last client's data")?;
        }
        run.wait_established(PORT, ESTABLISHED)?;
        fault.lift(0)?;

        let mut rejected = RejectedClients::default();
        let stood = incident::hold(&mut run, &mut pool, 0, |run, since| {
            rejected.tick(since, |n| {
                incident::call(run.lab, n % NETWORKS, FIRST_REJECTED + n, 0)
            })
        })?;
        rejected.check(&run)?;
        for client in &calling {
            // The client's ends are established.
            let ends = (client.local, client.peer);
            incident::may_be_seen(
                &mut run,
                Role::Server,
                ends,
                1,
                VerdictKind::AcceptQueueFull,
            );
        }
        for client in rejected.clients() {
            let ends = (client.local, client.peer);
            incident::may_be_seen(
                &mut run,
                Role::Client,
                ends,
                1,
                VerdictKind::ServerQueueFull,
            );
        }
        run.note(
            "above half a queue the kernel shortens the lifetime of half-opens: some end after 7 s",
        );
        run.report_fault(&fault, 0, "final ACKs, until the queue was full")?;
        let active = ESTABLISHED as u64 + HALF_OPENS as u64;
        let callers = u64::from(RejectedClients::CALLERS);
        run.expect(Side::Client, "ActiveOpens", active..=active + callers);
        let passive = ESTABLISHED as u64;
        run.expect(Side::Server, "PassiveOpens", passive..=passive);
        for client in calling {
            client.reset()?;
        }
        drop(listener);
        incident::end(run, pool, stood)
    }
}
