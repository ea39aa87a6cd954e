use std::sync::atomic::AtomicBool;

use anyhow::Result;

use crate::lab::riddle::{self, HALF_OPENS, ROOMY_BACKLOG, ShutOut};
use crate::lab::scenario::{Run, Scenario};
use crate::lab::{Fault, FaultRule, Lab, Lose, Made, PORT, Side, syn_ack};

/// Networks to which no SYN-ACK gets through.
const LOST: usize = 2;
/// Each address calls several times; the fault knows the calls by their ports, which the kernel gives
/// to nobody else.
const HOSTS: usize = 40;
const FIRST_PORT: u16 = 20_001;
const PORTS: u16 = 4;
/// Where the hosts of each network begin that are connected already, and how many they are.
const CONNECTED: (u8, u8) = (100, 60);
const SHUT_OUT: u8 = 200;
const CAUSES: [&str; 2] = ["synack-lost", "filtered"];

/// SYN-ACKs towards two networks are lost.
pub(super) struct RiddleSynAckLost;

impl Scenario for RiddleSynAckLost {
    fn name(&self) -> &'static str {
        "riddle-synack-lost"
    }

    fn summary(&self) -> &'static str {
        "500 work on, 307 are half-open, nobody gets in: SYN-ACKs to two networks are lost"
    }

    fn nominal_seconds(&self) -> u32 {
        18
    }

    fn is_riddle(&self) -> bool {
        true
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        riddle::prepare(lab)?;
        riddle::own_networks(lab, 0, riddle::prefix(lab.family.wire_is_v6()))?;
        let listener = lab.listen(PORT, ROOMY_BACKLOG)?;
        // Those connected are of all networks: they came before the trouble.
        let mut crowd = riddle::crowd(&run, &listener, CONNECTED)?;
        if run.stopped() {
            return riddle::end(run, crowd, false);
        }

        let mut fault = Fault::attach(&lab.client)?;
        for n in 0..PORTS {
            let towards = FaultRule {
                destination_port: FIRST_PORT + n,
                ..syn_ack()
            };
            fault.set(n.into(), towards, Lose::All, PORT)?;
        }
        let mut calling = Vec::new();
        for n in 0..HALF_OPENS {
            if run.stopped() {
                break;
            }
            let (network, nth) = (n % LOST, n / LOST);
            let port = FIRST_PORT + (nth / HOSTS) as u16;
            let host = 1 + (nth % HOSTS) as u8;
            calling.push(riddle::call(lab, network as u8, host, port)?);
        }
        let mut shut_out = ShutOut::default();
        let stood = riddle::hold(&mut run, &mut crowd, 0, |run, since| {
            shut_out.tick(since, |n| {
                let network = n % LOST as u8;
                riddle::call(run.lab, network, SHUT_OUT + n, FIRST_PORT)
            })
        })?;
        shut_out.check(&run)?;
        for client in calling.iter().chain(shut_out.clients()) {
            // One that its timer ended is made anew by the next SYN.
            riddle::both_may_be_seen(&mut run, client, 2, CAUSES);
        }
        for n in 0..PORTS {
            let what = format!("SYN-ACKs to port {} of two networks", FIRST_PORT + n);
            run.report_fault(&fault, n.into(), &what)?;
        }
        let active = riddle::ESTABLISHED as u64 + HALF_OPENS as u64;
        let callers = u64::from(ShutOut::CALLERS);
        run.expect(Side::Client, "ActiveOpens", active..=active + callers);
        let passive = riddle::ESTABLISHED as u64;
        run.expect(Side::Server, "PassiveOpens", passive..=passive);
        run.expect(Side::Server, "ListenDrops", 0..=0);
        run.expect(Side::Server, "EmbryonicRsts", 0..=0);
        drop(calling);
        // As in the riddle of the asymmetric way: no SYN-ACK after the fault.
        drop(listener);
        riddle::end(run, crowd, stood)
    }
}
