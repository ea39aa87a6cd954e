//! What a scenario is.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::ground_truth::{
    Cause, Error, ExpectedCounter, ExpectedRetransmits, FaultReport, Made, MadeHandshake, Outcome,
    Role, Side,
};
use super::jitter::{Background, Dice};
use super::socket::{self, Client, Seen};
use super::{Family, Fault, Lab, Lose, PORT, bare_ack};

/// One way for handshakes to go, or to go wrong. It makes the traffic and does not care whether
/// anybody watches.
pub trait Scenario: Sync {
    /// What the command line calls it.
    fn name(&self) -> &'static str;
    /// What happens, in one line.
    fn summary(&self) -> &'static str;
    /// About how long it takes, seconds.
    fn nominal_seconds(&self) -> u32;
    /// The server's ports.
    fn ports(&self) -> &'static [u16] {
        &[PORT]
    }
    /// Whether it can be made to happen with these addresses.
    fn supports(&self, _family: Family) -> bool {
        true
    }
    /// Whether it makes a state of trouble and holds it, rather than handshakes from beginning to end:
    /// when the state stands it calls [`Lab::ready`], and goes on until `stop` is set or a while has
    /// passed.
    fn is_incident(&self) -> bool {
        false
    }
    /// Makes it happen. Returns promptly once `stop` is set.
    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made>;
}

