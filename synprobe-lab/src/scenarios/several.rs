use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::Cause;
use crate::scenario::{Run, Scenario};
use crate::{Client, Fault, Lab, Lose, Made, Outcome, PORT, Server, Side, set_option, syn_ack};

const LOST: u16 = PORT;
const FULL: u16 = PORT + 2;
const CLOSED: u16 = PORT + 3;
const WELL: u16 = PORT + 4;

/// At [`FULL`]: the accept queue takes one more than this. Above the half-opens there, or the SYN that
/// is let in at last would be answered by cookie.
const BACKLOG: i32 = 3;
const QUEUED: usize = 4;
/// How long the application at [`FULL`] accepts nothing: over the second SYN-ACK, at 1 s, but not over
/// the third, at 3 s.
const BUSY: Duration = Duration::from_secs(2);
const REFUSED: usize = 3;
const HEALTHY_ONES: usize = 5;

/// Four things at once, on four ports of one server.
pub(super) struct Several;

impl Scenario for Several {
    fn name(&self) -> &'static str {
        "several"
    }

    fn summary(&self) -> &'static str {
        "at once: SYN-ACKs lost (8080), an accept queue full (8082), refused (8083), healthy (8084)"
    }

    fn nominal_seconds(&self) -> u32 {
        9
    }

    fn ports(&self) -> &'static [u16] {
        &[LOST, FULL, CLOSED, WELL]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        // SYNs at 0, 1 and 3 s, on every kernel; SYN-ACKs likewise, and forgotten 4 s later.
        lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "0")?;
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "2")?;
        let _never_reached = lab.listen(LOST, 128)?;
        let full = lab.listen(FULL, BACKLOG)?;
        let well = Server::start(vec![lab.listen(WELL, 128)?])?;
        let mut into_client = Fault::attach(&lab.client)?;
        into_client.set(0, syn_ack(), Lose::All, LOST)?;
        let mut into_server = Fault::attach(&lab.server)?;

        // Given up 3 s after the first SYN.
        let one_retry: libc::c_int = 1;
        let with_one_retry = || {
            Client::connect(&lab.client, lab.server_addr(LOST), |fd| {
                set_option(fd, libc::IPPROTO_TCP, libc::TCP_SYNCNT, &one_retry)
            })
        };
        let mut lost = [with_one_retry()?, with_one_retry()?];
        // The SYN of one more is not answered.
        let (half_open, queued) = run.fill_accept_queue(FULL, QUEUED, &mut into_server)?;
        let mut shut_out = [run.connect(FULL)?];

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
        for _ in 0..HEALTHY_ONES {
            let mut client = run.connect(WELL)?;
            run.settle([&mut client])?;
            run.both_healthy(&client)?;
            run.with_retransmits(0);
            run.finish([client])?;
        }

        run.pause(BUSY)?;
        let server = Server::start(vec![full])?;
        run.settle(shut_out.iter_mut().chain(&mut lost))?;
        run.wait_no_half_opens(FULL)?;
        for client in &queued {
            run.both_healthy(client)?;
            run.with_retransmits(0);
        }
        for client in &half_open {
            run.both_established(client, Cause::Healthy, VerdictKind::AcceptQueueFull)?;
            // At 1 s, refused; at 3 s, taken.
            run.with_retransmits(2);
        }
        for client in &shut_out {
            run.both_established(client, VerdictKind::ServerQueueFull, Cause::Healthy)?;
            run.with_retransmits(0);
        }
        run.finish(queued.into_iter().chain(half_open).chain(shut_out))?;
        server.stop()?;
        well.stop()?;

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
        let well = HEALTHY_ONES as u64;
        let refused = REFUSED as u64;
        run.expect(
            Side::Client,
            "ActiveOpens",
            9 + refused + well..=9 + refused + well,
        );
        run.expect(Side::Client, "AttemptFails", 2 + refused..=2 + refused);
        // One of each of the two that time out, two of the one that was shut out.
        run.expect(Side::Client, "TCPSynRetrans", 4..=4);
        run.expect(Side::Server, "PassiveOpens", 7 + well..=7 + well);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        // Two SYNs of the one that was shut out, and two final ACKs.
        run.expect(Side::Server, "ListenOverflows", 4..=4);
        run.expect_retransmits(Side::Client, "syn", 4..=4);
        run.end()
    }
}
