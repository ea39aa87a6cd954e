use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use synprobe_common::model::VerdictKind;

use crate::net::{Route, add_route};
use crate::scenario::{Run, Scenario};
use crate::socket::settle;
use crate::{Client, Family, Lab, Made, Outcome, PORT, RawSender, Side};

/// A part of what lies beyond the client, to which the server knows another way.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 0);
const CLIENTS: u8 = 3;
const SPOOFED: u8 = 20;
/// The applications' SYNs leave at 0, 1 and 2 s.
const PATIENCE: Duration = Duration::from_millis(2500);
const RETRIES: u64 = 2;

/// The server's reverse-path filter discards SYNs: the way back is not the way they came.
pub(super) struct RpFilter;

fn elsewhere(n: u8) -> IpAddr {
    let [a, b, c, _] = ELSEWHERE.octets();
    Ipv4Addr::new(a, b, c, n + 1).into()
}

impl Scenario for RpFilter {
    fn name(&self) -> &'static str {
        "rp-filter"
    }

    fn summary(&self) -> &'static str {
        "the server's reverse-path filter discards SYNs: its way back is another (IPv4 only)"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn supports(&self, family: Family) -> bool {
        !family.wire_is_v6()
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        if !self.supports(lab.family) {
            bail!("rp_filter is IPv4 only: there is none in the kernel's IPv6");
        }
        let mut run = Run::new(self, lab, stop);
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        add_route(&lab.client, (ELSEWHERE.into(), 24), Route::Here)?;
        add_route(&lab.server, (ELSEWHERE.into(), 24), Route::Loopback)?;
        lab.server.set_sysctl("ipv4/conf/all/rp_filter", "1")?;
        let _listener = lab.listen(PORT, 128)?;
        let start = Instant::now();
        // Those whose way back is the one they came are served as ever.
        let mut honest = run.connect(PORT)?;
        run.settle([&mut honest])?;
        run.both_healthy(&honest)?;

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
        for client in &clients {
            run.client_ended(client, Outcome::Abandoned)?;
            run.with_retransmits(retries as u32);
            run.with_cause(VerdictKind::DroppedHere);
        }
        drop(clients);
        honest.reset()?;

        run.note("the SYNs are discarded before there is a half-open: the server has no handshake");
        let again = u64::from(CLIENTS) * retries;
        let discarded = u64::from(CLIENTS) + again + u64::from(SPOOFED);
        run.expect(Side::Client, "ActiveOpens", 4..=4);
        run.expect(Side::Client, "TCPSynRetrans", again..=again);
        run.expect(Side::Server, "IPReversePathFilter", discarded..=discarded);
        run.expect(Side::Server, "PassiveOpens", 1..=1);
        run.expect_retransmits(Side::Client, "syn", again..=again);
        run.expect_retransmits(Side::Server, "synack", 0..=0);
        run.end()
    }
}
