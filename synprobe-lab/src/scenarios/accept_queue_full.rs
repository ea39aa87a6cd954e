use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::Cause;
use crate::scenario::{Run, Scenario};
use crate::{Fault, Lab, Made, PORT, Server, Side};

const BACKLOG: i32 = 3;
/// How many the accept queue takes: one more than the backlog.
const QUEUED: usize = 4;
/// How long the application does not come round to accept().
const BUSY: Duration = Duration::from_secs(4);

/// The application does not accept(): handshakes wait on both sides.
pub(super) struct AcceptQueueFull;

impl Scenario for AcceptQueueFull {
    fn name(&self) -> &'static str {
        "accept-queue-full"
    }

    fn summary(&self) -> &'static str {
        "the application accepts nothing for 4 s: SYNs and final ACKs are refused at a full queue"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let listener = lab.listen(PORT, BACKLOG)?;

        let mut fault = Fault::attach(&lab.server)?;
        let (half_open, queued) = run.fill_accept_queue(PORT, QUEUED, &mut fault)?;

        // Two find it full: their SYNs are not answered.
        let mut shut_out = [run.connect(PORT)?, run.connect(PORT)?];

        run.pause(BUSY)?;
        let server = Server::start(vec![listener])?;
        run.settle(&mut shut_out)?;
        run.wait_no_half_opens(PORT)?;

        for client in &queued {
            run.both_healthy(client)?;
            run.with_retransmits(0);
        }
        for client in &half_open {
            run.both_established(client, Cause::Healthy, VerdictKind::AcceptQueueFull)?;
            // At 1 and 3 s, refused; at 7 s, taken.
            run.with_retransmits(3);
        }
        for client in &shut_out {
            run.both_established(client, VerdictKind::ServerQueueFull, Cause::Healthy)?;
            run.with_retransmits(0);
        }
        run.finish(queued.into_iter().chain(half_open).chain(shut_out))?;
        server.stop()?;
        run.report_fault(&fault, 0, "the first final ACK of two handshakes")?;
        run.expect(Side::Client, "ActiveOpens", 8..=8);
        run.expect(Side::Server, "PassiveOpens", 8..=8);
        run.expect(Side::Server, "TCPTimeouts", 6..=6);
        run.expect(Side::Server, "TCPSynRetrans", 6..=6);
        // Two final ACKs at 1 and at 3 s, and the SYNs of those shut out.
        run.expect(Side::Server, "ListenOverflows", 6..=16);
        run.expect_retransmits(Side::Server, "synack", 6..=6);
        run.expect_retransmits(Side::Client, "syn", 4..=12);
        run.end()
    }
}
