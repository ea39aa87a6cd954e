use std::{
    net::SocketAddr,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, RawSender, Side,
    net::spoofed,
    scenario::{Scenario, ScenarioRun},
    socket::settle,
    syn_ack,
};

/// Age at which the RST arrives (milliseconds), and SYN-ACK retransmissions by then (at 1 and 3 s).
const AGES: [(u64, u32); 4] = [(1300, 1), (1700, 1), (2400, 1), (3700, 2)];
/// When the real client gives up. Its kernel answers the next SYN-ACK with RST.
const GIVES_UP: Duration = Duration::from_millis(500);
const FAULT_LIFTED: Duration = Duration::from_millis(2000);

/// Half-opens that the peer resets; no tracepoint reports this.
pub(super) struct HalfOpenResetScenario;

impl Scenario for HalfOpenResetScenario {
    fn name(&self) -> &'static str {
        "half-open-reset"
    }

    fn summary(&self) -> &'static str {
        "the peer resets half-open connections after 1.3 to 3.7 s, after 1 or 2 SYN-ACK retransmissions"
    }

    fn nominal_seconds(&self) -> u32 {
        4
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        let _listener = lab.listen(PORT, 128)?;
        let sender = RawSender::open(&lab.client, v6)?;
        let server = SocketAddr::new(lab.server_ip(), PORT);

        let mut fault = FaultInjector::attach(&lab.client)?;
        // It concerns the real client only: spoofed sources do not answer.
        fault.set(0, syn_ack(), LossPattern::All, PORT)?;
        let mut real = run.connect(PORT)?;

        let mut half_opens = Vec::new();
        for (n, (age, retransmits)) in (0u16..).zip(AGES) {
            let source = SocketAddr::new(spoofed(v6, n), 40_000 + n);
            // One of these sequence numbers wraps around.
            let seq = u32::MAX.wrapping_add(u32::from(n) * 0x1234_5678);
            sender.syn(source, server, seq)?;
            // Between this SYN-ACK and the next one.
            let within = match retransmits {
                1 => Duration::from_millis(1150)..=Duration::from_millis(2850),
                _ => Duration::from_millis(3150)..=Duration::from_millis(6000),
            };
            let age = run.vary(Duration::from_millis(age), within);
            half_opens.push((Instant::now() + age, source, seq, retransmits));
        }
        half_opens.sort_by_key(|&(due, ..)| due);
        settle([&mut real], stop, Instant::now() + GIVES_UP)?;
        run.client_ended(&real, Outcome::Abandoned)?;
        run.with_retransmits(0);
        run.with_cause(VerdictKind::Abandoned);
        run.server_ended(&real, Outcome::Reset, 1..=1);
        run.with_retransmits(2);
        run.with_cause(VerdictKind::PeerReset);
        drop(real);

        let mut lift_at = Some(Instant::now() - GIVES_UP + FAULT_LIFTED);
        for (due, source, seq, retransmits) in half_opens {
            if let Some(at) = lift_at.take_if(|at| *at <= due) {
                run.pause_until(at)?;
                fault.lift(0)?;
            }
            run.pause_until(due)?;
            if run.stopped() {
                break;
            }
            sender.rst(source, server, seq.wrapping_add(1))?;
            run.peer_ended(server, source, Outcome::Reset);
            run.with_retransmits(retransmits);
            run.with_cause(VerdictKind::PeerReset);
        }
        run.wait_no_half_opens(PORT)?;
        run.report_fault(&fault, 0, "SYN-ACKs into the client, for 2 s")?;
        let retransmitted = AGES.iter().map(|&(_, n)| u64::from(n)).sum::<u64>() + 2;
        run.expect(Side::Client, "ActiveOpens", 1..=1);
        run.expect(Side::Server, "EmbryonicRsts", 5..=5);
        run.expect(Side::Server, "AttemptFails", 5..=5);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect(Side::Server, "TCPSynRetrans", retransmitted..=retransmitted);
        run.expect(Side::Server, "TCPTimeouts", retransmitted..=retransmitted);
        run.expect_retransmits(Side::Server, "synack", retransmitted..=retransmitted);
        run.end()
    }
}
