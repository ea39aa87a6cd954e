use std::io::Write;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use synprobe_common::model::VerdictKind;

use crate::incident::{self, Crowd, ESTABLISHED, HALF_OPENS, NETWORKS, ShutOut};
use crate::scenario::{Run, Scenario};
use crate::{Fault, Lab, Lose, Made, PORT, Role, Side, bare_ack};

/// Half-opens count against the backlog too, so it is no less than they are.
const BACKLOG: i32 = 310;
/// The accept queue takes one more than the backlog.
const QUEUED: usize = 311;
/// The half-opens' hosts in each network.
const HOSTS: usize = 20;
/// Where the hosts of each network begin that are connected, and how many they are.
const CONNECTED: (u8, u8) = (100, 60);
const SHUT_OUT: u8 = 200;

/// The application stops accepting, and its queue is full.
///
/// The half-opens came while there was room: their final ACKs are lost until there is none.
pub(super) struct IncidentAcceptQueue;

impl Scenario for IncidentAcceptQueue {
    fn name(&self) -> &'static str {
        "incident-accept-queue"
    }

    fn summary(&self) -> &'static str {
        "500 established, 307 half-open, nobody gets in: the application accepts no more"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        incident::prepare(lab)?;
        incident::own_networks(lab, 0, incident::prefix(lab.family.wire_is_v6()))?;
        let listener = lab.listen(PORT, BACKLOG)?;
        let mut crowd = Crowd::default();
        let accepted = ESTABLISHED - QUEUED;
        incident::establish(&run, &mut crowd, accepted, CONNECTED)?;
        incident::accept(&run, &mut crowd, &listener, accepted)?;

        // From here on nobody accepts. All but the last place are taken ...
        incident::establish(&run, &mut crowd, ESTABLISHED - 1, CONNECTED)?;
        if run.stopped() {
            return incident::end(run, crowd, false);
        }
        let mut fault = Fault::attach(&lab.server)?;
        fault.set(0, bare_ack(), Lose::All, PORT)?;
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
        // ... and the last one is taken by a client whose ACK comes with its first words.
        incident::establish(&run, &mut crowd, ESTABLISHED, CONNECTED)?;
        if let Some(mut last) = crowd.newest().filter(|_| !run.stopped()) {
            last.write_all(b"x").context("the last one's words")?;
        }
        run.wait_established(PORT, ESTABLISHED)?;
        fault.lift(0)?;

        let mut shut_out = ShutOut::default();
        let stood = incident::hold(&mut run, &mut crowd, 0, |run, since| {
            shut_out.tick(since, |n| {
                incident::call(run.lab, n % NETWORKS, SHUT_OUT + n, 0)
            })
        })?;
        shut_out.check(&run)?;
        for client in &calling {
            // Their own ends are established: to them all is well, but nothing is answered.
            let ends = (client.local, client.peer);
            incident::may_be_seen(
                &mut run,
                Role::Server,
                ends,
                1,
                VerdictKind::AcceptQueueFull,
            );
        }
        for client in shut_out.clients() {
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
            "the kernel shortens the lives of half-opens that fill half a queue: some end after 7 s",
        );
        run.report_fault(&fault, 0, "final ACKs, until the queue was full")?;
        let active = ESTABLISHED as u64 + HALF_OPENS as u64;
        let callers = u64::from(ShutOut::CALLERS);
        run.expect(Side::Client, "ActiveOpens", active..=active + callers);
        let passive = ESTABLISHED as u64;
        run.expect(Side::Server, "PassiveOpens", passive..=passive);
        for client in calling {
            client.reset()?;
        }
        drop(listener);
        incident::end(run, crowd, stood)
    }
}