/// A scenario under way: the lab, when to stop, and what has been made so far.
pub(super) struct Run<'a> {
    pub(super) lab: &'a Lab,
    pub(super) stop: &'a AtomicBool,
    /// A scenario that is not over by then has gone wrong.
    pub(super) deadline: Instant,
    pub(super) made: Made,
    dice: Dice,
    background: Option<Result<Background>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(scenario: &dyn Scenario, lab: &'a Lab, stop: &'a AtomicBool) -> Self {
        let nominal = Duration::from_secs(scenario.nominal_seconds().into());
        Self {
            lab,
            stop,
            deadline: Instant::now() + nominal * 2 + Duration::from_secs(10),
            made: Made::default(),
            dice: Dice::new(lab.variation.seed),
            background: lab.variation.background.then(|| Background::start(lab)),
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A client of the lab's server.
    pub(super) fn connect(&self, port: u16) -> Result<Client> {
        Client::connect(&self.lab.client, self.lab.server_addr(port), |_| Ok(()))
    }

    /// Fills the accept queue of `port`, which takes so many, with two half-opens at it that came while
    /// there was room: their first final ACKs are lost. Gives these two, and those in the queue.
    pub(super) fn fill_accept_queue(
        &self,
        port: u16,
        takes: usize,
        into_server: &mut Fault<'_>,
    ) -> Result<([Client; 2], Vec<Client>)> {
        let mut queued = Vec::new();
        for _ in 1..takes {
            queued.push(self.connect(port)?);
        }
        self.settle(&mut queued)?;
        // Their final ACKs have come: only others are lost from here on.
        self.wait_established(port, queued.len())?;
        into_server.set(0, bare_ack(), Lose::First(1), port)?;
        let mut half_open = [self.connect(port)?, self.connect(port)?];
        self.settle(&mut half_open)?;
        into_server.lift(0)?;
        // The last place is taken before their SYN-ACKs are sent again, a second after the first.
        let mut last = self.connect(port)?;
        self.settle([&mut last])?;
        queued.push(last);
        Ok((half_open, queued))
    }

    /// Waits until every open is decided; a scenario that hangs is an error.
    pub(super) fn settle<'c>(
        &self,
        clients: impl IntoIterator<Item = &'c mut Client>,
    ) -> Result<()> {
        socket::settle(clients, self.stop, self.deadline)?;
        self.check_deadline()
    }

    /// An application that has something else to do: for about so long, as the variation has it.
    pub(super) fn pause(&self, pause: Duration) -> Result<()> {
        socket::pause(self.dice.vary(pause), self.stop)
    }

    /// Likewise, until then exactly.
    pub(super) fn pause_until(&self, until: Instant) -> Result<()> {
        socket::pause(until.saturating_duration_since(Instant::now()), self.stop)
    }

    /// A time as the variation has it, but within these bounds, that the kernel's timers set.
    pub(super) fn vary(&self, time: Duration, within: RangeInclusive<Duration>) -> Duration {
        self.dice.vary(time).clamp(*within.start(), *within.end())
    }

    /// Waits until the server has no half-open connection to `port`.
    pub(super) fn wait_no_half_opens(&self, port: u16) -> Result<()> {
        self.wait_half_opens(port, 0..=0)
    }

    /// Waits until the server has so many half-open connections to `port`.
    pub(super) fn wait_half_opens(&self, port: u16, wanted: RangeInclusive<usize>) -> Result<()> {
        while !self.stopped() && !wanted.contains(&self.lab.half_opens(port)?) {
            self.check_deadline()?;
            socket::pause(Duration::from_millis(50), self.stop)?;
        }
        Ok(())
    }

    /// Waits until the server has so many established connections to `port`.
    pub(super) fn wait_established(&self, port: u16, wanted: usize) -> Result<()> {
        while !self.stopped() && self.lab.established(port)? != wanted {
            self.check_deadline()?;
            socket::pause(Duration::from_millis(5), self.stop)?;
        }
        Ok(())
    }

    /// Waits until the peer has acknowledged all that the client wrote.
    pub(super) fn wait_acknowledged(&self, client: &Client) -> Result<()> {
        while !self.stopped() && client.unacknowledged()? > 0 {
            self.check_deadline()?;
            socket::pause(Duration::from_millis(2), self.stop)?;
        }
        Ok(())
    }

    /// An error if the client did not get in.
    pub(super) fn check_connected(&self, client: &Client) -> Result<()> {
        if client.seen != Seen::Connected && !self.stopped() {
            bail!("{} was to get in, and saw {:?}", client.local, client.seen);
        }
        Ok(())
    }

    pub(super) fn check_deadline(&self) -> Result<()> {
        if Instant::now() >= self.deadline {
            bail!("the scenario did not end in time");
        }
        Ok(())
    }

    /// Notes how a client's handshake ended and holds that against what its application was told.
    pub(super) fn client_ended(&mut self, client: &Client, outcome: Outcome) -> Result<()> {
        let error = match client.seen {
            Seen::Failed(errno) => Some(Error {
                errno,
                name: errno_name(errno),
            }),
            Seen::Pending if self.stopped() => return Ok(()),
            Seen::Pending | Seen::Connected => None,
        };
        let agrees = match outcome {
            Outcome::Established => client.seen == Seen::Connected,
            Outcome::Refused => client.seen == Seen::Failed(libc::ECONNREFUSED),
            Outcome::TimedOut => client.seen == Seen::Failed(libc::ETIMEDOUT),
            Outcome::Abandoned => client.seen == Seen::Pending,
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
                "the handshake of {} with {} was to end {}, but its application saw {:?}",
                client.local,
                client.peer,
                outcome.name(),
                client.seen
            );
        }
        // Without a port it has no address any more either: the one that it called from is known.
        let bound = client.local.port() != 0;
        self.made.handshakes.push(MadeHandshake {
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

    /// Notes how the server's end of a handshake with a hand-made peer ended; wire addresses.
    pub(super) fn peer_ended(&mut self, server: SocketAddr, peer: SocketAddr, outcome: Outcome) {
        self.made.handshakes.push(MadeHandshake {
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

    /// Notes how the server's end of a client's handshake ended.
    pub(super) fn server_ended(
        &mut self,
        client: &Client,
        outcome: Outcome,
        count: RangeInclusive<u64>,
    ) {
        self.made.handshakes.push(MadeHandshake {
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

    /// Says how often the handshake noted last had its SYN or SYN-ACK sent again.
    pub(super) fn with_retransmits(&mut self, count: u32) {
        if let Some(made) = self.made.handshakes.last_mut() {
            made.retransmits = Some(count);
        }
    }

    /// Says what was done to the handshake noted last: see [`MadeHandshake::cause`].
    pub(super) fn with_cause(&mut self, cause: impl Into<Cause>) {
        if let Some(made) = self.made.handshakes.last_mut() {
            made.cause = Some(cause.into());
        }
    }

    /// Leaves open what must be said of the handshake noted last.
    pub(super) fn without_cause(&mut self) {
        if let Some(made) = self.made.handshakes.last_mut() {
            made.cause = None;
        }
    }

    /// Both ends of a handshake with which nothing is wrong.
    pub(super) fn both_healthy(&mut self, client: &Client) -> Result<()> {
        self.both_established(client, Cause::Healthy, Cause::Healthy)
    }

    /// Both ends of a handshake that completed, and what was done to the client's and the server's.
    pub(super) fn both_established(
        &mut self,
        client: &Client,
        of_client: impl Into<Cause>,
        of_server: impl Into<Cause>,
    ) -> Result<()> {
        self.client_ended(client, Outcome::Established)?;
        if client.seen == Seen::Connected {
            self.with_cause(of_client);
            self.server_ended(client, Outcome::Established, 1..=1);
            self.with_cause(of_server);
        }
        Ok(())
    }

    pub(super) fn expect(&mut self, side: Side, name: &'static str, moved: RangeInclusive<u64>) {
        self.made
            .counters
            .push(ExpectedCounter { side, name, moved });
    }

    pub(super) fn expect_retransmits(
        &mut self,
        side: Side,
        kind: &'static str,
        count: RangeInclusive<u64>,
    ) {
        self.made
            .retransmits
            .push(ExpectedRetransmits { side, kind, count });
    }

    pub(super) fn report_fault(&mut self, fault: &Fault<'_>, slot: u32, what: &str) -> Result<()> {
        self.made.faults.push(FaultReport {
            what: what.to_owned(),
            count: fault.count(slot)?,
        });
        Ok(())
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.made.notes.push(note.into());
    }

    /// Closes connections so that nothing of them is left to be sent again.
    pub(super) fn finish(&self, clients: impl IntoIterator<Item = Client>) -> Result<()> {
        clients
            .into_iter()
            .filter(|client| client.seen == Seen::Connected)
            .try_for_each(|client| client.finish(self.stop, self.deadline))
    }

    /// What was made; after an interruption nothing is expected of it any more, with a background
    /// nothing of what is counted for a whole namespace.
    pub(super) fn end(mut self) -> Result<Made> {
        self.made.interrupted = self.stopped();
        if let Some(background) = self.background.take() {
            self.made.background = Some(background?.stop()?);
        }
        if self.made.interrupted || self.made.background.is_some() {
            self.made.counters.clear();
            self.made.retransmits.clear();
        }
        Ok(self.made)
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
