//! The load: connections over 127.0.0.0/8, opened, accepted and closed at full speed.
//!
//! It runs in a separate process with its own network namespace. Its settings do not affect the host,
//! and the host's firewall does not affect it. Each thread has its own listener, at [`PORT`] and
//! upwards, and connects to it by as many addresses as peers are wanted.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::process::ChildProcess;

/// The first port that the load listens on.
pub const PORT: u16 = 8080;

/// Settings of the load's namespace.
const SETTINGS: [(&str, &str); 2] = [
    // A connection in TIME_WAIT holds its port for a minute, and ports would run out in seconds.
    // With this limit the kernel frees it at once, as on a busy host.
    ("tcp_max_tw_buckets", "0"),
    ("ip_local_port_range", "1024 65535"),
];

/// `cargo xtask bench-load`: reads lines of milliseconds and number of peers; answers each with a
/// [`Sample`].
#[derive(Args)]
pub struct LoadArgs {
    #[arg(long)]
    threads: u8,
    /// Ports, one a thread at least
    #[arg(long, default_value_t = 1)]
    ports: u16,
}

/// The result of one period of load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Connections opened, accepted and closed.
    pub connections: u64,
    /// Duration, seconds.
    pub seconds: f64,
}

impl Sample {
    /// Connections per second.
    pub fn rate(&self) -> f64 {
        self.connections as f64 / self.seconds
    }
}

/// Handle of the load's process.
pub struct Load {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Ends the process when dropped.
    _process: ChildProcess,
}

impl Load {
    /// Starts the process; it makes no load yet.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start(threads: usize) -> Result<Self> {
        Self::with_ports(threads, 1)
    }

    /// As [`Load::start`], to so many ports, each in its turn.
    ///
    /// # Errors
    ///
    /// As [`Load::start`].
    pub fn with_ports(threads: usize, ports: u16) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bench-load", "--threads", &threads.to_string()])
            .args(["--ports", &ports.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = ChildProcess::spawn(&mut command, libc::SIGKILL)?;
        let (input, output) = process.pipes().context("the load's pipes")?;
        Ok(Self {
            input,
            output: BufReader::new(output),
            _process: process,
        })
    }

    /// Makes load for `length`, with one peer.
    ///
    /// # Errors
    ///
    /// When the load failed; the process prints the reason on standard error.
    pub fn run(&mut self, length: Duration) -> Result<Sample> {
        self.run_with(length, 1)
    }

    /// As [`Load::run`], with `peers` peers.
    ///
    /// # Errors
    ///
    /// As [`Load::run`].
    pub fn run_with(&mut self, length: Duration, peers: u16) -> Result<Sample> {
        writeln!(self.input, "{} {peers}", length.as_millis())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).context("the load failed")
    }
}

/// The main function of the load process.
///
/// # Errors
///
/// When the namespace cannot be made or a connection fails.
pub fn load(args: &LoadArgs) -> Result<()> {
    enter_namespace()?;
    let threads = u16::from(args.threads.max(1));
    let ports = (0..args.ports.max(threads)).map(|i| PORT + i);
    let listeners = ports
        .map(|port| TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))
        .collect::<io::Result<Vec<_>>>()
        .context("listening")?;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (millis, peers) = line.trim().split_once(' ').context("two numbers")?;
        let (length, peers) = (Duration::from_millis(millis.parse()?), peers.parse()?);
        let began = Instant::now();
        let deadline = began + length;
        let results: Vec<io::Result<u64>> = thread::scope(|scope| {
            let threads: Vec<_> = listeners
                .chunks(listeners.len().div_ceil(threads.into()))
                .map(|of_thread| scope.spawn(move || connect_until(of_thread, deadline, peers)))
                .collect();
            let joined = threads.into_iter().map(|thread| {
                let died = || io::Error::other("a thread of the load panicked");
                thread.join().unwrap_or_else(|_| Err(died()))
            });
            joined.collect()
        });
        let seconds = began.elapsed().as_secs_f64();
        let mut connections = 0;
        for result in results {
            connections += result.context("a connection of the load")?;
        }
        let sample = Sample {
            connections,
            seconds,
        };
        writeln!(out, "{}", serde_json::to_string(&sample)?)?;
        out.flush()?;
    }
    Ok(())
}

/// Opens, accepts and closes connections. The client closes first, as most clients do.
fn connect_until(listeners: &[TcpListener], deadline: Instant, peers: u16) -> io::Result<u64> {
    let with_ports = listeners.iter().map(|l| Ok((l, l.local_addr()?.port())));
    let listeners = with_ports.collect::<io::Result<Vec<_>>>()?;
    let mut next = listeners.iter().cycle();
    let mut connections = 0;
    while Instant::now() < deadline
        && let Some((listener, port)) = next.next()
    {
        let [high, low] = ((connections % u64::from(peers)) as u16).to_be_bytes();
        let address = SocketAddrV4::new(Ipv4Addr::new(127, 1, high, low), *port);
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
        connections += 1;
    }
    Ok(connections)
}

/// Makes a network namespace for this process, with its loopback device up.
pub(super) fn enter_namespace() -> Result<()> {
    // SAFETY: unshare takes flags only, and this process has a single thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(anyhow!(io::Error::last_os_error()).context("a network namespace"));
    }
    link_up("lo").context("bringing lo up")?;
    for (name, value) in SETTINGS {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, value).context(path)?;
    }
    Ok(())
}

fn link_up(name: &str) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: ifreq is plain data; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request lives on this stack, is as large as the kernel expects, and its name ends
    // with a zero.
    if unsafe { libc::ioctl(fd, libc::SIOCGIFFLAGS as _, &mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: as above.
    if unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
