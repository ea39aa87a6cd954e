use std::{io, os::fd::AsRawFd, sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;
use synprobe_common::{
    model::VerdictKind,
    sys::sockopts::{set_option, with_sockaddr},
};

use crate::{
    Client, GroundTruth, Lab, Outcome, PORT, Server, Side,
    scenario::{Scenario, ScenarioRun},
};

/// The client's port of every connect(). Outside the range from which the kernel chooses.
const OWN_PORT: u16 = 20_001;
/// Further connect() calls while the first connection is open.
const FURTHER: u64 = 3;

/// connect() from a fixed port whose connection is still open.
pub(super) struct TupleInUseScenario;

impl Scenario for TupleInUseScenario {
    fn name(&self) -> &'static str {
        "tuple-in-use"
    }

    fn summary(&self) -> &'static str {
        "a client connects from a fixed port while that connection is open: EADDRNOTAVAIL, no SYN leaves"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let server = Server::start(vec![lab.listen(PORT, 128)?])?;
        let own = lab.client_addr(OWN_PORT);
        let connect = || {
            Client::connect(&lab.client, lab.server_addr(PORT), |fd| {
                let on: libc::c_int = 1;
                set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
                let bound = with_sockaddr(own, |address, len| {
                    // SAFETY: the address is alive for the call and its length is its own.
                    unsafe { libc::bind(fd.as_raw_fd(), address, len) }
                });
                match bound {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            })
        };
        let mut first = connect()?;
        run.settle([&mut first])?;
        run.both_healthy(&first)?;
        run.with_retransmits(0);
        for n in 0..FURTHER {
            let client = connect()?;
            // All have the same ends: one entry represents them.
            if n == 0 {
                run.client_ended(&client, Outcome::Unreachable)?;
                run.with_retransmits(0);
                run.with_cause(VerdictKind::NotSent);
                if let Some(made) = run.truth.handshakes.last_mut() {
                    made.count = FURTHER..=FURTHER;
                }
            }
            run.pause(Duration::from_millis(30))?;
        }
        run.finish([first])?;
        server.stop()?;
        run.expect(Side::Client, "ActiveOpens", 1..=1);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.expect(Side::Server, "PassiveOpens", 1..=1);
        run.end()
    }
}
