use std::{
    net::SocketAddr,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    GroundTruth, Lab, Outcome, PORT, RawSender, Side,
    net::spoofed,
    scenario::{Scenario, ScenarioRun},
    socket::settle,
};

/// tcp_max_syn_backlog: with SYN cookies off the queue takes a SYN as long as a quarter of it is free.
const MAX_SYN_BACKLOG: u16 = 16;
/// Half-opens that fit: one more than 3/4.
const HELD: u16 = 13;
/// Silent peers; what does not fit is refused.
const PEERS: u16 = 16;
const CLIENTS: u64 = 2;
/// The applications' SYNs leave at 0, 1 and 2 s. The half-opens expire at 3 s.
const PATIENCE: Duration = Duration::from_millis(2500);
const RETRIES: u64 = 2;

/// Silent half-opens fill the SYN queue while SYN cookies are off: further SYNs are refused without a trace.
pub(super) struct SynQueueFullScenario;

impl Scenario for SynQueueFullScenario {
    fn name(&self) -> &'static str {
        "syn-queue-full"
    }

    fn summary(&self) -> &'static str {
        "SYN cookies are off and the SYN queue is full: SYNs are refused, and no event tells"
    }

    fn nominal_seconds(&self) -> u32 {
        4
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let server = &lab.server;
        server.set_sysctl("ipv4/tcp_syncookies", "0")?;
        server.set_sysctl("ipv4/tcp_max_syn_backlog", &MAX_SYN_BACKLOG.to_string())?;
        // SYN-ACKs at 0 and 1 s; expiry at 3 s.
        server.set_sysctl("ipv4/tcp_synack_retries", "1")?;
        let _listener = lab.listen(PORT, 128)?;
        let sender = RawSender::open(&lab.client, v6)?;
        let at = SocketAddr::new(lab.server_ip(), PORT);
        let start = Instant::now();
        for n in 0..PEERS {
            let peer = SocketAddr::new(spoofed(v6, n), 40_000 + n);
            sender.syn(peer, at, u32::from(n) << 24)?;
            if n < HELD {
                run.peer_ended(at, peer, Outcome::Expired);
                run.with_retransmits(1);
                run.with_cause(VerdictKind::PeerSilent);
            }
        }
        run.wait_half_opens(PORT, usize::from(HELD)..=usize::from(HELD))?;
        let mut clients = [run.connect(PORT)?, run.connect(PORT)?];
        settle(&mut clients, stop, start + PATIENCE)?;
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        run.clients_abandoned(&clients, retries as u32, VerdictKind::SynQueueFull)?;
        drop(clients);
        run.wait_no_half_opens(PORT)?;

        let refused = u64::from(PEERS - HELD) + CLIENTS * (retries + 1);
        let held = u64::from(HELD);
        run.expect(Side::Client, "ActiveOpens", CLIENTS..=CLIENTS);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect(Side::Server, "ListenDrops", refused..=refused);
        run.expect(Side::Server, "ListenOverflows", 0..=0);
        run.expect(Side::Server, "TCPSynRetrans", held..=held);
        run.expect_retransmits(Side::Server, "synack", held..=held);
        let retransmitted = CLIENTS * retries;
        run.expect_retransmits(Side::Client, "syn", retransmitted..=retransmitted);
        run.end()
    }
}
