use std::{net::TcpListener, os::fd::AsRawFd, sync::atomic::AtomicBool, time::Duration};

use anyhow::{Context, Result};

use crate::{
    FaultInjector, GroundTruth, Lab, PORT, Server, Side, SocketFamily,
    nft::{self, NftRule},
    scenario::{Scenario, ScenarioRun},
};

/// Where the proxy listens.
const PROXY: u16 = PORT + 1;
const BACKLOG: i32 = 3;
/// Capacity of the proxy's accept queue: one more than the backlog.
const QUEUED: usize = 4;
/// How long the proxy does not call accept().
const BUSY: Duration = Duration::from_secs(4);

/// TPROXY hands the connections to a port to a proxy that does not accept, though the application on that very port
/// has room.
pub(super) struct TransparentProxyScenario;

/// Sets IP_TRANSPARENT: TPROXY hands connections to such sockets alone.
fn make_transparent(listener: &TcpListener, family: SocketFamily) -> Result<()> {
    let (level, option) = match family {
        SocketFamily::V4 => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        SocketFamily::V6 | SocketFamily::V4Mapped => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    };
    let one: libc::c_int = 1;
    // SAFETY: the pointer and the length are of one live integer.
    let set = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            level,
            option,
            (&raw const one).cast(),
            size_of_val(&one) as libc::socklen_t,
        )
    };
    if set < 0 {
        return Err(std::io::Error::last_os_error()).context("IP_TRANSPARENT (CAP_NET_ADMIN)");
    }
    Ok(())
}

impl Scenario for TransparentProxyScenario {
    fn name(&self) -> &'static str {
        "transparent-proxy"
    }

    fn summary(&self) -> &'static str {
        "TPROXY hands connections to a proxy that does not accept; the application on the port has room"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn ports(&self) -> &'static [u16] {
        &[PORT, PROXY]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let application = lab.listen(PORT, 128)?;
        let proxy = lab.listen(PROXY, BACKLOG)?;
        make_transparent(&proxy, lab.family)?;
        let rule = NftRule::tproxy(PORT, PROXY);
        nft::install(&lab.server, lab.family.wire_is_v6(), &[rule])?;

        let mut fault = FaultInjector::attach(&lab.server)?;
        let clients = run.fill_accept_queue(PORT, QUEUED, &mut fault)?;
        run.pause(BUSY)?;
        let server = Server::start(vec![proxy, application])?;
        run.wait_no_half_opens(PORT)?;

        // Dropped at 1 and 3 s, accepted at 7 s.
        run.full_queue_ended(clients, [], 3)?;
        server.stop()?;
        run.report_fault(&fault, 0, "the first final ACK of two handshakes")?;
        run.expect(Side::Client, "ActiveOpens", 6..=6);
        run.expect(Side::Server, "PassiveOpens", 6..=6);
        run.expect(Side::Server, "TCPSynRetrans", 6..=6);
        // Two final ACKs at 1 and at 3 s.
        run.expect(Side::Server, "ListenOverflows", 4..=4);
        run.expect_retransmits(Side::Server, "synack", 6..=6);
        run.end()
    }
}
