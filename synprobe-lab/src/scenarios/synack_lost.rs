use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::scenario::{Run, Scenario};
use crate::{Client, Fault, Lab, Lose, Made, Outcome, PORT, Side, set_option, syn_ack};

/// One retry more than the namespace grants ...
const PATIENT_RETRIES: libc::c_int = 4;
/// ... but not the 16 s of silence after the last one.
const PATIENT_TIMEOUT_MS: libc::c_uint = 21_000;

/// The classic way to a long SYN_SENT: the server answers, and the answer never arrives.
///
/// With tcp_syn_linear_timeouts = 2 the client's SYNs leave at 0, 1, 2, 3, 5, 9 (and, with one retry
/// more, 17) seconds: linear at first, then doubling three times. Each repeats the server's SYN-ACK,
/// beside the server's own timer.
pub(super) struct SynAckLost;

impl Scenario for SynAckLost {
    fn name(&self) -> &'static str {
        "synack-lost"
    }

    fn summary(&self) -> &'static str {
        "every SYN-ACK is lost: long SYN_SENT, backoff 1, 1, 1, 2, 4, 8 s, half-opens that expire"
    }

    fn nominal_seconds(&self) -> u32 {
        25
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        lab.client.set_sysctl("ipv4/tcp_syn_retries", "3")?;
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "2")?;
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "2")?;
        let _listener = lab.listen(PORT, 128)?;
        let mut fault = Fault::attach(&lab.client)?;
        fault.set(0, syn_ack(), Lose::All, PORT)?;

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
            // A half-open lives 7 s after its last SYN: the pauses of 4 and 8 s outlast it or not,
            // depending on whose timer fires first when both are due at once.
            run.server_ended(client, Outcome::Expired, 1..=4);
            run.with_cause(VerdictKind::SynackLost);
        }
        let resent = u64::from(retries[0] + retries[1]);
        run.report_fault(&fault, 0, "SYN-ACKs into the client")?;
        run.expect(Side::Client, "ActiveOpens", 2..=2);
        run.expect(Side::Client, "AttemptFails", 2..=2);
        run.expect(Side::Client, "TCPSynRetrans", resent..=resent);
        run.expect(Side::Client, "TCPTimeouts", resent + 2..=resent + 2);
        run.expect(Side::Client, "TCPAbortOnTimeout", 2..=2);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        run.expect_retransmits(Side::Client, "syn", resent..=resent);
        run.end()
    }
}
