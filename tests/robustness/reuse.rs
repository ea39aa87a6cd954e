//! The kernel reuses the memory of a socket or request within microseconds. Events of two handshakes are never
//! combined into one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{Shutdown, SocketAddr},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use synprobe::{
    decode::{Event, decode},
    filter::{Detail, Selection},
    model::{Handshake, Outcome, Role, TcpState},
    probe::Probes,
};
use synprobe_lab::{
    Client, ConnectState, FaultInjector, Lab, LossPattern, PORT, RawSender, Server, SocketFamily,
    syn,
};
use synprobe_tests::{
    harness::{self, Undecided, figure},
    pipeline_run::{WatchedRun, load_options, options_for, watch},
};

const CONNECTS: u16 = 4000;
const FIRST_PORT: u16 = 20_000;

/// The number that the kernel gives each socket once, and never again.
fn cookie(client: &Client) -> Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the cookie and its length are alive for the call.
    let got = unsafe {
        libc::getsockopt(
            client.stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    ensure!(got == 0, "{}", std::io::Error::last_os_error());
    Ok(cookie)
}

/// Refuses a run that has missed something, other than evidence: each RST here is a packet dropped.
fn complete(watched: WatchedRun) -> Result<WatchedRun> {
    let missed = watched.lost().find(|lost| lost.is_of_handshakes()).cloned();
    match missed {
        None => Ok(watched),
        Some(lost) => Err(Undecided(format!("{lost:?}")).into()),
    }
}

/// A connect as its caller saw it.
struct ConnectResult {
    outcome: Outcome,
    took: Duration,
}

/// Addresses of the sockets that began a connect, from a second set of programs.
fn addresses(lab: &Lab, make: impl FnOnce() -> Result<()>) -> Result<(u64, u64)> {
    let host = harness::host()?;
    let selection = Selection {
        netns: Some([lab.client.inode(); 2]),
        ..Selection::default()
    };
    let filter = selection.to_kernel(Detail::default(), host.ephemeral_ports);
    let (mut probes, mut ring) = Probes::load(&load_options(host, &filter))?;
    make()?;
    probes.detach();
    let (mut begun, mut addresses) = (0, HashSet::new());
    while let Some(record) = ring.next() {
        if let Ok(Event::State(r, TcpState::Close, TcpState::SynSent)) = decode(&record) {
            begun += 1;
            addresses.insert(r.sock);
        }
    }
    Ok((begun, addresses.len() as u64))
}

/// One after the other on one processor, each from a port of its own: connected and reset, refused,
/// given up.
pub fn sockets() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    lab.server.set_sysctl("core/somaxconn", "8192")?;
    let server = Server::start(vec![lab.listen(PORT, 8192)?])?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, syn(), LossPattern::All, PORT + 2)?;
    let mut made: BTreeMap<u16, ConnectResult> = BTreeMap::new();
    let mut cookies = HashSet::new();
    let mut reused = (0, 0);
    let ((), watched) = watch(options_for(&lab)?, |_| {
        reused = addresses(&lab, || {
            for n in 0..CONNECTS {
                let port = FIRST_PORT + n;
                let (peer, outcome) = match n % 3 {
                    0 => (lab.server_addr(PORT), Outcome::Established),
                    1 => (lab.server_addr(PORT + 1), Outcome::Refused),
                    // Its SYN is lost.
                    _ => (lab.server_addr(PORT + 2), Outcome::Abandoned),
                };
                let local = SocketAddr::new(lab.client_ip(), port);
                let began = Instant::now();
                let client = Client::connect_from(&lab.client, local, peer)?;
                cookies.insert(cookie(&client)?);
                match outcome {
                    Outcome::Established => client.reset()?,
                    Outcome::Refused => drop(client),
                    // close() alone may not end it: a process that another test is just beginning has
                    // every descriptor of this one until it executes its program.
                    _ => client.stream.shutdown(Shutdown::Both)?,
                }
                let took = began.elapsed();
                made.insert(port, ConnectResult { outcome, took });
            }
            Ok(())
        })?;
        Ok(())
    })?;
    server.stop()?;
    ensure!(cookies.len() == usize::from(CONNECTS), "cookies are unique");
    let (begun, addresses) = reused;
    if begun < u64::from(CONNECTS) {
        return Err(Undecided(format!("{begun} of {CONNECTS} connects had an event")).into());
    }
    ensure!(
        addresses * 4 < begun,
        "{addresses} addresses for {begun} sockets: reuse was not forced"
    );
    let watched = complete(watched)?;
    told_apart(&watched, Role::Client, &made)?;
    let accepted: BTreeMap<u16, ConnectResult> = made
        .into_iter()
        .filter(|(_, made)| made.outcome == Outcome::Established)
        .collect();
    told_apart(&watched, Role::Server, &accepted)?;
    figure(format!(
        "{begun} sockets at {addresses} addresses: {} cookies, each handshake once",
        cookies.len()
    ));
    Ok(())
}

