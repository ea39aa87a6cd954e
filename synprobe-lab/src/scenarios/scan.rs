use std::{
    net::SocketAddr,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    Client, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Side,
    net::{RouteTarget, add_route, beyond_server, beyond_server_subnet},
    scenario::{Scenario, ScenarioRun},
    socket::settle,
    syn,
};

const ADDRESSES: u8 = 60;
/// How long the scanner waits for an answer: beyond the second SYN at 1 s.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Ports without a listener.
const PORTS: std::ops::Range<u16> = 20_000..20_200;

/// One port on many addresses.
pub(super) struct ScanHorizontalScenario;

impl Scenario for ScanHorizontalScenario {
    fn name(&self) -> &'static str {
        "scan-horizontal"
    }

    fn summary(&self) -> &'static str {
        "one process connects to 60 addresses that do not answer, and gives up after 1.5 s"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        let route = RouteTarget::Via(lab.server_ip());
        add_route(&lab.client, beyond_server_subnet(v6), route)?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        fault.set(0, syn(), LossPattern::All, PORT)?;
        let mut clients = Vec::new();
        for n in 0..ADDRESSES {
            if run.stopped() {
                break;
            }
            let address = lab.as_sockets_write(beyond_server(v6, n));
            let peer = SocketAddr::new(address, PORT);
            clients.push(Client::connect(&lab.client, peer, |_| Ok(()))?);
        }
        let within = Duration::from_millis(1200)..=Duration::from_millis(1800);
        let until = Instant::now() + run.vary(PATIENCE, within);
        settle(&mut clients, stop, until)?;
        for client in clients {
            run.client_ended(&client, Outcome::Abandoned)?;
            run.with_retransmits(1);
            run.with_cause(VerdictKind::ScanFanout);
        }
        run.report_fault(&fault, 0, "SYNs into the server")?;
        let all = u64::from(ADDRESSES);
        run.expect(Side::Client, "ActiveOpens", all..=all);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Client, "TCPSynRetrans", all..=all);
        run.expect_retransmits(Side::Client, "syn", all..=all);
        run.end()
    }
}

/// Many ports on one address.
pub(super) struct ScanVerticalScenario;

impl Scenario for ScanVerticalScenario {
    fn name(&self) -> &'static str {
        "scan-vertical"
    }

    fn summary(&self) -> &'static str {
        "one process connects to 200 ports of one address; each is refused"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        for port in PORTS {
            if run.stopped() {
                break;
            }
            let mut client = run.connect(port)?;
            run.settle([&mut client])?;
            run.client_ended(&client, Outcome::Refused)?;
            run.with_retransmits(0);
            run.with_cause(VerdictKind::ScanFanout);
            run.pause(Duration::from_millis(2))?;
        }
        let all = PORTS.len() as u64;
        run.expect(Side::Client, "ActiveOpens", all..=all);
        run.expect(Side::Client, "AttemptFails", all..=all);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.expect(Side::Server, "OutRsts", all..=all);
        run.end()
    }
}
