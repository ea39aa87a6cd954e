//! The trait of a scenario, and the state of a running one.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    FaultInjector, Lab, PORT, SocketFamily,
    ground_truth::{
        Cause, ClientError, ExpectedCounter, ExpectedHandshake, ExpectedRetransmits, FaultReport,
        GroundTruth, Outcome, Role, Side,
    },
    jitter::{Background, JitterRng},
    socket::{self, Client, ConnectState},
};

/// One behaviour of handshakes. A scenario makes the traffic whether or not anything watches it.
pub trait Scenario: Sync {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// Summary in one line, shorter than 100 characters.
    fn summary(&self) -> &'static str;
    /// Approximate duration, seconds.
    fn nominal_seconds(&self) -> u32;
    /// The server's ports.
    fn ports(&self) -> &'static [u16] {
        &[PORT]
    }
    /// Whether the scenario exists for this family.
    fn supports(&self, _family: SocketFamily) -> bool {
        true
    }
    /// Whether the scenario is an incident: it reaches a state, calls [`Lab::ready`], and holds the state
    /// until `stop` is set or a time limit has passed. Other scenarios make whole handshakes.
    fn is_incident(&self) -> bool {
        false
    }
    /// Runs the scenario. Returns promptly once `stop` is set.
    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth>;
}

/// A running scenario: the lab, the stop flag, and the ground truth so far.
pub(super) struct ScenarioRun<'a> {
    pub(super) lab: &'a Lab,
    pub(super) stop: &'a AtomicBool,
    /// The scenario must end before this time.
    pub(super) deadline: Instant,
    pub(super) truth: GroundTruth,
    rng: JitterRng,
    background: Option<Result<Background>>,
}

