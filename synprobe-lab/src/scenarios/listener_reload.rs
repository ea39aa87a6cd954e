use std::{io::Write, sync::atomic::AtomicBool};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Server, Side, bare_ack,
    scenario::{Scenario, ScenarioRun},
    socket,
};

const HALF_OPENS: u64 = 3;

/// A reload: a new listener joins the SO_REUSEPORT group, and the old one is closed with its half-opens.
pub(super) struct ListenerReloadScenario;

impl Scenario for ListenerReloadScenario {
    fn name(&self) -> &'static str {
        "listener-reload"
    }

    fn summary(&self) -> &'static str {
        "a reload replaces the listener (SO_REUSEPORT): the half-opens of the old one end with it"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.server.try_sysctl("ipv4/tcp_migrate_req", "0")?;
        let old = lab.listen_shared(PORT, 128)?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        // All their final ACKs are lost: they cannot complete before the old listener is closed.
        fault.set(0, bare_ack(), LossPattern::All, PORT)?;
        let mut half_open = [run.connect(PORT)?, run.connect(PORT)?, run.connect(PORT)?];
        run.settle(&mut half_open)?;
        let held = HALF_OPENS as usize;
        run.wait_half_opens(PORT, held..=held)?;

        // The new listener comes first: no SYN is refused meanwhile.
        let new = lab.listen_shared(PORT, 128)?;
        drop(old);
        // The next time-out of each finds its listener closed.
        run.wait_no_half_opens(PORT)?;
        fault.lift(0)?;
        let server = Server::start(vec![new])?;
        let mut after = run.connect(PORT)?;
        run.settle([&mut after])?;
        run.both_healthy(&after)?;
        run.with_retransmits(0);
        for mut client in half_open {
            // The client has its SYN-ACK, and believes to be connected. Nobody knows what it sends.
            client.stream.write_all(b"hello\n")?;
            socket::wait_reset(&client, stop, run.deadline)?;
            run.client_ended(&client, Outcome::Established)?;
            run.with_cause(Cause::Healthy);
            run.server_ended(&client, Outcome::Dropped, 1..=1);
            run.with_retransmits(0);
            run.with_cause(VerdictKind::ListenerClosed);
        }
        run.finish([after])?;
        server.stop()?;
        run.report_fault(&fault, 0, "the final ACKs of three handshakes")?;
        run.expect(Side::Client, "ActiveOpens", 4..=4);
        run.expect(Side::Client, "EstabResets", HALF_OPENS..=HALF_OPENS);
        run.expect(Side::Server, "PassiveOpens", 1..=1);
        run.expect(Side::Server, "TCPSynRetrans", 0..=0);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        run.expect_retransmits(Side::Server, "synack", 0..=0);
        run.end()
    }
}
