//! What the incidents have in common: five hundred connections on which work goes on, three hundred
//! half-opens from a few networks, and a new connect that cannot get in.
//!
//! ```text
//!   client namespace                                     server namespace
//!   198.18.130.0/24 .. 198.18.134.0/24 (its own)  ────►  :8080
//!   fd00:5950:f:0:1::/80 .. fd00:5950:f:0:5::/80
//! ```

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::net::{Route, add_route};
use super::scenario::Run;
use super::socket::settle;
use super::{Cause, Client, Lab, Made, MadeHandshake, Outcome, PORT, Role};
use synprobe_common::sys::fd_limit;
use synprobe_common::sys::poll::{self, interest};

/// Connections that are established.
pub(super) const ESTABLISHED: usize = 500;
/// Half-opens.
pub(super) const HALF_OPENS: usize = 307;
/// Networks from which they come.
pub(super) const NETWORKS: u8 = 5;
/// Where a queue is less than half full the kernel does not shorten the lives of its half-opens
/// (`reqsk_timer_handler()`).
pub(super) const ROOMY_BACKLOG: i32 = 1024;
/// How long the state is held unless it is stopped before.
const HOLD: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(100);
/// Between one message of everybody's and the next: work goes on, and an emulated processor has time for
/// something else too.
const TALK: Duration = Duration::from_secs(1);
/// Connects that are under way at a time, so that they do not overflow the queue themselves.
const AT_A_TIME: usize = 50;
const MESSAGE: &[u8] = b"still here\n";

