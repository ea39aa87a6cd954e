use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Side,
    scenario::{Scenario, ScenarioRun},
    set_option, syn_ack,
};

/// TCP_SYNCNT of the second client: one more than the namespace's tcp_syn_retries.
const PATIENT_RETRIES: libc::c_int = 4;
/// TCP_USER_TIMEOUT of the second client: ends before the 16 s after its last SYN.
const PATIENT_TIMEOUT_MS: libc::c_uint = 21_000;

/// The usual cause of a long SYN_SENT: the server answers, but the answer does not arrive.
///
/// With tcp_syn_linear_timeouts = 2 the client's SYNs leave at 0, 1, 2, 3, 5 and 9 s, and at 17 s with
/// one more retry. The server retransmits its SYN-ACK for each SYN, and by its own timer.
pub(super) struct SynAckLostScenario;

impl Scenario for SynAckLostScenario {
    fn name(&self) -> &'static str {
        "synack-lost"
    }

    fn summary(&self) -> &'static str {
        "every SYN-ACK is lost: long SYN_SENT with backoff 1, 1, 1, 2, 4, 8 s; half-opens expire"
    }

    fn nominal_seconds(&self) -> u32 {
        25
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.client.set_sysctl("ipv4/tcp_syn_retries", "3")?;
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "2")?;
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "2")?;
        let _listener = lab.listen(PORT, 128)?;
        let mut fault = FaultInjector::attach(&lab.client)?;
        fault.set(0, syn_ack(), LossPattern::All, PORT)?;

        let plain = run.connect(PORT)?;
        let patient = Client::connect(&lab.client, lab.server_addr(PORT), |fd| {
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_SYNCNT, &PATIENT_RETRIES)?;
            set_option(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_USER_TIMEOUT,
                &PATIENT_TIMEOUT_MS,
            )
        })?;
        let mut clients = [plain, patient];
        run.settle(&mut clients)?;
        run.wait_no_half_opens(PORT)?;

        let retries: [u32; 2] = if linear { [5, 6] } else { [3, 4] };
        for (client, retries) in clients.iter().zip(retries) {
            run.client_ended(client, Outcome::TimedOut)?;
            run.with_retransmits(retries);
            run.with_cause(VerdictKind::Filtered);
            // A half-open lives for 7 s after its last SYN. Whether the client's pauses of 4 and 8 s
            // outlast it depends on which timer fires first.
            run.server_ended(client, Outcome::Expired, 1..=4);
            run.with_cause(VerdictKind::SynackLost);
        }
        let retransmitted = u64::from(retries[0] + retries[1]);
        run.report_fault(&fault, 0, "SYN-ACKs into the client")?;
        run.expect(Side::Client, "ActiveOpens", 2..=2);
        run.expect(Side::Client, "AttemptFails", 2..=2);
        run.expect(Side::Client, "TCPSynRetrans", retransmitted..=retransmitted);
        run.expect(
            Side::Client,
            "TCPTimeouts",
            retransmitted + 2..=retransmitted + 2,
        );
        run.expect(Side::Client, "TCPAbortOnTimeout", 2..=2);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        run.expect_retransmits(Side::Client, "syn", retransmitted..=retransmitted);
        run.end()
    }
}
