use std::{net::SocketAddr, sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, ExpectedHandshake, GroundTruth, Lab, Outcome, PORT, RawSender, Role, Server, Side,
    net::spoofed,
    scenario::{Scenario, ScenarioRun},
};

const BACKLOG: i32 = 128;
const SPOOFED: u16 = 600;
const SPOOFED_PER_STEP: u16 = 30;
const STEP: Duration = Duration::from_millis(75);

/// SYNs from unassigned addresses, and legitimate clients among them.
pub(super) struct SynFloodScenario;

impl Scenario for SynFloodScenario {
    fn name(&self) -> &'static str {
        "syn-flood"
    }

    fn summary(&self) -> &'static str {
        "600 SYNs from spoofed sources fill the SYN queue; 20 legitimate clients connect by SYN cookie"
    }

    fn nominal_seconds(&self) -> u32 {
        5
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        let cookies = lab.server.try_sysctl("ipv4/tcp_syncookies", "1")?;
        lab.server.set_sysctl("ipv4/tcp_synack_retries", "1")?;
        let server = Server::start(vec![lab.listen(PORT, BACKLOG)?])?;
        let sender = RawSender::open(&lab.client, v6)?;
        let target = SocketAddr::new(lab.server_ip(), PORT);
        let mut legitimate = 0;
        for first in (0..SPOOFED).step_by(SPOOFED_PER_STEP.into()) {
            if run.stopped() {
                break;
            }
            for n in first..first + SPOOFED_PER_STEP {
                let source = SocketAddr::new(spoofed(v6, n), 20_000 + n);
                sender.syn(source, target, u32::from(n) << 16)?;
            }
            if cookies {
                let mut client = run.connect(PORT)?;
                run.settle([&mut client])?;
                run.both_healthy(&client)?;
                run.finish([client])?;
                legitimate += 1;
            }
            run.pause(STEP)?;
        }
        run.wait_no_half_opens(PORT)?;
        server.stop()?;

        // The queue is full at backlog + 1, in some kernels at the backlog. Legitimate clients leave it at
        // once, so the first spoofed SYNs remain.
        let full = BACKLOG as u16;
        for n in 0..=full {
            run.truth.handshakes.push(ExpectedHandshake {
                role: Role::Server,
                local_addr: target.ip(),
                local_port: Some(PORT),
                peer_addr: spoofed(v6, n),
                peer_port: Some(20_000 + n),
                outcome: Outcome::Expired,
                count: u64::from(n != full)..=1,
                error: None,
                retransmits: Some(1),
                cause: Some(Cause::Verdict(VerdictKind::SynFlood)),
            });
        }
        let queued = u64::from(full)..=u64::from(full) + 1;
        run.note("clients that connected by SYN cookie have no known time in SYN_RECV");
        // A SYN cookie stays valid: a late segment of a connection that the server has closed makes the
        // kernel create a second child.
        let second_children = if cookies { legitimate } else { 0 };
        for made in &mut run.truth.handshakes {
            if made.role == Role::Server && made.outcome == Outcome::Established {
                made.count = 1..=2;
            }
        }
        run.expect(
            Side::Server,
            "PassiveOpens",
            legitimate..=legitimate + second_children,
        );
        run.expect(Side::Client, "ActiveOpens", legitimate..=legitimate);
        if cookies {
            let sent = u64::from(SPOOFED) - queued.end();
            run.expect(Side::Server, "SyncookiesSent", sent..=sent + legitimate + 1);
            run.expect(
                Side::Server,
                "SyncookiesRecv",
                1..=legitimate + second_children,
            );
            run.expect(Side::Server, "SyncookiesFailed", 0..=0);
        }
        run.expect(Side::Server, "TCPSynRetrans", queued.clone());
        let timers = queued.start() * 2..=queued.end() * 2;
        run.expect(Side::Server, "TCPTimeouts", timers);
        run.expect_retransmits(Side::Server, "synack", queued);
        run.end()
    }
}
