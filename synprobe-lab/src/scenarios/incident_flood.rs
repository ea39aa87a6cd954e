use std::{
    net::SocketAddr,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Cause, Client, GroundTruth, Lab, PORT, RawSender, Role, Side,
    incident::{self, HALF_OPENS, NETWORKS},
    scenario::{Scenario, ScenarioRun},
};

/// More than three quarters of it are used, so the kernel shortens the lifetime of half-opens.
const BACKLOG: i32 = 400;
/// Half-opens made in each step while the level rises.
const PER_STEP: usize = 10;
const STEP: Duration = Duration::from_millis(100);
/// Half-opens that may have ended before they are counted.
const SLACK: usize = 60;
/// Unassigned hosts of each network; each sends several SYNs.
const SPOOFED_HOSTS: u16 = 20;
/// Addresses from this host number on are real, in IPv4 and IPv6.
const FIRST_REAL: u8 = 128;
/// Number of host bits of a real address.
const REAL_BITS: u8 = 7;
const CONNECTED: (u8, u8) = (130, 60);
const PASSING: u8 = 200;
const PASSING_HOSTS: u16 = 50;
const CAUSE: VerdictKind = VerdictKind::SynFlood;

/// A flood from the networks of real clients.
pub(super) struct IncidentFloodScenario;

/// Sends spoofed SYNs, one source after another.
struct SpoofedSyns {
    sender: RawSender,
    v6: bool,
    server: SocketAddr,
    sent: u16,
}

impl SpoofedSyns {
    fn send(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.sender.syn(
                self.source(self.sent),
                self.server,
                u32::from(self.sent) << 16,
            )?;
            self.sent += 1;
        }
        Ok(())
    }

    fn source(&self, n: u16) -> SocketAddr {
        let networks = u16::from(NETWORKS);
        let host = 1 + n / networks % SPOOFED_HOSTS;
        let address = incident::client_address(self.v6, (n % networks) as u8, host as u8);
        SocketAddr::new(address, 10_000 + n)
    }
}

impl Scenario for IncidentFloodScenario {
    fn name(&self) -> &'static str {
        "incident-flood"
    }

    fn summary(&self) -> &'static str {
        "incident: 500 established, 307 half-open: spoofed SYNs from the networks of real clients"
    }

    fn nominal_seconds(&self) -> u32 {
        22
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        incident::prepare(lab)?;
        let bits = if v6 { 128 } else { 32 };
        incident::own_networks(lab, FIRST_REAL, bits - REAL_BITS)?;
        let listener = lab.listen(PORT, BACKLOG)?;
        let mut pool = incident::establish_all(&run, &listener, CONNECTED)?;
        if run.stopped() {
            return incident::end(run, pool, false);
        }
        let mut stream = SpoofedSyns {
            sender: RawSender::open(&lab.client, v6)?,
            v6,
            server: SocketAddr::new(lab.server_ip(), PORT),
            sent: 0,
        };
        while !run.stopped() {
            let missing = HALF_OPENS - lab.half_opens(PORT)?.min(HALF_OPENS);
            if missing == 0 {
                break;
            }
            run.check_deadline()?;
            stream.send(missing.min(PER_STEP))?;
            run.pause(STEP)?;
        }
        let mut passing: Vec<Client> = Vec::new();
        let stood = incident::hold(&mut run, &mut pool, SLACK, |run, _| {
            // Replace those that ended.
            stream.send(HALF_OPENS - run.lab.half_opens(PORT)?.min(HALF_OPENS))?;
            let n = passing.len() as u16;
            let host = PASSING + (n / u16::from(NETWORKS) % PASSING_HOSTS) as u8;
            let mut client = incident::call(run.lab, (n % u16::from(NETWORKS)) as u8, host, 0)?;
            let until = Instant::now() + Duration::from_secs(1);
            crate::settle([&mut client], run.stop, until)?;
            run.check_connected(&client)?;
            passing.push(client);
            Ok(())
        })?;
        for n in 0..stream.sent {
            let ends = (stream.source(n), stream.server);
            incident::may_be_seen(&mut run, Role::Server, ends, 1, CAUSE);
        }
        for client in &passing {
            incident::both_may_be_seen(&mut run, client, 1, [Cause::Healthy; 2]);
        }
        run.note("new connects succeed: the queue has room");
        let connected = (incident::ESTABLISHED + passing.len()) as u64;
        run.expect(Side::Client, "ActiveOpens", connected..=connected);
        run.expect(Side::Server, "PassiveOpens", connected - 1..=connected);
        run.expect(Side::Server, "SyncookiesSent", 0..=0);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        for client in passing {
            client.reset()?;
        }
        drop(listener);
        incident::end(run, pool, stood)
    }
}
