use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use synprobe_common::model::VerdictKind;

use crate::{
    Client, GroundTruth, Lab, PORT, RawSender, Side, SocketFamily,
    net::{RouteTarget, add_route},
    scenario::{Scenario, ScenarioRun},
    socket::settle,
};

/// A subnet behind the client to which the server has another route.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 0);
const CLIENTS: u8 = 3;
const SPOOFED: u8 = 20;
/// The applications' SYNs leave at 0, 1 and 2 s.
const PATIENCE: Duration = Duration::from_millis(2500);
const RETRIES: u64 = 2;

/// The server's reverse-path filter drops SYNs: the return route uses another interface.
pub(super) struct RpFilterScenario;

fn elsewhere(n: u8) -> IpAddr {
    let [a, b, c, _] = ELSEWHERE.octets();
    Ipv4Addr::new(a, b, c, n + 1).into()
}

impl Scenario for RpFilterScenario {
    fn name(&self) -> &'static str {
        "rp-filter"
    }

    fn summary(&self) -> &'static str {
        "the server's reverse-path filter drops SYNs whose return route uses another interface (IPv4 only)"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn supports(&self, family: SocketFamily) -> bool {
        !family.wire_is_v6()
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        if !self.supports(lab.family) {
            bail!("rp_filter is IPv4 only: the kernel has none for IPv6");
        }
        let mut run = ScenarioRun::new(self, lab, stop);
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        add_route(&lab.client, (ELSEWHERE.into(), 24), RouteTarget::Here)?;
        add_route(&lab.server, (ELSEWHERE.into(), 24), RouteTarget::Loopback)?;
        lab.server.set_sysctl("ipv4/conf/all/rp_filter", "1")?;
        let _listener = lab.listen(PORT, 128)?;
        let start = Instant::now();
        // A client with a symmetric route connects normally.
        let mut symmetric = run.connect(PORT)?;
        run.settle([&mut symmetric])?;
        run.both_healthy(&symmetric)?;

        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let local = SocketAddr::new(lab.as_sockets_write(elsewhere(n)), 0);
            let server = lab.server_addr(PORT);
            clients.push(Client::connect_from(&lab.client, local, server)?);
        }
        let sender = RawSender::open(&lab.client, false)?;
        let server = SocketAddr::new(lab.server_ip(), PORT);
        for n in CLIENTS..CLIENTS + SPOOFED {
            let source = SocketAddr::new(elsewhere(n), 20_000 + u16::from(n));
            sender.syn(source, server, u32::from(n) << 16)?;
        }
        settle(&mut clients, stop, start + PATIENCE)?;
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        run.clients_abandoned(&clients, retries as u32, VerdictKind::DroppedHere)?;
        drop(clients);
        symmetric.reset()?;

        run.note("the SYNs are dropped before a half-open exists: the server has no handshake");
        let retransmitted = u64::from(CLIENTS) * retries;
        let dropped = u64::from(CLIENTS) + retransmitted + u64::from(SPOOFED);
        run.expect(Side::Client, "ActiveOpens", 4..=4);
        run.expect(Side::Client, "TCPSynRetrans", retransmitted..=retransmitted);
        run.expect(Side::Server, "IPReversePathFilter", dropped..=dropped);
        run.expect(Side::Server, "PassiveOpens", 1..=1);
        run.expect_retransmits(Side::Client, "syn", retransmitted..=retransmitted);
        run.expect_retransmits(Side::Server, "synack", 0..=0);
        run.end()
    }
}
