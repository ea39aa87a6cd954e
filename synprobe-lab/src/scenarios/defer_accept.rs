use std::{io::Write, sync::atomic::AtomicBool, time::Duration};

use anyhow::{Context, Result};
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, GroundTruth, Lab, Outcome, PORT, Server, Side,
    scenario::{Scenario, ScenarioRun},
    set_option,
};

/// TCP_DEFER_ACCEPT of the listener. The kernel rounds it up to the SYN-ACK timer's third expiry: 7 s.
const SECONDS: libc::c_int = 5;
/// When clients send their first data.
const FIRST_DATA: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1500)];

/// The listener accepts a connection only once data has arrived.
///
/// The kernel ignores the final ACK while the client is connected. The timer fires at 1 and 3 s and
/// sends nothing. At 7 s it retransmits the SYN-ACK, and the kernel accepts the ACK that answers it
/// (syn_ack_recalc(), tcp_check_req()).
pub(super) struct DeferAcceptScenario;

impl Scenario for DeferAcceptScenario {
    fn name(&self) -> &'static str {
        "defer-accept"
    }

    fn summary(&self) -> &'static str {
        "TCP_DEFER_ACCEPT: half-open until the client sends data (after 0.4 and 1.5 s), or for 7 s"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let listener = lab.listen(PORT, 128)?;
        set_option(
            &listener,
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            &SECONDS,
        )
        .context("setting TCP_DEFER_ACCEPT")?;
        let server = Server::start(vec![listener])?;
        let mut clients = [run.connect(PORT)?, run.connect(PORT)?, run.connect(PORT)?];
        run.settle(&mut clients)?;
        let [mut soon, mut late, silent] = clients;

        let [first, second] = FIRST_DATA;
        run.pause(first)?;
        soon.stream.write_all(b"hello\n")?;
        run.pause(second.saturating_sub(first))?;
        late.stream.write_all(b"hello\n")?;
        for client in [soon, late] {
            run.both_established(&client, Cause::Healthy, VerdictKind::DeferAccept)?;
            run.with_retransmits(0);
            run.finish([client])?;
        }
        run.wait_no_half_opens(PORT)?;
        run.client_ended(&silent, Outcome::Established)?;
        run.with_cause(Cause::Healthy);
        run.server_ended(&silent, Outcome::Established, 1..=1);
        run.with_retransmits(1);
        run.with_cause(VerdictKind::DeferAccept);
        run.finish([silent])?;
        server.stop()?;

        run.expect(Side::Client, "ActiveOpens", 3..=3);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.expect(Side::Server, "PassiveOpens", 3..=3);
        run.expect(Side::Server, "TCPDeferAcceptDrop", 3..=3);
        run.expect(Side::Server, "TCPSynRetrans", 1..=1);
        run.expect_retransmits(Side::Server, "synack", 1..=1);
        run.end()
    }
}