impl<'a> ScenarioRun<'a> {
    pub(super) fn new(scenario: &dyn Scenario, lab: &'a Lab, stop: &'a AtomicBool) -> Self {
        let nominal = Duration::from_secs(scenario.nominal_seconds().into());
        Self {
            lab,
            stop,
            deadline: Instant::now() + nominal * 2 + Duration::from_secs(10),
            truth: GroundTruth::default(),
            rng: JitterRng::new(lab.jitter.seed),
            background: lab.jitter.background.then(|| Background::start(lab)),
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Starts a connection to the lab's server.
    pub(super) fn connect(&self, port: u16) -> Result<Client> {
        Client::connect(&self.lab.client, self.lab.server_addr(port), |_| Ok(()))
    }

    /// Waits until each connect() has succeeded or failed. Exceeding the deadline is an error.
    pub(super) fn settle<'c>(
        &self,
        clients: impl IntoIterator<Item = &'c mut Client>,
    ) -> Result<()> {
        socket::settle(clients, self.stop, self.deadline)?;
        self.check_deadline()
    }

    /// Pauses for `pause`, varied by the jitter.
    pub(super) fn pause(&self, pause: Duration) -> Result<()> {
        socket::pause(self.rng.vary(pause), self.stop)
    }

    /// Pauses until exactly `until`.
    pub(super) fn pause_until(&self, until: Instant) -> Result<()> {
        socket::pause(until.saturating_duration_since(Instant::now()), self.stop)
    }

    /// Varies a time by the jitter, within bounds that the kernel's timers set.
    pub(super) fn vary(&self, time: Duration, within: RangeInclusive<Duration>) -> Duration {
        self.rng.vary(time).clamp(*within.start(), *within.end())
    }

    /// Waits until the server has no half-open connection to `port`.
    pub(super) fn wait_no_half_opens(&self, port: u16) -> Result<()> {
        self.wait_half_opens(port, 0..=0)
    }

    /// Waits until the number of half-open connections to `port` is in `wanted`.
    pub(super) fn wait_half_opens(&self, port: u16, wanted: RangeInclusive<usize>) -> Result<()> {
        while !self.stopped() && !wanted.contains(&self.lab.half_opens(port)?) {
            self.check_deadline()?;
            socket::pause(Duration::from_millis(50), self.stop)?;
        }
        Ok(())
    }

    /// Waits until the server has `wanted` established connections to `port`.
    pub(super) fn wait_established(&self, port: u16, wanted: usize) -> Result<()> {
        while !self.stopped() && self.lab.established(port)? != wanted {
            self.check_deadline()?;
            socket::pause(Duration::from_millis(5), self.stop)?;
        }
        Ok(())
    }

    /// Waits until the peer has acknowledged all data of the client.
    pub(super) fn wait_acknowledged(&self, client: &Client) -> Result<()> {
        while !self.stopped() && client.unacknowledged()? > 0 {
            self.check_deadline()?;
            socket::pause(Duration::from_millis(2), self.stop)?;
        }
        Ok(())
    }

    /// Returns an error if the client is not connected.
    pub(super) fn check_connected(&self, client: &Client) -> Result<()> {
        if client.seen != ConnectState::Connected && !self.stopped() {
            bail!(
                "{} should be connected, but is {:?}",
                client.local,
                client.seen
            );
        }
        Ok(())
    }

    pub(super) fn check_deadline(&self) -> Result<()> {
        if Instant::now() >= self.deadline {
            bail!("the scenario did not end in time");
        }
        Ok(())
    }

    /// Records clients whose application gave up after this number of retransmissions, for one cause.
    pub(super) fn clients_abandoned(
        &mut self,
        clients: &[Client],
        retransmits: u32,
        cause: impl Into<Cause> + Copy,
    ) -> Result<()> {
        for client in clients {
            self.client_ended(client, Outcome::Abandoned)?;
            self.with_retransmits(retransmits);
            self.with_cause(cause);
        }
        Ok(())
    }

    /// Records how a client's handshake ended. Checks that the application received a matching result.
    pub(super) fn client_ended(&mut self, client: &Client, outcome: Outcome) -> Result<()> {
        let error = match client.seen {
            ConnectState::Failed(errno) => Some(ClientError {
                errno,
                name: errno_name(errno),
            }),
            ConnectState::Pending if self.stopped() => return Ok(()),
            ConnectState::Pending | ConnectState::Connected => None,
        };
        let agrees = match outcome {
            Outcome::Established => client.seen == ConnectState::Connected,
            Outcome::Refused => client.seen == ConnectState::Failed(libc::ECONNREFUSED),
            Outcome::TimedOut => client.seen == ConnectState::Failed(libc::ETIMEDOUT),
            Outcome::Abandoned => client.seen == ConnectState::Pending,
            Outcome::Unreachable => error.is_some_and(|error| {
                !matches!(
                    error.errno,
                    libc::ECONNREFUSED | libc::ETIMEDOUT | libc::ECONNRESET
                )
            }),
            _ => false,
        };
        if !agrees {
            bail!(
                "the handshake of {} with {} should end as {}, but its application got {:?}",
                client.local,
                client.peer,
                outcome.name(),
                client.seen
            );
        }
        // A socket without a port has no address: use the client's.
        let bound = client.local.port() != 0;
        self.truth.handshakes.push(ExpectedHandshake {
            role: Role::Client,
            local_addr: match bound {
                true => client.local.ip().to_canonical(),
                false => self.lab.client_ip(),
            },
            local_port: bound.then_some(client.local.port()),
            peer_addr: client.peer.ip().to_canonical(),
            peer_port: Some(client.peer.port()),
            outcome,
            count: 1..=1,
            error,
            retransmits: None,
            cause: None,
        });
        Ok(())
    }

    /// Records how the server's end of a handshake with a raw peer ended. Addresses are those on the wire.
    pub(super) fn peer_ended(&mut self, server: SocketAddr, peer: SocketAddr, outcome: Outcome) {
        self.truth.handshakes.push(ExpectedHandshake {
            role: Role::Server,
            local_addr: server.ip(),
            local_port: Some(server.port()),
            peer_addr: peer.ip(),
            peer_port: Some(peer.port()),
            outcome,
            count: 1..=1,
            error: None,
            retransmits: None,
            cause: None,
        });
    }

    /// Records how the server's end of a client's handshake ended.
    pub(super) fn server_ended(
        &mut self,
        client: &Client,
        outcome: Outcome,
        count: RangeInclusive<u64>,
    ) {
        self.truth.handshakes.push(ExpectedHandshake {
            role: Role::Server,
            local_addr: client.peer.ip().to_canonical(),
            local_port: Some(client.peer.port()),
            peer_addr: client.local.ip().to_canonical(),
            peer_port: Some(client.local.port()),
            outcome,
            count,
            error: None,
            retransmits: None,
            cause: None,
        });
    }

    /// Sets the retransmissions of the handshake recorded last.
    pub(super) fn with_retransmits(&mut self, count: u32) {
        if let Some(made) = self.truth.handshakes.last_mut() {
            made.retransmits = Some(count);
        }
    }

    /// Sets the cause of the handshake recorded last: see [`ExpectedHandshake::cause`].
    pub(super) fn with_cause(&mut self, cause: impl Into<Cause>) {
        if let Some(made) = self.truth.handshakes.last_mut() {
            made.cause = Some(cause.into());
        }
    }

    /// Removes the cause of the handshake recorded last.
    pub(super) fn without_cause(&mut self) {
        if let Some(made) = self.truth.handshakes.last_mut() {
            made.cause = None;
        }
    }

    /// Records both ends of a healthy handshake.
    pub(super) fn both_healthy(&mut self, client: &Client) -> Result<()> {
        self.both_established(client, Cause::Healthy, Cause::Healthy)
    }

    /// Records both ends of a completed handshake, each with its cause.
    pub(super) fn both_established(
        &mut self,
        client: &Client,
        of_client: impl Into<Cause>,
        of_server: impl Into<Cause>,
    ) -> Result<()> {
        self.client_ended(client, Outcome::Established)?;
        if client.seen == ConnectState::Connected {
            self.with_cause(of_client);
            self.server_ended(client, Outcome::Established, 1..=1);
            self.with_cause(of_server);
        }
        Ok(())
    }

    pub(super) fn expect(&mut self, side: Side, name: &'static str, moved: RangeInclusive<u64>) {
        self.truth
            .counters
            .push(ExpectedCounter { side, name, moved });
    }

    pub(super) fn expect_retransmits(
        &mut self,
        side: Side,
        kind: &'static str,
        count: RangeInclusive<u64>,
    ) {
        self.truth
            .retransmits
            .push(ExpectedRetransmits { side, kind, count });
    }

    pub(super) fn report_fault(
        &mut self,
        fault: &FaultInjector<'_>,
        slot: u32,
        what: &str,
    ) -> Result<()> {
        self.truth.faults.push(FaultReport {
            what: what.to_owned(),
            count: fault.count(slot)?,
        });
        Ok(())
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.truth.notes.push(note.into());
    }

    /// Closes connections and waits until no segment of theirs is outstanding.
    pub(super) fn finish(&self, clients: impl IntoIterator<Item = Client>) -> Result<()> {
        clients
            .into_iter()
            .filter(|client| client.seen == ConnectState::Connected)
            .try_for_each(|client| client.finish(self.stop, self.deadline))
    }

    /// Ends the run. Returns the ground truth, without counters after an interruption or where background
    /// handshakes ran.
    pub(super) fn end(mut self) -> Result<GroundTruth> {
        self.truth.interrupted = self.stopped();
        if let Some(background) = self.background.take() {
            self.truth.background = Some(background?.stop()?);
        }
        if self.truth.interrupted || self.truth.background.is_some() {
            self.truth.counters.clear();
            self.truth.retransmits.clear();
        }
        Ok(self.truth)
    }
}

fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::EACCES => "EACCES",
        libc::ECONNRESET => "ECONNRESET",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        _ => "other",
    }
}
