use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::Cause;
use crate::scenario::{Run, Scenario};
use crate::{Fault, Lab, Lose, Made, Outcome, PORT, Server, Side, syn};

/// Port, SYNs lost of each handshake.
const PARTLY: [(u16, u32); 2] = [(PORT, 1), (PORT + 1, 3)];
const WHOLLY: u16 = PORT + 2;

/// SYNs are lost on their way to the server.
pub(super) struct SynLost;

impl Scenario for SynLost {
    fn name(&self) -> &'static str {
        "syn-lost"
    }

    fn summary(&self) -> &'static str {
        "SYNs are lost: handshakes that complete after 1 and 3 retries, and one that never does"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn ports(&self) -> &'static [u16] {
        &[PORT, PORT + 1, PORT + 2]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        lab.client.set_sysctl("ipv4/tcp_syn_retries", "2")?;
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let server = Server::start(listeners)?;
        let mut fault = Fault::attach(&lab.server)?;
        let mut clients = Vec::new();
        let mut resent = 0;
        for (slot, (port, lost)) in (0..).zip(PARTLY) {
            // Without linear time-outs 2 retries are all there are.
            let lost = if linear { lost } else { lost.min(2) };
            fault.set(slot, syn(), Lose::First(lost.into()), port)?;
            for _ in 0..2 {
                clients.push((run.connect(port)?, lost));
                resent += u64::from(lost);
            }
        }
        fault.set(2, syn(), Lose::All, WHOLLY)?;
        let mut hopeless = run.connect(WHOLLY)?;
        // R = 2: given up 7 s after the first SYN, with linear time-outs after 5 retries.
        let retries = if linear { 5 } else { 2 };

        run.settle(clients.iter_mut().map(|(client, _)| client))?;
        for (client, lost) in &clients {
            run.client_ended(client, Outcome::Established)?;
            run.with_retransmits(*lost);
            run.with_cause(VerdictKind::SynLostThenOk);
            run.server_ended(client, Outcome::Established, 1..=1);
            run.with_retransmits(0);
            run.with_cause(Cause::Healthy);
        }
        run.finish(clients.into_iter().map(|(client, _)| client))?;
        run.settle([&mut hopeless])?;
        run.client_ended(&hopeless, Outcome::TimedOut)?;
        run.with_retransmits(retries);
        run.with_cause(VerdictKind::Filtered);
        server.stop()?;

        resent += u64::from(retries);
        run.report_fault(&fault, 0, "the first SYN of each handshake with port 8080")?;
        run.report_fault(&fault, 1, "the first SYNs of each handshake with port 8081")?;
        run.report_fault(&fault, 2, "every SYN to port 8082")?;
        run.expect(Side::Client, "ActiveOpens", 5..=5);
        run.expect(Side::Client, "AttemptFails", 1..=1);
        run.expect(Side::Client, "TCPSynRetrans", resent..=resent);
        // One more than are sent: the expiry that gives up.
        run.expect(Side::Client, "TCPTimeouts", resent + 1..=resent + 1);
        run.expect(Side::Server, "PassiveOpens", 4..=4);
        run.expect(Side::Server, "TCPTimeouts", 0..=0);
        run.expect_retransmits(Side::Client, "syn", resent..=resent);
        run.end()
    }
}
