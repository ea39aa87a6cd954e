use std::{
    collections::HashMap,
    io,
    net::TcpListener,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    Client, GroundTruth, Lab, PORT, Side,
    scenario::{Scenario, ScenarioRun},
};

const BACKLOG: i32 = 128;
/// Between two clients; the slow application accepts one in the same time.
const STEP: Duration = Duration::from_millis(100);
/// Clients that come before the slow application accepts its first.
const BEHIND: usize = 25;
/// Clients of the slow application.
const CLIENTS: usize = 55;

/// Clients of one burst, and the bursts.
const BURST: usize = 40;
const BURSTS: usize = 6;
/// After a burst the healthy application is busy for so long.
const BUSY: Duration = Duration::from_millis(300);
/// Once it is for longer, as in a garbage collection: less than the time of two checks.
const PAUSE: Duration = Duration::from_millis(1200);
/// Between two bursts.
const BETWEEN: Duration = Duration::from_millis(500);

/// The application, with the clients that it has not accepted yet.
struct Application {
    listener: TcpListener,
    /// When each called connect(), microseconds before its handshake ended, by its port.
    waiting: HashMap<u16, Instant>,
    waits: Vec<Duration>,
    clients: Vec<Client>,
}

impl Application {
    fn listen(lab: &Lab) -> Result<Self> {
        Ok(Self {
            listener: lab.listen(PORT, BACKLOG)?,
            waiting: HashMap::new(),
            waits: Vec::new(),
            clients: Vec::new(),
        })
    }

    fn client(&mut self, run: &ScenarioRun<'_>) -> Result<()> {
        let called = Instant::now();
        let mut client = run.connect(PORT)?;
        run.settle([&mut client])?;
        self.waiting.insert(client.local.port(), called);
        self.clients.push(client);
        Ok(())
    }

    /// Accepts and closes one connection; returns whether one waited.
    fn accept(&mut self) -> Result<bool> {
        match self.listener.accept() {
            Ok((_, peer)) => {
                let since = self.waiting.remove(&peer.port());
                self.waits
                    .push(since.context("the client is known")?.elapsed());
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("accept()"),
        }
    }

    fn accept_all(&mut self) -> Result<()> {
        while self.accept()? {}
        Ok(())
    }

    fn end(mut self, mut run: ScenarioRun<'_>) -> Result<GroundTruth> {
        self.accept_all()?;
        for client in &self.clients {
            run.both_healthy(client)?;
            run.with_retransmits(0);
        }
        let made = self.clients.len() as u64;
        run.finish(self.clients)?;
        run.truth.accept_waits = self.waits;
        let (mean, longest) = run.truth.accept_wait().unwrap_or_default();
        run.note(format!(
            "connections waited for accept() for {mean:.2?} on average, {longest:.2?} at most"
        ));
        run.expect(Side::Client, "ActiveOpens", made..=made);
        run.expect(Side::Server, "PassiveOpens", made..=made);
        run.expect(Side::Server, "ListenOverflows", 0..=0);
        for side in [Side::Client, Side::Server] {
            run.expect(side, "TCPSynRetrans", 0..=0);
        }
        run.end()
    }
}

/// The application accepts as many as come, but each only after seconds.
pub(super) struct AcceptSlowScenario;

impl Scenario for AcceptSlowScenario {
    fn name(&self) -> &'static str {
        "accept-slow"
    }

    fn summary(&self) -> &'static str {
        "connections wait 2.5 s for accept(), in a queue that is never full: no packet is lost"
    }

    fn nominal_seconds(&self) -> u32 {
        8
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let run = ScenarioRun::new(self, lab, stop);
        let mut application = Application::listen(lab)?;
        for n in 0..CLIENTS + BEHIND {
            if run.stopped() {
                break;
            }
            if n < CLIENTS {
                application.client(&run)?;
            }
            if n >= BEHIND {
                application.accept()?;
            }
            run.pause(STEP)?;
        }
        application.end(run)
    }
}

/// Bursts that a healthy application accepts late, but in well under a second: the neighbour of `accept-slow`.
pub(super) struct AcceptBurstScenario;

impl Scenario for AcceptBurstScenario {
    fn name(&self) -> &'static str {
        "accept-burst"
    }

    fn summary(&self) -> &'static str {
        "bursts of 40 clients that a healthy application accepts after 0.3 s, once after 1.2 s"
    }

    fn nominal_seconds(&self) -> u32 {
        7
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let run = ScenarioRun::new(self, lab, stop);
        let mut application = Application::listen(lab)?;
        for n in 0..BURSTS {
            if run.stopped() {
                break;
            }
            for _ in 0..BURST {
                application.client(&run)?;
            }
            run.pause(if n == BURSTS / 2 { PAUSE } else { BUSY })?;
            application.accept_all()?;
            run.pause(BETWEEN)?;
        }
        application.end(run)
    }
}
