//! Shared parts of the incidents: five hundred active connections, three hundred half-opens from a few
//! networks, and new connects that fail.
//!
//! ```text
//!   client namespace                                     server namespace
//!   198.18.130.0/24 .. 198.18.134.0/24 (its own)  ────►  :8080
//!   fd00:5950:f:0:1::/80 .. fd00:5950:f:0:5::/80
//! ```

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use synprobe_common::sys::{
    fd_limit,
    poll::{self, interest},
};

use crate::{
    Cause, Client, ExpectedHandshake, GroundTruth, Lab, Outcome, PORT, Role,
    net::{RouteTarget, add_route},
    scenario::ScenarioRun,
    socket::settle,
};

/// Established connections.
pub(super) const ESTABLISHED: usize = 500;
/// Half-opens.
pub(super) const HALF_OPENS: usize = 307;
/// Networks of the clients.
pub(super) const NETWORKS: u8 = 5;
/// A backlog that stays less than half full, so that the kernel does not shorten the lifetime of
/// half-opens (`reqsk_timer_handler()`).
pub(super) const LARGE_BACKLOG: i32 = 1024;
/// Maximum time that the state is held.
const HOLD: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(100);
/// Interval between messages on every connection. An emulated processor needs time for other work.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(1);
/// Connects in progress at a time, few enough not to overflow the accept queue.
const BATCH: usize = 50;
const MESSAGE: &[u8] = b"still here\n";

/// An address of a client network. Host 0 is the network itself; see [`prefix`].
pub(super) fn client_address(v6: bool, network: u8, host: u8) -> IpAddr {
    match v6 {
        true => Ipv6Addr::new(
            0xfd00,
            0x5950,
            0xf,
            0,
            u16::from(network) + 1,
            0,
            0,
            host.into(),
        )
        .into(),
        false => Ipv4Addr::new(198, 18, 130 + network, host).into(),
    }
}

/// Prefix length of a client network.
pub(super) fn prefix(v6: bool) -> u8 {
    if v6 { 80 } else { 24 }
}

/// The established connections, and those that the server accepted.
#[derive(Default)]
pub(super) struct ClientPool {
    clients: Vec<Client>,
    accepted: Vec<TcpStream>,
    sent: u64,
    answered: u64,
}

impl ClientPool {
    /// The connection made last.
    pub(super) fn newest(&self) -> Option<&TcpStream> {
        self.clients.last().map(|client| &client.stream)
    }

    /// Sends a message on each accepted connection. Handles the messages and answers that have arrived.
    fn exchange(&mut self) -> Result<()> {
        let accepted: Vec<_> = self.accepted.iter().map(TcpStream::peer_addr).collect();
        let connected: std::collections::HashSet<_> = accepted.into_iter().flatten().collect();
        for client in self.clients.iter().filter(|c| connected.contains(&c.local)) {
            (&client.stream)
                .write_all(MESSAGE)
                .context("data of an established client")?;
            self.sent += MESSAGE.len() as u64;
        }
        self.answer()
    }

    fn answer(&mut self) -> Result<()> {
        for stream in &self.accepted {
            each_read(stream, |bytes| {
                let mut stream = stream;
                stream.write_all(bytes)
            })
            .context("the server's answers")?;
        }
        for client in &self.clients {
            each_read(&client.stream, |bytes| {
                self.answered += bytes.len() as u64;
                Ok(())
            })
            .context("data of an established client")?;
        }
        Ok(())
    }
}

