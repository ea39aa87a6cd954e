use std::{net::SocketAddr, sync::atomic::AtomicBool};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, GroundTruth, Lab, Outcome, PORT, Side,
    net::{RouteTarget, add_route, beyond_server, beyond_server_subnet, has_ipv6},
    scenario::{Scenario, ScenarioRun},
};

/// The server forwards packets and has no usable route.
///
/// Both ends are on one host, so the ICMP error arrives while connect() holds the socket lock. The
/// kernel keeps it as a soft error; the answer to the second SYN ends the handshake.
pub(super) struct UnreachableScenario;

impl Scenario for UnreachableScenario {
    fn name(&self) -> &'static str {
        "unreachable"
    }

    fn summary(&self) -> &'static str {
        "a router answers with ICMP errors: host unreachable, no route, administratively prohibited"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        if has_ipv6() {
            lab.server.set_sysctl("ipv6/conf/all/forwarding", "1")?;
            lab.server.set_sysctl("ipv6/icmp/ratelimit", "0")?;
        }
        lab.server.set_sysctl("ipv4/ip_forward", "1")?;
        // Not icmp_ratelimit: at least up to 6.12, with a limit of 0 ip_error() sends less to the same peer
        // (presumably both use one bucket of inet_peer_xrlim_allow()).
        lab.server.set_sysctl("ipv4/icmp_ratemask", "0")?;
        let host_len = if v6 { 128 } else { 32 };
        let route = RouteTarget::Via(lab.server_ip());
        add_route(&lab.client, beyond_server_subnet(v6), route)?;
        // The third address has no route: the server has no default route.
        let unreachable = beyond_server(v6, 0);
        let prohibited = beyond_server(v6, 1);
        let no_route = beyond_server(v6, 2);
        add_route(
            &lab.server,
            (unreachable, host_len),
            RouteTarget::Nowhere(libc::RTN_UNREACHABLE),
        )?;
        add_route(
            &lab.server,
            (prohibited, host_len),
            RouteTarget::Nowhere(libc::RTN_PROHIBIT),
        )?;

        let mut clients = Vec::new();
        for address in [unreachable, prohibited, no_route] {
            let peer = SocketAddr::new(lab.as_sockets_write(address), PORT);
            clients.push(Client::connect(&lab.client, peer, |_| Ok(()))?);
        }
        run.settle(&mut clients)?;
        for client in &clients {
            run.client_ended(client, Outcome::Unreachable)?;
            run.with_cause(VerdictKind::Unreachable);
        }
        run.note("the first ICMP error is only a soft error: connect() held the socket lock");
        run.expect(Side::Client, "ActiveOpens", 3..=3);
        run.expect(Side::Client, "AttemptFails", 3..=3);
        run.expect(Side::Client, "TCPSynRetrans", 0..=3);
        run.end()
    }
}
