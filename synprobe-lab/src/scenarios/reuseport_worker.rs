use std::{
    io,
    net::TcpListener,
    os::fd::AsRawFd,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe_common::model::VerdictKind;

use crate::{
    Client, GroundTruth, Lab, Outcome, PORT, Server, Side, TcpCounters,
    scenario::{Scenario, ScenarioRun},
    socket::{ConnectState, settle},
};

/// Of each socket; one more fits.
const BACKLOG: i32 = 1;
/// Clients that the stopped worker's socket refuses.
const REFUSED: usize = 3;
/// Connects, half of which go to each socket: fewer than five for one of them does not happen.
const MOST: usize = 60;
/// The applications' SYNs leave at 0, 1 and 2 s.
const PATIENCE: Duration = Duration::from_millis(2500);
const RETRIES: u64 = 2;

/// One of two workers that share a port by SO_REUSEPORT is stopped: its socket's queue fills, and half of
/// the clients hang.
pub(super) struct ReuseportWorkerScenario;

/// A stopped process that holds a listener and nothing else.
struct StoppedWorker(libc::pid_t);

impl StoppedWorker {
    fn hold(listener: TcpListener) -> Result<Self> {
        let fd = listener.as_raw_fd();
        // SAFETY: the child calls async-signal-safe functions alone: this process has other threads.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // Descriptors that it inherits would keep sockets and namespaces alive.
            for other in 3..4096 {
                if other != fd {
                    // SAFETY: closing a number that is not open fails, without effect.
                    unsafe { libc::close(other) };
                }
            }
            // Whoever continues it finds that it has ended.
            // SAFETY: neither takes a pointer.
            unsafe {
                libc::raise(libc::SIGSTOP);
                libc::_exit(0);
            }
        }
        ensure!(pid > 0, "fork: {}", io::Error::last_os_error());
        let worker = Self(pid);
        let mut status = 0;
        // SAFETY: the status is alive for the call.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) };
        ensure!(
            waited == pid && libc::WIFSTOPPED(status),
            "the worker did not stop: {status}"
        );
        drop(listener);
        Ok(worker)
    }
}

impl Drop for StoppedWorker {
    fn drop(&mut self) {
        // SAFETY: it is our child, and not waited for yet: its number is its own.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Waits until a connect() has succeeded or was refused by a full queue; returns whether it was refused.
fn is_refused(run: &ScenarioRun<'_>, client: &mut Client, overflows: u64) -> Result<bool> {
    loop {
        settle(
            [&mut *client],
            run.stop,
            Instant::now() + Duration::from_millis(2),
        )?;
        if client.seen != ConnectState::Pending || run.stopped() {
            return Ok(false);
        }
        if TcpCounters::read(&run.lab.server)?.get("ListenOverflows") > overflows {
            return Ok(true);
        }
        run.check_deadline()?;
    }
}

impl Scenario for ReuseportWorkerScenario {
    fn name(&self) -> &'static str {
        "reuseport-worker"
    }

    fn summary(&self) -> &'static str {
        "one of two workers on a port (SO_REUSEPORT) is stopped: its queue is full, half of the clients hang"
    }

    fn nominal_seconds(&self) -> u32 {
        4
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let working = lab.listen_shared(PORT, 128)?;
        let stopped = StoppedWorker::hold(lab.listen_shared(PORT, BACKLOG)?)?;
        let server = Server::start(vec![working])?;
        let (mut refused, mut served) = (Vec::new(), Vec::new());
        let mut last = Instant::now();
        while refused.len() < REFUSED && !run.stopped() {
            ensure!(served.len() < MOST, "no client came to the stopped worker");
            let before = TcpCounters::read(&lab.server)?.get("ListenOverflows");
            last = Instant::now();
            let mut client = run.connect(PORT)?;
            match is_refused(&run, &mut client, before)? {
                true => refused.push(client),
                false => served.push(client),
            }
        }
        settle(&mut refused, stop, last + PATIENCE)?;
        for client in &served {
            run.both_healthy(client)?;
        }
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        for client in &refused {
            run.client_ended(client, Outcome::Abandoned)?;
            run.with_cause(VerdictKind::ServerQueueFull);
        }
        let opens = (served.len() + refused.len()) as u64;
        drop(refused);
        for client in served {
            client.reset()?;
        }
        drop(stopped);
        server.stop().context("the working worker")?;
        run.expect(Side::Client, "ActiveOpens", opens..=opens);
        let least = REFUSED as u64 * (retries + 1);
        run.expect(
            Side::Server,
            "ListenOverflows",
            least..=least + REFUSED as u64,
        );
        run.expect_retransmits(Side::Server, "synack", 0..=0);
        run.end()
    }
}
