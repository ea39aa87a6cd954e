use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{
    GroundTruth, Lab, Outcome, PORT, Side,
    nft::{self, NftHook, NftRule},
    packet::flags,
    scenario::{Scenario, ScenarioRun},
    socket::settle,
};

/// SYN-ACKs are dropped as they leave the server.
const SYN_ACKS: u16 = PORT;
/// SYNs are dropped as they reach the server.
const SYNS: u16 = PORT + 1;
/// SYNs are dropped as they leave the client.
const OWN_SYNS: u16 = PORT + 2;
/// Clients of each port.
const CLIENTS: u64 = 3;
/// How long the applications wait. Their SYNs leave at 0, 1, 2 and 3 s.
const PATIENCE: Duration = Duration::from_millis(3500);
const RETRIES: u64 = 3;
const CAUSE: VerdictKind = VerdictKind::DroppedHere;

/// nf_tables rules on the client and on the server drop handshake segments.
pub(super) struct OwnFirewallScenario;

fn rules() -> [NftRule; 3] {
    let both = flags::SYN | flags::ACK;
    [
        NftRule {
            source_port: Some(SYN_ACKS),
            flags: Some((both, both)),
            ..NftRule::drop(NftHook::Output)
        },
        NftRule {
            destination_port: Some(SYNS),
            counter: true,
            flags: Some((both, flags::SYN)),
            ..NftRule::drop(NftHook::Input)
        },
        NftRule {
            destination_port: Some(OWN_SYNS),
            counter: true,
            flags: Some((both, flags::SYN)),
            ..NftRule::drop(NftHook::Output)
        },
    ]
}

impl Scenario for OwnFirewallScenario {
    fn name(&self) -> &'static str {
        "own-firewall"
    }

    fn summary(&self) -> &'static str {
        "nf_tables drop the server's SYN-ACKs, SYNs that arrive at the server, and the client's own SYNs"
    }

    fn nominal_seconds(&self) -> u32 {
        5
    }

    fn ports(&self) -> &'static [u16] {
        &[SYN_ACKS, SYNS, OWN_SYNS]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let v6 = lab.family.wire_is_v6();
        let [syn_acks, syns, own_syns] = rules();
        nft::install(&lab.server, v6, &[syn_acks, syns])?;
        nft::install(&lab.client, v6, &[own_syns])?;
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let start = Instant::now();
        let mut clients = Vec::new();
        for &port in self.ports() {
            for _ in 0..CLIENTS {
                clients.push(run.connect(port)?);
            }
        }
        settle(&mut clients, stop, start + PATIENCE)?;
        // Without linear timeouts the SYNs leave at 0, 1 and 3 s.
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        for client in &clients {
            run.client_ended(client, Outcome::Abandoned)?;
            run.with_cause(CAUSE);
            if client.peer.port() == SYN_ACKS && !run.stopped() {
                // The kernel removes a half-open after 1 s when it cannot retransmit the SYN-ACK.
                // The next SYN makes another, unless it arrived just before.
                run.server_ended(client, Outcome::Dropped, retries / 2 + 1..=retries + 1);
                run.with_retransmits(0);
                run.with_cause(CAUSE);
            }
        }
        drop(clients);
        run.wait_no_half_opens(SYN_ACKS)?;
        let all = 3 * CLIENTS;
        run.note("a SYN-ACK retransmission that fails is not counted, and ends the half-open");
        run.expect(Side::Client, "ActiveOpens", all..=all);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        // The kernel counts a SYN that the output rule dropped as retransmitted and as failed.
        run.expect(Side::Client, "TCPSynRetrans", all * retries..=all * retries);
        run.expect(
            Side::Client,
            "TCPRetransFail",
            CLIENTS * retries..=CLIENTS * retries,
        );
        run.expect(Side::Server, "TCPSynRetrans", 0..=0);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        let sent = (all - CLIENTS) * retries;
        run.expect_retransmits(Side::Client, "syn", sent..=sent);
        run.end()
    }
}
