//! More than one way between the two hosts: SYN and SYN-ACK on different ones, and a balancer that answers itself.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use synprobe_lab::{
    Client, FaultInjector, Lab, LossPattern, PORT, Server, SocketFamily,
    router::{DnatRouter, TO_SERVER},
    settle, syn, syn_ack,
};

use crate::{
    files::{joined, pairs},
    two_ends::{Views, by_port, end_of_handshake, one_of},
};

const HEALTHY: u16 = PORT;
const SYN_LOST: u16 = PORT + 1;
const SYN_ACK_LOST: u16 = PORT + 2;
const BALANCED: u16 = 9000;

fn connected(lab: &Lab, to: impl Fn(&Lab) -> Result<Client>, times: usize) -> Result<Vec<Client>> {
    let stop = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(30);
    let mut clients = Vec::new();
    for _ in 0..times {
        let mut client = to(lab)?;
        settle([&mut client], &stop, until)?;
        clients.push(client);
    }
    Ok(clients)
}

/// SYNs go past a router, SYN-ACKs come back directly. Each way loses one.
pub fn asymmetric(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let mut listeners = Vec::new();
    for port in [HEALTHY, SYN_LOST, SYN_ACK_LOST] {
        listeners.push(lab.listen(port, 128)?);
    }
    let server = Server::start(listeners)?;
    let router = DnatRouter::new(&lab, &[])?;
    let views = Views::of(&lab)?;
    let mut there = FaultInjector::attach_to(&lab.server, TO_SERVER)?;
    let mut back = FaultInjector::attach(&lab.client)?;
    there.set(0, syn(), LossPattern::First(1), SYN_LOST)?;
    back.set(0, syn_ack(), LossPattern::First(1), SYN_ACK_LOST)?;
    let local = std::net::SocketAddr::new(lab.as_sockets_write(lab.client_ip()), 0);
    let mut clients = Vec::new();
    for (port, times) in [(HEALTHY, 5), (SYN_LOST, 1), (SYN_ACK_LOST, 1)] {
        let to = |lab: &Lab| Client::connect_from(&lab.client, local, router.address(lab, port));
        clients.extend(connected(&lab, to, times)?);
        views
            .client
            .wait_for("the client's end", end_of_handshake(port))?;
        views
            .server
            .wait_for("the server's end", end_of_handshake(port))?;
    }
    ensure!(
        there.count(0)?.dropped == 1 && back.count(0)?.dropped == 1,
        "what was lost"
    );
    let (ours, theirs) = views.end()?;
    let (lines, _) = joined(&ours, &theirs, &format!("ways-{}", family.wire_is_v6()))?;
    let all = by_port(&lines);
    ensure!(
        all[&HEALTHY.into()].len() == 5
            && all[&HEALTHY.into()].iter().all(|p| p["verdict"].is_null()),
        "{lines:#?}"
    );
    for (port, verdict, toward_server, toward_client) in [
        (SYN_LOST, "lost-toward-server", 1, 0),
        (SYN_ACK_LOST, "lost-toward-client", 0, 1),
    ] {
        let pair = one_of(&all, port)?;
        ensure!(
            pair["verdict"] == verdict && pair["lost"]["toward_server"] == toward_server,
            "port {port}: {pair:#}"
        );
        let lost = pair["lost"]["toward_client"].as_u64();
        ensure!(lost >= Some(toward_client), "port {port}: {pair:#}");
    }
    drop(clients);
    server.stop()?;
    Ok(())
}

/// A balancer has sent connects to the server. Now the server is dead for it, and it answers itself: nothing that is
/// lost before it is the server's loss, and no direction is named.
pub fn balancer(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let server = Server::start(vec![lab.listen(HEALTHY, 128)?])?;
    let router = DnatRouter::new(&lab, &[(HEALTHY, HEALTHY)])?;
    lab.client.set_sysctl("ipv4/tcp_syn_retries", "1")?;
    let views = Views::of(&lab)?;
    let local = std::net::SocketAddr::new(lab.as_sockets_write(lab.client_ip()), 0);
    let call = |port: u16| {
        let address = router.address(&lab, port);
        move |lab: &Lab| Client::connect_from(&lab.client, local, address)
    };
    // Directly, so that the clocks are known and the server's address is.
    let direct = |lab: &Lab| Client::connect(&lab.client, lab.server_addr(HEALTHY), |_| Ok(()));
    let mut clients = connected(&lab, direct, 5)?;
    let own = Server::start(vec![router.answer(BALANCED, 128)?])?;
    let mut before_it = FaultInjector::attach_to(router.ns(), synprobe_lab::router::TO_CLIENT)?;
    before_it.set(0, syn(), LossPattern::First(1), BALANCED)?;
    clients.extend(connected(&lab, call(BALANCED), 1)?);
    views
        .client
        .wait_for("the client's end", end_of_handshake(BALANCED))?;
    let (ours, theirs) = views.end()?;
    let (lines, _) = joined(&ours, &theirs, &format!("balancer-{}", family.wire_is_v6()))?;
    let all = by_port(&lines);
    ensure!(all[&HEALTHY.into()].len() == 5, "{lines:#?}");
    let pair = one_of(&all, BALANCED)?;
    ensure!(
        pair["verdict"] == "insufficient" && pair["lost"]["toward_server"].is_null(),
        "{pair:#}"
    );
    ensure!(pair["client"]["outcome"] == "established", "{pair:#}");
    ensure!(
        pairs(&lines)
            .iter()
            .all(|p| p["verdict"].is_null() || p["verdict"] == "insufficient"),
        "{lines:#?}"
    );
    drop(clients);
    own.stop()?;
    server.stop()?;
    Ok(())
}
