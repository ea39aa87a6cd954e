use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    GroundTruth, Lab, Outcome, PORT, Side,
    net::has_ipv6,
    nft::{self, NftHook, NftReject, NftRule},
    scenario::{Scenario, ScenarioRun},
};

/// The client's own rule answers with RST.
const OWN_RST: u16 = PORT;
/// The client's own rule answers with an ICMP error.
const OWN_ICMP: u16 = PORT + 1;
/// A rule at the server's door answers with RST.
const DOOR_RST: u16 = PORT + 2;
/// A rule at the server's door answers with an ICMP error.
const DOOR_ICMP: u16 = PORT + 3;
const CLIENTS: u64 = 2;
const CAUSE: VerdictKind = VerdictKind::DroppedHere;

/// nf_tables rules on the client and on the server reject SYNs: the answers are this host's own.
///
/// The ICMP error for the first SYN arrives while connect() holds the socket lock: it stays a soft error. That for
/// the second SYN ends the handshake.
pub(super) struct OwnRejectScenario;

fn reject(hook: NftHook, port: u16, with: NftReject) -> NftRule {
    NftRule {
        destination_port: Some(port),
        reject: Some(with),
        ..NftRule::drop(hook)
    }
}

impl Scenario for OwnRejectScenario {
    fn name(&self) -> &'static str {
        "own-reject"
    }

    fn summary(&self) -> &'static str {
        "nf_tables reject SYNs as they leave the client and as they reach the server: RST and ICMP"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn ports(&self) -> &'static [u16] {
        &[OWN_RST, OWN_ICMP, DOOR_RST, DOOR_ICMP]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        for side in [&lab.client, &lab.server] {
            side.set_sysctl("ipv4/icmp_ratemask", "0")?;
            if has_ipv6() {
                side.set_sysctl("ipv6/icmp/ratelimit", "0")?;
            }
        }
        let own = [
            reject(NftHook::Output, OWN_RST, NftReject::Reset),
            reject(NftHook::Output, OWN_ICMP, NftReject::Prohibited),
        ];
        let door = [
            reject(NftHook::Input, DOOR_RST, NftReject::Reset),
            reject(NftHook::Input, DOOR_ICMP, NftReject::Prohibited),
        ];
        nft::install(&lab.client, v6, &own)?;
        nft::install(&lab.server, v6, &door)?;
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let mut clients = Vec::new();
        for &port in self.ports() {
            for _ in 0..CLIENTS {
                clients.push(run.connect(port)?);
            }
        }
        run.settle(&mut clients)?;
        for client in &clients {
            let outcome = match client.peer.port() {
                OWN_RST | DOOR_RST => Outcome::Refused,
                _ => Outcome::Unreachable,
            };
            run.client_ended(client, outcome)?;
            run.with_cause(CAUSE);
        }
        let all = 4 * CLIENTS;
        run.note("no SYN reaches a listener: every answer is made by a rule of this host");
        run.expect(Side::Client, "ActiveOpens", all..=all);
        run.expect(Side::Client, "AttemptFails", all..=all);
        run.expect(Side::Client, "TCPSynRetrans", 0..=2 * CLIENTS);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        run.end()
    }
}