fn each_read(
    mut stream: &TcpStream,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => each(&buffer[..got])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Common setup: descriptor limit and retries.
pub(super) fn prepare(lab: &Lab) -> Result<()> {
    // Both ends of each connection are in this process.
    fd_limit::raise().context("raising the limit of file descriptors")?;
    lab.server.set_sysctl("ipv4/tcp_synack_retries", "5")?;
    lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
    Ok(())
}

/// Makes the addresses of each network from host `first` on local to the client; `len` is the prefix
/// length.
pub(super) fn own_networks(lab: &Lab, first: u8, len: u8) -> Result<()> {
    let v6 = lab.family.wire_is_v6();
    for network in 0..NETWORKS {
        add_route(
            &lab.client,
            (client_address(v6, network, first), len),
            RouteTarget::Here,
        )?;
    }
    Ok(())
}

/// An address of a network in the form that the lab's sockets use.
pub(super) fn local(lab: &Lab, network: u8, host: u8, port: u16) -> SocketAddr {
    let address = client_address(lab.family.wire_is_v6(), network, host);
    SocketAddr::new(lab.as_sockets_write(address), port)
}

/// Connects to the server from an address of a network and a port (0: any).
pub(super) fn call(lab: &Lab, network: u8, host: u8, port: u16) -> Result<Client> {
    let local = local(lab, network, host, port);
    Client::connect_from(&lab.client, local, lab.server_addr(PORT))
}

/// Adds connections from all networks to the pool until it has `count`. `hosts`: first host number, and
/// how many.
pub(super) fn establish(
    run: &ScenarioRun<'_>,
    pool: &mut ClientPool,
    count: usize,
    (host, hosts): (u8, u8),
) -> Result<()> {
    while count > pool.clients.len() && !run.stopped() {
        let mut batch = Vec::new();
        for n in pool.clients.len()..count.min(pool.clients.len() + BATCH) {
            let network = (n % usize::from(NETWORKS)) as u8;
            let nth = (n / usize::from(NETWORKS) % usize::from(hosts)) as u8;
            batch.push(call(run.lab, network, host + nth, 0)?);
        }
        run.settle(&mut batch)?;
        for client in &batch {
            run.check_connected(client)?;
        }
        pool.clients.extend(batch);
    }
    Ok(())
}

/// Accepts until `count` connections are accepted.
pub(super) fn accept(
    run: &ScenarioRun<'_>,
    pool: &mut ClientPool,
    listener: &TcpListener,
    count: usize,
) -> Result<()> {
    while pool.accepted.len() < count && !run.stopped() {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                pool.accepted.push(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                run.check_deadline()?;
                let mut row = [interest(listener.as_raw_fd(), libc::POLLIN)];
                poll::wait(&mut row, Instant::now() + poll::SLICE)?;
            }
            Err(error) => return Err(error).context("accepting"),
        }
    }
    Ok(())
}

/// Establishes and accepts all connections. `hosts`: first host number of each network, and how many.
pub(super) fn establish_all(
    run: &ScenarioRun<'_>,
    listener: &TcpListener,
    hosts: (u8, u8),
) -> Result<ClientPool> {
    let mut pool = ClientPool::default();
    while pool.clients.len() < ESTABLISHED && !run.stopped() {
        let next = ESTABLISHED.min(pool.clients.len() + BATCH);
        establish(run, &mut pool, next, hosts)?;
        accept(run, &mut pool, listener, next)?;
    }
    Ok(pool)
}

