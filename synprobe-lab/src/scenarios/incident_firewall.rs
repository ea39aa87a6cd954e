use std::sync::atomic::AtomicBool;

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::incident::{self, HALF_OPENS, ROOMY_BACKLOG, ShutOut};
use crate::nft::{self, Hook, Rule};
use crate::packet::flags;
use crate::scenario::{Run, Scenario};
use crate::{Lab, Made, PORT, Side};

/// Networks to which the server's own rules let no SYN-ACK out.
const DROPPED: usize = 2;
const HOSTS: usize = 40;
/// Where the hosts of each network begin that are connected already, and how many they are.
const CONNECTED: (u8, u8) = (100, 60);
const SHUT_OUT: u8 = 200;
const CAUSES: [VerdictKind; 2] = [VerdictKind::DroppedHere, VerdictKind::DroppedHere];
/// The kernel forgets a half-open after 1 s when it cannot send its SYN-ACK again, so it is the peers
/// that keep the number up: their SYNs come every second.
const PATIENT: &str = "40";
/// Between the end of one and the SYN that makes it anew.
const SLACK: usize = 30;

/// The server's own rules drop its SYN-ACKs to two networks.
pub(super) struct IncidentFirewall;

impl Scenario for IncidentFirewall {
    fn name(&self) -> &'static str {
        "incident-firewall"
    }

    fn summary(&self) -> &'static str {
        "500 work on, 307 are half-open, nobody gets in: the server's nf_tables drop its SYN-ACKs"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_incident(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        let v6 = lab.family.wire_is_v6();
        incident::prepare(lab)?;
        lab.client
            .try_sysctl("ipv4/tcp_syn_linear_timeouts", PATIENT)?;
        incident::own_networks(lab, 0, incident::prefix(v6))?;
        let listener = lab.listen(PORT, ROOMY_BACKLOG)?;
        let mut crowd = incident::crowd(&run, &listener, CONNECTED)?;
        if run.stopped() {
            return incident::end(run, crowd, false);
        }

        let both = flags::SYN | flags::ACK;
        let rules = [0, 1].map(|network| Rule {
            destination: Some((incident::carrier(v6, network, 0), incident::prefix(v6))),
            source_port: Some(PORT),
            flags: Some((both, both)),
            ..Rule::drop(Hook::Output)
        });
        nft::install(&lab.server, v6, &rules)?;
        let mut calling = Vec::new();
        for n in 0..HALF_OPENS {
            if run.stopped() {
                break;
            }
            let (network, nth) = (n % DROPPED, n / DROPPED);
            let host = 1 + (nth % HOSTS) as u8;
            calling.push(incident::call(lab, network as u8, host, 0)?);
        }
        let mut shut_out = ShutOut::default();
        let stood = incident::hold(&mut run, &mut crowd, SLACK, |run, since| {
            shut_out.tick(since, |n| {
                let network = n % DROPPED as u8;
                incident::call(run.lab, network, SHUT_OUT + n, 0)
            })
        })?;
        shut_out.check(&run)?;
        for client in calling.iter().chain(shut_out.clients()) {
            // One for each of its SYNs.
            incident::both_may_be_seen(&mut run, client, 20, CAUSES);
        }
        let active = incident::ESTABLISHED as u64 + HALF_OPENS as u64;
        let callers = u64::from(ShutOut::CALLERS);
        run.expect(Side::Client, "ActiveOpens", active..=active + callers);
        let passive = incident::ESTABLISHED as u64;
        run.expect(Side::Server, "PassiveOpens", passive..=passive);
        // Not one SYN-ACK is sent again: each try fails.
        run.expect(Side::Server, "TCPSynRetrans", 0..=0);
        drop(calling);
        incident::end(run, crowd, stood)
    }
}
