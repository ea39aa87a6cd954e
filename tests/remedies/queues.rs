//! Full queues of a listener.

use std::{
    env, fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd, FromRawFd, RawFd},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{
    Client, FaultInjector, LossPattern, RawSender, SocketFamily, TcpCounters, bare_ack, settle,
    spoofed,
};
use synprobe_tests::{agent::until, binary::signal};

use super::stage::Stage;

/// In the environment of a server process: the descriptor of its listener.
const LISTENER: &str = "SYNPROBE_REMEDIES_LISTENER";
/// One more fits.
const SHORT: i32 = 1;
const LONG: i32 = 128;

/// Accepts for ever, where this process is a server.
pub fn serve_if_asked() {
    let Some(fd) = env::var(LISTENER)
        .ok()
        .and_then(|fd| fd.parse::<RawFd>().ok())
    else {
        return;
    };
    // SAFETY: the descriptor was left open for this process, and nothing else of it uses it.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    let mut accepted = Vec::new();
    if listener.set_nonblocking(false).is_ok() {
        while let Ok((stream, _)) = listener.accept() {
            accepted.push(stream);
        }
    }
    std::process::exit(0);
}

/// A process that has a listener of the lab's server.
struct ServerProcess(Child);

impl ServerProcess {
    fn start(stage: &Stage, listener: TcpListener) -> Result<Self> {
        let fd = listener.as_raw_fd();
        let program = env::current_exe()?;
        let child = stage.lab.server.run(|| {
            let mut command = Command::new(program);
            command.env(LISTENER, fd.to_string()).stdin(Stdio::null());
            // SAFETY: fcntl() is async-signal-safe and takes no pointer here.
            unsafe {
                command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                });
            }
            command.spawn().context("starting a server")
        })?;
        Ok(Self(child))
    }

    fn stop(&self) -> Result<()> {
        signal(&self.0, libc::SIGSTOP)?;
        let file = format!("/proc/{}/stat", self.0.id());
        until("the server stops", || {
            Ok(fs::read_to_string(&file)?.contains(") T "))
        })
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already; a stopped process is killed too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects until the accept queue is full: as many as fit have room, and the next SYN gets no answer.
fn fill(stage: &Stage) -> Result<Vec<Client>> {
    let mut held = Vec::new();
    while held.len() < 8 {
        let mut client = stage.connect()?;
        if !stage.works(&mut client)? {
            held.push(client);
            return Ok(held);
        }
        held.push(client);
    }
    anyhow::bail!("the queue does not fill");
}

fn wait_retransmit(client: &Client) -> Result<()> {
    until("a SYN is sent again", || Ok(client.retransmits()? > 0))
}

/// The server's process is stopped.
pub fn stopped_process(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("accept-queue-full, a stopped process", family)?;
    let server = ServerProcess::start(&stage, stage.lab.listen(stage.port, SHORT)?)?;
    let works = stage.connects()?;
    server.stop()?;
    let mut held = Vec::new();
    let remedies = stage.told_at_server("accept-queue-full", || {
        held = fill(&stage)?;
        wait_retransmit(held.last().context("a client")?)
    })?;
    let shows = format!("kill -CONT {}", server.0.id());
    ensure!(remedies[0].contains(&shows), "{shows} is due: {remedies:?}");
    stage.mended(&remedies, &[], None, || {
        until("the process runs", || {
            let mut client = stage.connect()?;
            stage.works(&mut client)
        })?;
        stage.connects().map(drop)
    })?;
    drop((works, held));
    Ok(())
}

/// The application gave a short backlog to listen(), or net.core.somaxconn made it short.
fn short(name: &str, family: SocketFamily, backlog: i32, somaxconn: Option<&str>) -> Result<()> {
    let stage = Stage::new(name, family)?;
    if let Some(somaxconn) = somaxconn {
        stage.lab.server.set_sysctl("core/somaxconn", somaxconn)?;
    }
    let listener = stage.lab.listen(stage.port, backlog)?;
    let mut held = Vec::new();
    let remedies = stage.told_at_server("accept-queue-full", || {
        held = fill(&stage)?;
        wait_retransmit(held.last().context("a client")?)
    })?;
    let setting = "sysctl -w net.core.somaxconn=4096";
    ensure!(
        somaxconn.is_some() == remedies[0].contains(setting),
        "{remedies:?}"
    );
    // What is left to the user: a longer backlog, by a restart or a reload.
    let listens_again = || -> Result<()> {
        // SAFETY: listen() takes no pointers.
        let set = unsafe { libc::listen(listener.as_raw_fd(), LONG) };
        ensure!(set == 0, "listen(): {}", io::Error::last_os_error());
        Ok(())
    };
    stage.mended(&remedies, &[], Some(&listens_again), || {
        let mut all = Vec::new();
        for _ in 0..8 {
            all.push(stage.connects()?);
        }
        Ok(())
    })
}

pub fn somaxconn(family: SocketFamily) -> Result<()> {
    short(
        "accept-queue-full, net.core.somaxconn",
        family,
        LONG,
        Some("1"),
    )
}

pub fn backlog(family: SocketFamily) -> Result<()> {
    short("accept-queue-full, listen()'s backlog", family, SHORT, None)
}

/// Silent half-opens fill the SYN queue, and SYN cookies are off.
pub fn syn_queue(family: SocketFamily) -> Result<()> {
    const PEERS: u16 = 16;
    const HELD: usize = 13;
    let stage = Stage::new("syn-queue-full", family)?;
    let v6 = family.wire_is_v6();
    for (key, value) in [
        ("tcp_syncookies", "0"),
        ("tcp_max_syn_backlog", "16"),
        // They outlast the test on any machine.
        ("tcp_synack_retries", "12"),
    ] {
        stage.lab.server.set_sysctl(&format!("ipv4/{key}"), value)?;
    }
    let _listener = stage.lab.listen(stage.port, LONG)?;
    let sender = RawSender::open(&stage.lab.client, v6)?;
    let server = SocketAddr::new(stage.lab.server_ip(), stage.port);
    let mut clients = Vec::new();
    let remedies = stage.told_at_server("syn-queue-full", || {
        for n in 0..PEERS {
            let peer = SocketAddr::new(spoofed(v6, n), 40_000 + n);
            sender.syn(peer, server, u32::from(n) << 24)?;
        }
        until("the SYN queue is full", || {
            Ok(stage.lab.half_opens(stage.port)? >= HELD)
        })?;
        for _ in 0..2 {
            clients.push(stage.fails()?);
        }
        clients.iter().try_for_each(wait_retransmit)
    })?;
    // The half-opens are still there: room is not why it works. A table that changes while it is read may lack one.
    until("the SYN queue is full", || {
        Ok(stage.lab.half_opens(stage.port)? >= HELD)
    })?;
    stage.mended(&remedies, &["net.ipv4.tcp_syncookies = 1"], None, || {
        stage.connects().map(drop)
    })
}

/// A reload closes a listener with its half-opens, though another listens.
pub fn reload(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("listener-closed", family)?;
    let lab = &stage.lab;
    lab.server.set_sysctl("ipv4/tcp_migrate_req", "0")?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    // The final ACK is lost, and the half-open waits; the old listener is closed meanwhile.
    let mut reload = |synacks: u64| -> Result<(Client, TcpListener)> {
        let before = TcpCounters::read(&lab.server)?;
        let old = lab.listen_shared(stage.port, LONG)?;
        fault.set(0, bare_ack(), LossPattern::All, stage.port)?;
        let mut client = stage.connect()?;
        ensure!(stage.works(&mut client)?, "{:?}", client.seen);
        until("SYN-ACKs are sent again", || {
            let sent = TcpCounters::read(&lab.server)?.since(&before);
            Ok(sent.get("TCPSynRetrans") >= synacks)
        })?;
        let new = lab.listen_shared(stage.port, LONG)?;
        drop(old);
        fault.lift(0)?;
        Ok((client, new))
    };
    let remedies = stage.told_at_server("listener-closed", || {
        // The agent knows of it by then.
        let (_client, new) = reload(1)?;
        until(
            "the half-open ends",
            || Ok(lab.half_opens(stage.port)? == 0),
        )?;
        ensure!(
            new.accept()
                .is_err_and(|e| e.kind() == ErrorKind::WouldBlock),
            "the new listener has it"
        );
        Ok(())
    })?;
    stage.mended(&remedies, &["net.ipv4.tcp_migrate_req = 1"], None, || {
        let (client, new) = reload(0)?;
        until("the new listener has it", || Ok(new.accept().is_ok()))?;
        drop(client);
        Ok(())
    })
}

/// Waits for a client without a limit that the kernel's timers set.
pub fn wait_for(client: &mut Client) -> Result<()> {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    settle([client], &std::sync::atomic::AtomicBool::new(false), until)
}