/// Each port's handshake is reported once, with its outcome, a unique id, and at most its actual duration.
fn told_apart(watched: &WatchedRun, role: Role, made: &BTreeMap<u16, ConnectResult>) -> Result<()> {
    let mut told: HashMap<u16, &Handshake> = HashMap::new();
    let mut ids = HashSet::new();
    for (_, h) in watched.handshakes() {
        if h.connection.role != role {
            continue;
        }
        let port = match role {
            Role::Client => h.connection.local_port,
            Role::Server => h.connection.peer_port,
        };
        ensure!(ids.insert(h.connection.id), "an id twice: {h:?}");
        if let Some(other) = port.and_then(|port| told.insert(port, h)) {
            bail!("told twice: {other:?} and {h:?}");
        }
    }
    ensure!(told.len() == made.len(), "{} of {}", told.len(), made.len());
    for (port, made) in made {
        let Some(h) = told.get(port) else {
            bail!("{role:?} port {port} is not told");
        };
        ensure!(h.outcome == made.outcome, "{:?}: {h:?}", made.outcome);
        let dwell = Duration::from_micros(h.dwell_us.unwrap_or(0));
        ensure!(dwell <= made.took, "it took {:?}: {h:?}", made.took);
        ensure!(h.retransmits == 0, "of another: {h:?}");
    }
    Ok(())
}

/// Half-opens that the peer ends by RST, their memory used again by the next: every one that is said to
/// have lasted has lasted, and every connection among them is its own.
pub fn requests() -> Result<()> {
    const HALF_OPENS: u16 = 3000;
    let lab = Lab::new(SocketFamily::V4)?;
    let server = Server::start(vec![lab.listen(PORT, 4096)?])?;
    let sender = RawSender::open(&lab.client, false)?;
    let to = SocketAddr::new(lab.server_ip(), PORT);
    let mut ended: HashMap<u16, Duration> = HashMap::new();
    let mut connected = HashSet::new();
    let (began, watched) = watch(options_for(&lab)?, |_| {
        let began = Instant::now();
        for n in 0..HALF_OPENS {
            let port = FIRST_PORT + n;
            let from = SocketAddr::new("198.18.128.9".parse()?, port);
            let at = Instant::now();
            sender.syn(from, to, 7)?;
            sender.rst(from, to, 8)?;
            ended.insert(port, at.elapsed());
            if n % 10 == 0 {
                // The kernel may choose a port again at once.
                let own = SocketAddr::new(lab.client_ip(), FIRST_PORT + n);
                let client = Client::connect_from(&lab.client, own, lab.server_addr(PORT))?;
                if client.seen == ConnectState::Connected {
                    connected.insert(client.local.port());
                }
                client.reset()?;
            }
        }
        Ok(began.elapsed())
    })?;
    server.stop()?;
    let watched = complete(watched)?;
    let client_ip = lab.client_ip();
    let mut told = HashSet::new();
    for (_, h) in watched.handshakes() {
        if h.connection.role != Role::Server {
            continue;
        }
        let port = h.connection.peer_port.unwrap_or(0);
        ensure!(told.insert((h.connection.peer_addr, port)), "twice: {h:?}");
        if h.connection.peer_addr == client_ip {
            ensure!(h.outcome == Outcome::Established, "{h:?}");
            ensure!(h.retransmits == 0 && h.dwell_us.is_some(), "{h:?}");
            let dwell = Duration::from_micros(h.dwell_us.unwrap_or(u64::MAX));
            ensure!(dwell < began, "{h:?}");
        } else {
            // One that a look at sock_diag has caught; most are over before.
            ensure!(ended.contains_key(&port), "{h:?}");
            ensure!(h.outcome != Outcome::Established, "{h:?}");
        }
    }
    let established = told.iter().filter(|(ip, _)| *ip == client_ip).count();
    ensure!(
        established == usize::from(HALF_OPENS / 10),
        "{established} connections among the half-opens"
    );
    let resets = lab.counters()?.server.get("EmbryonicRsts");
    ensure!(resets >= u64::from(HALF_OPENS), "{resets} EmbryonicRsts");
    figure(format!(
        "{HALF_OPENS} requests ended by RST, {established} connections among them told apart"
    ));
    Ok(())
}
