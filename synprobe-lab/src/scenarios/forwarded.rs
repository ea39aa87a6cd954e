use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, GroundTruth, Lab, PORT, Side,
    nft::{NftHook, NftRule},
    packet::flags,
    router::DnatRouter,
    scenario::{Scenario, ScenarioRun},
    socket::settle,
};

/// The router drops these SYNs after DNAT.
const AFTER_DNAT: u16 = PORT;
/// The router drops these SYNs after DNAT and SNAT.
const AFTER_SNAT: u16 = PORT + 1;
/// The server's port of each.
const SERVED: u16 = PORT + 2;
/// Clients of each port.
const CLIENTS: usize = 2;
/// The applications' SYNs leave at 0, 1 and 2 s; without linear time-outs at 0 and 1 s.
const PATIENCE: Duration = Duration::from_millis(2500);
const RETRIES: u64 = 2;
/// The source address that SNAT gives.
const MASKED_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);
const MASKED_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5950, 2, 0, 0, 0, 0, 2);

/// A router on this host drops SYNs that it is to forward, after NAT has changed their addresses.
pub(super) struct ForwardedDropScenario;

fn rules(v6: bool) -> [NftRule; 3] {
    let both = flags::SYN | flags::ACK;
    let masked: IpAddr = match v6 {
        true => MASKED_V6.into(),
        false => MASKED_V4.into(),
    };
    [
        NftRule {
            destination_port: Some(SERVED),
            flags: Some((both, flags::SYN)),
            ..NftRule::drop(NftHook::Forward)
        },
        NftRule::snat(SERVED + 1, masked),
        NftRule {
            destination_port: Some(SERVED + 1),
            flags: Some((both, flags::SYN)),
            ..NftRule::drop(NftHook::AfterSnat)
        },
    ]
}

impl Scenario for ForwardedDropScenario {
    fn name(&self) -> &'static str {
        "forwarded-drop"
    }

    fn summary(&self) -> &'static str {
        "a router on this host drops SYNs that it is to forward, after DNAT and after SNAT"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [u16] {
        &[AFTER_DNAT, AFTER_SNAT, SERVED, SERVED + 1]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let ports = [(AFTER_DNAT, SERVED), (AFTER_SNAT, SERVED + 1)];
        let router = DnatRouter::with_rules(lab, &ports, &rules(lab.family.wire_is_v6()))?;
        let _listeners = [lab.listen(SERVED, 128)?, lab.listen(SERVED + 1, 128)?];
        let start = Instant::now();
        let local = SocketAddr::new(lab.as_sockets_write(lab.client_ip()), 0);
        let mut clients = Vec::new();
        for port in [AFTER_DNAT, AFTER_SNAT] {
            for _ in 0..CLIENTS {
                let address = router.address(lab, port);
                clients.push(Client::connect_from(&lab.client, local, address)?);
            }
        }
        settle(&mut clients, stop, start + PATIENCE)?;
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        run.clients_abandoned(&clients, retries as u32, VerdictKind::DroppedHere)?;
        run.note("the router drops them after NAT: only their sequence numbers are the clients'");
        let all = clients.len() as u64;
        drop(clients);
        run.expect(Side::Client, "ActiveOpens", all..=all);
        run.expect(Side::Client, "TCPSynRetrans", all * retries..=all * retries);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.expect_retransmits(Side::Client, "syn", all * retries..=all * retries);
        run.end()
    }
}
