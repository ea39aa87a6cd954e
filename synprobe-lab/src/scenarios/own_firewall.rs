use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::nft::{self, Hook, Rule};
use crate::packet::flags;
use crate::scenario::{Run, Scenario};
use crate::socket::settle;
use crate::{Lab, Made, Outcome, PORT, Side};

/// SYN-ACKs are dropped as they leave the server.
const SYN_ACKS: u16 = PORT;
/// SYNs are dropped as they reach the server.
const SYNS: u16 = PORT + 1;
/// SYNs are dropped as they leave the client.
const OWN_SYNS: u16 = PORT + 2;
/// Clients of each port.
const CLIENTS: u64 = 3;
/// How long the applications wait: their SYNs leave at 0, 1, 2 and 3 s.
const PATIENCE: Duration = Duration::from_millis(3500);
const RETRIES: u64 = 3;
const CAUSE: VerdictKind = VerdictKind::DroppedHere;

/// Rules of nf_tables on either host drop handshake segments.
pub(super) struct OwnFirewall;

fn rules() -> [Rule; 3] {
    let both = flags::SYN | flags::ACK;
    [
        Rule {
            source_port: Some(SYN_ACKS),
            flags: Some((both, both)),
            ..Rule::drop(Hook::Output)
        },
        Rule {
            destination_port: Some(SYNS),
            flags: Some((both, flags::SYN)),
            ..Rule::drop(Hook::Input)
        },
        Rule {
            destination_port: Some(OWN_SYNS),
            flags: Some((both, flags::SYN)),
            ..Rule::drop(Hook::Output)
        },
    ]
}

impl Scenario for OwnFirewall {
    fn name(&self) -> &'static str {
        "own-firewall"
    }

    fn summary(&self) -> &'static str {
        "nf_tables drop the server's SYN-ACKs, the SYNs that reach it, the client's own SYNs"
    }

    fn nominal_seconds(&self) -> u32 {
        5
    }

    fn ports(&self) -> &'static [u16] {
        &[SYN_ACKS, SYNS, OWN_SYNS]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
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
        // Without linear time-outs the SYNs leave at 0, 1 and 3 s.
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        for client in &clients {
            run.client_ended(client, Outcome::Abandoned)?;
            run.with_cause(CAUSE);
            if client.peer.port() == SYN_ACKS && !run.stopped() {
                // The kernel forgets a half-open when it cannot send its SYN-ACK again, after 1 s.
                // The next SYN makes another, unless it came a moment before.
                run.server_ended(client, Outcome::Dropped, retries / 2 + 1..=retries + 1);
                run.with_retransmits(0);
                run.with_cause(CAUSE);
            }
        }
        drop(clients);
        run.wait_no_half_opens(SYN_ACKS)?;
        let all = 3 * CLIENTS;
        run.note(
            "a SYN-ACK that cannot be sent again is no retransmission, and ends the half-open",
        );
        run.expect(Side::Client, "ActiveOpens", all..=all);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        // Those that the output rule dropped are counted as sent again, and as failed.
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
