use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, GroundTruth, Lab, PORT, Side,
    net::{RouteTarget, add_route},
    scenario::{Scenario, ScenarioRun},
    socket::settle,
};

const CLIENTS: u8 = 3;
/// The applications' SYNs leave at 0, 1 and 2 s.
const PATIENCE: Duration = Duration::from_millis(2500);
const RETRIES: u64 = 2;

/// The server has no route to the clients' addresses: the listener refuses their SYNs without a trace.
pub(super) struct NoRouteBackScenario;

/// A subnet that the client has and the server has no route to.
fn unknown(v6: bool) -> (IpAddr, u8) {
    match v6 {
        true => (Ipv6Addr::new(0xfd00, 0x5950, 0xe, 0, 0, 0, 0, 0).into(), 64),
        false => (Ipv4Addr::new(198, 19, 7, 0).into(), 24),
    }
}

fn address(v6: bool, n: u8) -> IpAddr {
    match v6 {
        true => Ipv6Addr::new(0xfd00, 0x5950, 0xe, 0, 0, 0, 0, u16::from(n) + 1).into(),
        false => Ipv4Addr::new(198, 19, 7, n + 1).into(),
    }
}

impl Scenario for NoRouteBackScenario {
    fn name(&self) -> &'static str {
        "no-route-back"
    }

    fn summary(&self) -> &'static str {
        "the server has no route to the clients: its listener refuses their SYNs, and no event tells"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        add_route(&lab.client, unknown(v6), RouteTarget::Here)?;
        for device in ["all", "lab0"] {
            let key = format!("ipv4/conf/{device}/rp_filter");
            lab.server.set_sysctl(&key, "0")?;
        }
        let _listener = lab.listen(PORT, 128)?;
        let start = Instant::now();
        // A client that the server has a route to connects normally.
        let mut known = run.connect(PORT)?;
        run.settle([&mut known])?;
        run.both_healthy(&known)?;

        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let local = SocketAddr::new(lab.as_sockets_write(address(v6, n)), 0);
            let server = lab.server_addr(PORT);
            clients.push(Client::connect_from(&lab.client, local, server)?);
        }
        settle(&mut clients, stop, start + PATIENCE)?;
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        run.clients_abandoned(&clients, retries as u32, VerdictKind::NoRouteBack)?;
        drop(clients);
        known.reset()?;

        run.note("the SYNs are refused before a half-open exists: the server has no handshake");
        let retransmitted = u64::from(CLIENTS) * retries;
        let refused = u64::from(CLIENTS) + retransmitted;
        run.expect(Side::Client, "ActiveOpens", 4..=4);
        run.expect(Side::Client, "TCPSynRetrans", retransmitted..=retransmitted);
        run.expect(Side::Server, "ListenDrops", refused..=refused);
        run.expect(Side::Server, "ListenOverflows", 0..=0);
        run.expect(Side::Server, "PassiveOpens", 1..=1);
        run.expect_retransmits(Side::Client, "syn", retransmitted..=retransmitted);
        run.expect_retransmits(Side::Server, "synack", 0..=0);
        run.end()
    }
}