/// An address of a network; with host 0 the network itself, whose prefix [`prefix`] tells.
pub(super) fn carrier(v6: bool, network: u8, host: u8) -> IpAddr {
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

/// Length of a network's prefix.
pub(super) fn prefix(v6: bool) -> u8 {
    if v6 { 80 } else { 24 }
}

/// The five hundred, and what the server accepted of them.
#[derive(Default)]
pub(super) struct Crowd {
    clients: Vec<Client>,
    accepted: Vec<TcpStream>,
    sent: u64,
    answered: u64,
}

impl Crowd {
    /// The one that was connected last.
    pub(super) fn newest(&self) -> Option<&TcpStream> {
        self.clients.last().map(|client| &client.stream)
    }

    /// Each says something; the server answers what has come, and the answers that have come are
    /// read.
    fn chat(&mut self) -> Result<()> {
        let accepted: Vec<_> = self.accepted.iter().map(TcpStream::peer_addr).collect();
        let heard: std::collections::HashSet<_> = accepted.into_iter().flatten().collect();
        for client in self.clients.iter().filter(|c| heard.contains(&c.local)) {
            (&client.stream)
                .write_all(MESSAGE)
                .context("a client's work")?;
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
            .context("the server's work")?;
        }
        for client in &self.clients {
            each_read(&client.stream, |bytes| {
                self.answered += bytes.len() as u64;
                Ok(())
            })
            .context("a client's work")?;
        }
        Ok(())
    }
}

fn each_read(
    mut stream: &TcpStream,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut scratch = [0; 512];
    loop {
        match stream.read(&mut scratch) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => each(&scratch[..got])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// What every incident sets up first: descriptors, the networks as the client's own, patience.
pub(super) fn prepare(lab: &Lab) -> Result<()> {
    // An incident needs both ends of each connection.
    fd_limit::raise().context("raising the limit of file descriptors")?;
    lab.server.set_sysctl("ipv4/tcp_synack_retries", "5")?;
    lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
    Ok(())
}

/// Makes the addresses from `first` on of each network the client's own; `len` is their prefix.
pub(super) fn own_networks(lab: &Lab, first: u8, len: u8) -> Result<()> {
    let v6 = lab.family.wire_is_v6();
    for network in 0..NETWORKS {
        add_route(&lab.client, (carrier(v6, network, first), len), Route::Here)?;
    }
    Ok(())
}

/// An address of a network, as the lab's sockets write it.
pub(super) fn local(lab: &Lab, network: u8, host: u8, port: u16) -> SocketAddr {
    let address = carrier(lab.family.wire_is_v6(), network, host);
    SocketAddr::new(lab.as_sockets_write(address), port)
}

/// A client of the server with an address of a network, and a port unless 0.
pub(super) fn call(lab: &Lab, network: u8, host: u8, port: u16) -> Result<Client> {
    let local = local(lab, network, host, port);
    Client::connect_from(&lab.client, local, lab.server_addr(PORT))
}

/// Adds `count` connections from everywhere to the crowd; their hosts begin at `host`.
pub(super) fn establish(
    run: &Run<'_>,
    crowd: &mut Crowd,
    count: usize,
    (host, hosts): (u8, u8),
) -> Result<()> {
    while count > crowd.clients.len() && !run.stopped() {
        let mut batch = Vec::new();
        for n in crowd.clients.len()..count.min(crowd.clients.len() + AT_A_TIME) {
            let network = (n % usize::from(NETWORKS)) as u8;
            let nth = (n / usize::from(NETWORKS) % usize::from(hosts)) as u8;
            batch.push(call(run.lab, network, host + nth, 0)?);
        }
        run.settle(&mut batch)?;
        for client in &batch {
            run.check_connected(client)?;
        }
        crowd.clients.extend(batch);
    }
    Ok(())
}

/// The application accepts until it has so many.
pub(super) fn accept(
    run: &Run<'_>,
    crowd: &mut Crowd,
    listener: &TcpListener,
    count: usize,
) -> Result<()> {
    while crowd.accepted.len() < count && !run.stopped() {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                crowd.accepted.push(stream);
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

/// Establishes and accepts them all, with hosts of every network from `host` on.
pub(super) fn crowd(run: &Run<'_>, listener: &TcpListener, hosts: (u8, u8)) -> Result<Crowd> {
    let mut crowd = Crowd::default();
    while crowd.clients.len() < ESTABLISHED && !run.stopped() {
        let next = ESTABLISHED.min(crowd.clients.len() + AT_A_TIME);
        establish(run, &mut crowd, next, hosts)?;
        accept(run, &mut crowd, listener, next)?;
    }
    Ok(crowd)
}

/// Waits until the state stands, says so, and holds it: work goes on, and `tick` is called ten times a
/// second with the time since. Whether it stood.
pub(super) fn hold(
    run: &mut Run<'_>,
    crowd: &mut Crowd,
    slack: usize,
    mut tick: impl FnMut(&mut Run<'_>, Duration) -> Result<()>,
) -> Result<bool> {
    let wanted = HALF_OPENS.saturating_sub(slack)..=HALF_OPENS;
    run.wait_half_opens(PORT, wanted)?;
    if run.stopped() {
        return Ok(false);
    }
    let established = run.lab.established(PORT)?;
    if established != ESTABLISHED {
        bail!("{established} connections are established, not {ESTABLISHED}");
    }
    if let Some(ready) = &run.lab.ready {
        ready();
    }
    let began = Instant::now();
    let mut least = usize::MAX;
    let mut most = 0;
    let mut talk = began;
    while !run.stopped() && began.elapsed() < HOLD {
        if talk.elapsed() >= TALK || crowd.sent == 0 {
            crowd.chat()?;
            talk = Instant::now();
        }
        tick(run, began.elapsed())?;
        let now = run.lab.half_opens(PORT)?;
        (least, most) = (least.min(now), most.max(now));
        run.pause(TICK)?;
    }
    crowd.answer()?;
    // The last words may be on their way still.
    if crowd.answered * 10 < crowd.sent * 9 {
        bail!(
            "of {} bytes that those connected wrote only {} were answered",
            crowd.sent,
            crowd.answered
        );
    }
    let held = began.elapsed().as_secs_f64();
    run.note(format!(
        "{ESTABLISHED} established and {HALF_OPENS} half-open at first; held for {held:.1} s with {least} \
         to {most} half-open; {} bytes went to and fro meanwhile",
        crowd.answered
    ));
    Ok(true)
}

/// Notes one end of a handshake that a diagnosis may see open or ended, or not at all.
pub(super) fn may_be_seen(
    run: &mut Run<'_>,
    role: Role,
    (client, server): (SocketAddr, SocketAddr),
    count: u64,
    cause: impl Into<Cause>,
) {
    let (local, peer) = match role {
        Role::Client => (client, server),
        Role::Server => (server, client),
    };
    run.made.handshakes.push(MadeHandshake {
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

/// Likewise, both ends of a client's.
pub(super) fn both_may_be_seen(
    run: &mut Run<'_>,
    client: &Client,
    half_opens: u64,
    [of_server, of_client]: [impl Into<Cause>; 2],
) {
    let ends = (client.local, client.peer);
    may_be_seen(run, Role::Server, ends, half_opens, of_server);
    may_be_seen(run, Role::Client, ends, 1, of_client);
}

/// Those that call while it is held, and must not get in.
#[derive(Default)]
pub(super) struct ShutOut(Vec<Client>);

impl ShutOut {
    /// How many call, a second apart.
    pub(super) const CALLERS: u8 = 4;

    /// The next one calls when it is time.
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

    /// An error if one got in.
    pub(super) fn check(&mut self, run: &Run<'_>) -> Result<()> {
        settle(&mut self.0, run.stop, Instant::now())?;
        for client in &self.0 {
            if client.seen == super::Seen::Connected {
                bail!("{} was to be shut out, and got in", client.local);
            }
        }
        Ok(())
    }

    pub(super) fn clients(&self) -> &[Client] {
        &self.0
    }
}

/// Resets what is left, so that nothing lingers, and says what was made.
pub(super) fn end(run: Run<'_>, crowd: Crowd, stood: bool) -> Result<Made> {
    for client in crowd.clients {
        client.reset()?;
    }
    let counters = run.made.counters.clone();
    let mut made = run.end()?;
    if stood {
        // It is stopped when whoever looks has seen enough.
        made.interrupted = false;
        if made.background.is_none() {
            made.counters = counters;
        }
    }
    Ok(made)
}
