use std::sync::atomic::AtomicBool;

use anyhow::Result;

use crate::lab::riddle::{self, HALF_OPENS, ROOMY_BACKLOG, ShutOut};
use crate::lab::router::Router;
use crate::lab::scenario::{Run, Scenario};
use crate::lab::{Client, Fault, FaultRule, Lab, Lose, Made, PORT, Role, Side, syn_ack};

/// Networks that call so; the others call the server itself.
const THROUGH: usize = 2;
/// Each address calls several times; the fault knows the calls by their ports, which the kernel gives
/// to nobody else.
const HOSTS: usize = 40;
const FIRST_PORT: u16 = 20_001;
const PORTS: u16 = 4;
/// Where the hosts of each network begin that are connected already, and how many they are.
const CONNECTED: (u8, u8) = (100, 60);
const SHUT_OUT: u8 = 200;
/// The virtual address's port.
const VIRTUAL_PORT: u16 = 80;

/// Those who call by a virtual address are answered from another one, past the router, and what is
/// before them throws that away.
pub(super) struct RiddleAsymmetricNat;

impl Scenario for RiddleAsymmetricNat {
    fn name(&self) -> &'static str {
        "riddle-asymmetric-nat"
    }

    fn summary(&self) -> &'static str {
        "500 work on, 307 are half-open: called through DNAT, answered from another address"
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

        let router = Router::new(lab, &[(VIRTUAL_PORT, PORT)])?;
        let virtual_address = router.address(lab, VIRTUAL_PORT);
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
            let (network, nth) = (n % THROUGH, n / THROUGH);
            let port = FIRST_PORT + (nth / HOSTS) as u16;
            let host = 1 + (nth % HOSTS) as u8;
            let local = riddle::local(lab, network as u8, host, port);
            calling.push(Client::connect_from(&lab.client, local, virtual_address)?);
        }
        let mut shut_out = ShutOut::default();
        let stood = riddle::hold(&mut run, &mut crowd, 0, |run, since| {
            shut_out.tick(since, |n| {
                let network = n % THROUGH as u8;
                let local = riddle::local(run.lab, network, SHUT_OUT + n, FIRST_PORT);
                Client::connect_from(&run.lab.client, local, virtual_address)
            })
        })?;
        shut_out.check(&run)?;
        for client in calling.iter().chain(shut_out.clients()) {
            let ends = (client.local, lab.server_addr(PORT));
            // One that its timer ended is made anew by the next SYN.
            riddle::may_be_seen(&mut run, Role::Server, ends, 2, "asymmetric-nat");
            let ends = (client.local, client.peer);
            riddle::may_be_seen(&mut run, Role::Client, ends, 1, "filtered");
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
        // With it the half-opens end. One whose SYN-ACK were sent again after the fault is gone would be
        // reset by a host that knows nothing of it.
        drop(listener);
        riddle::end(run, crowd, stood)
    }
}