/// Waits for the state, signals it, and holds it with data on every connection. Calls `tick` ten times a
/// second with the elapsed time. Returns whether the state was reached.
pub(super) fn hold(
    run: &mut ScenarioRun<'_>,
    pool: &mut ClientPool,
    slack: usize,
    mut tick: impl FnMut(&mut ScenarioRun<'_>, Duration) -> Result<()>,
) -> Result<bool> {
    let wanted = HALF_OPENS.saturating_sub(slack)..=HALF_OPENS;
    run.wait_half_opens(PORT, wanted)?;
    if run.stopped() {
        return Ok(false);
    }
    run.wait_established(PORT, ESTABLISHED)?;
    if run.stopped() {
        return Ok(false);
    }
    if let Some(ready) = &run.lab.ready {
        ready();
    }
    let began = Instant::now();
    let mut least = usize::MAX;
    let mut most = 0;
    let mut last_message = began;
    while !run.stopped() && began.elapsed() < HOLD {
        if last_message.elapsed() >= MESSAGE_INTERVAL || pool.sent == 0 {
            pool.exchange()?;
            last_message = Instant::now();
        }
        tick(run, began.elapsed())?;
        let now = run.lab.half_opens(PORT)?;
        (least, most) = (least.min(now), most.max(now));
        run.pause(TICK)?;
    }
    pool.answer()?;
    // The last messages may still be in flight.
    if pool.answered * 10 < pool.sent * 9 {
        bail!(
            "of {} bytes sent on established connections only {} were answered",
            pool.sent,
            pool.answered
        );
    }
    let held = began.elapsed().as_secs_f64();
    run.note(format!(
        "{ESTABLISHED} established and {HALF_OPENS} half-open at the start; held for {held:.1} s with {least} \
         to {most} half-open; {} bytes exchanged",
        pool.answered
    ));
    Ok(true)
}

/// Records one end of a handshake that a diagnosis may see open, ended, or not at all.
pub(super) fn may_be_seen(
    run: &mut ScenarioRun<'_>,
    role: Role,
    (client, server): (SocketAddr, SocketAddr),
    count: u64,
    cause: impl Into<Cause>,
) {
    let (local, peer) = match role {
        Role::Client => (client, server),
        Role::Server => (server, client),
    };
    run.truth.handshakes.push(ExpectedHandshake {
        role,
        local_addr: local.ip().to_canonical(),
        local_port: Some(local.port()),
        peer_addr: peer.ip().to_canonical(),
        peer_port: Some(peer.port()),
        outcome: Outcome::Open,
        count: 0..=count,
        error: None,
        retransmits: None,
        cause: Some(cause.into()),
    });
}

/// Records both ends of a client's handshake with [`may_be_seen`].
pub(super) fn both_may_be_seen(
    run: &mut ScenarioRun<'_>,
    client: &Client,
    half_opens: u64,
    [of_server, of_client]: [impl Into<Cause>; 2],
) {
    let ends = (client.local, client.peer);
    may_be_seen(run, Role::Server, ends, half_opens, of_server);
    may_be_seen(run, Role::Client, ends, 1, of_client);
}

/// Clients that connect during the incident and must fail.
#[derive(Default)]
pub(super) struct RejectedClients(Vec<Client>);

impl RejectedClients {
    /// Their number; one connects each second.
    pub(super) const CALLERS: u8 = 4;

    /// Starts the next client when it is due.
    pub(super) fn tick(
        &mut self,
        since: Duration,
        call: impl FnOnce(u8) -> Result<Client>,
    ) -> Result<()> {
        let n = self.0.len() as u8;
        if n < Self::CALLERS && since >= Duration::from_secs(1) * (u32::from(n) + 1) {
            self.0.push(call(n)?);
        }
        Ok(())
    }

    /// Returns an error if one is connected.
    pub(super) fn check(&mut self, run: &ScenarioRun<'_>) -> Result<()> {
        settle(&mut self.0, run.stop, Instant::now())?;
        for client in &self.0 {
            if client.seen == crate::ConnectState::Connected {
                bail!(
                    "{} should not be able to connect, but is connected",
                    client.local
                );
            }
        }
        Ok(())
    }

    pub(super) fn clients(&self) -> &[Client] {
        &self.0
    }
}

/// Resets the remaining connections and returns the ground truth.
pub(super) fn end(run: ScenarioRun<'_>, pool: ClientPool, reached: bool) -> Result<GroundTruth> {
    for client in pool.clients {
        client.reset()?;
    }
    let counters = run.truth.counters.clone();
    let mut made = run.end()?;
    if reached {
        // The watcher stops an incident when it has seen enough: that is no interruption.
        made.interrupted = false;
        if made.background.is_none() {
            made.counters = counters;
        }
    }
    Ok(made)
}
