use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Server, Side,
    scenario::{Scenario, ScenarioRun},
    set_option, syn_ack,
};

const LOST: u16 = PORT;
const FULL: u16 = PORT + 2;
const CLOSED: u16 = PORT + 3;
const OPEN: u16 = PORT + 4;

/// Backlog of [`FULL`]; its accept queue takes one more. It exceeds the number of half-opens there, so
/// that the last SYN is not answered with a SYN cookie.
const BACKLOG: i32 = 3;
const QUEUED: usize = 4;
/// How long the application at [`FULL`] does not accept: beyond the second SYN-ACK at 1 s, but not
/// beyond the third at 3 s.
const BUSY: Duration = Duration::from_secs(2);
const REFUSED: usize = 3;
const HEALTHY_CLIENTS: usize = 5;

/// Four behaviours at once, on four ports of one server.
pub(super) struct SeveralScenario;

impl Scenario for SeveralScenario {
    fn name(&self) -> &'static str {
        "several"
    }

    fn summary(&self) -> &'static str {
        "at once: SYN-ACKs lost (8080), accept queue full (8082), refused (8083), healthy (8084)"
    }

    fn nominal_seconds(&self) -> u32 {
        9
    }

    fn ports(&self) -> &'static [u16] {
        &[LOST, FULL, CLOSED, OPEN]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        // SYNs and SYN-ACKs at 0, 1 and 3 s on every kernel; half-opens expire 4 s later.
        lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "0")?;
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "2")?;
        let _never_reached = lab.listen(LOST, 128)?;
        let full = lab.listen(FULL, BACKLOG)?;
        let open = Server::start(vec![lab.listen(OPEN, 128)?])?;
        let mut into_client = FaultInjector::attach(&lab.client)?;
        into_client.set(0, syn_ack(), LossPattern::All, LOST)?;
        let mut into_server = FaultInjector::attach(&lab.server)?;

        // The kernel gives up 3 s after the first SYN.
        let one_retry: libc::c_int = 1;
        let with_one_retry = || {
            Client::connect(&lab.client, lab.server_addr(LOST), |fd| {
                set_option(fd, libc::IPPROTO_TCP, libc::TCP_SYNCNT, &one_retry)
            })
        };
        let mut lost = [with_one_retry()?, with_one_retry()?];
        // The server drops the SYN of one more client.
        let clients = run.fill_accept_queue(FULL, QUEUED, &mut into_server)?;
        let mut late = [run.connect(FULL)?];

        let mut refused = Vec::new();
        for _ in 0..REFUSED {
            refused.push(run.connect(CLOSED)?);
        }
        run.settle(&mut refused)?;
        for client in &refused {
            run.client_ended(client, Outcome::Refused)?;
            run.with_retransmits(0);
            run.with_cause(VerdictKind::Refused);
        }
        for _ in 0..HEALTHY_CLIENTS {
            let mut client = run.connect(OPEN)?;
            run.settle([&mut client])?;
            run.both_healthy(&client)?;
            run.with_retransmits(0);
            run.finish([client])?;
        }

        run.pause(BUSY)?;
        let server = Server::start(vec![full])?;
        run.settle(late.iter_mut().chain(&mut lost))?;
        run.wait_no_half_opens(FULL)?;
        // Dropped at 1 s, accepted at 3 s.
        run.full_queue_ended(clients, late, 2)?;
        server.stop()?;
        open.stop()?;

        run.wait_no_half_opens(LOST)?;
        for client in &lost {
            run.client_ended(client, Outcome::TimedOut)?;
            run.with_retransmits(1);
            run.with_cause(VerdictKind::Filtered);
            run.server_ended(client, Outcome::Expired, 1..=1);
            run.with_cause(VerdictKind::SynackLost);
        }
        run.report_fault(&into_client, 0, "SYN-ACKs from port 8080")?;
        run.report_fault(&into_server, 0, "the first final ACKs to port 8082")?;
        let healthy = HEALTHY_CLIENTS as u64;
        let refused = REFUSED as u64;
        run.expect(
            Side::Client,
            "ActiveOpens",
            9 + refused + healthy..=9 + refused + healthy,
        );
        run.expect(Side::Client, "AttemptFails", 2 + refused..=2 + refused);
        // One by each client that times out, two by the late client.
        run.expect(Side::Client, "TCPSynRetrans", 4..=4);
        run.expect(Side::Server, "PassiveOpens", 7 + healthy..=7 + healthy);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        // Two SYNs of the late client, and two final ACKs.
        run.expect(Side::Server, "ListenOverflows", 4..=4);
        run.expect_retransmits(Side::Client, "syn", 4..=4);
        run.end()
    }
}
