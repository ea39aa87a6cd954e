use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use synprobe_common::sys::poll::{self, interest};

use crate::{
    Client, GroundTruth, Lab, PORT, Side,
    scenario::{Scenario, ScenarioRun},
    socket::{self, reset_at_close},
};

/// A proxy that accepts and resets.
const PROXY: u16 = PORT;
/// A listener that is closed with connections in its accept queue.
const CLOSED: u16 = PORT + 1;
/// A server whose connections are reset later, or by the client.
const SERVER: u16 = PORT + 2;
/// Clients of the proxy that are reset before they send anything, and clients whose request it does not read.
const EACH: usize = 3;
const QUEUED: usize = 2;
/// From the handshake to the reset.
const UPSTREAM_FAILS: Duration = Duration::from_millis(60);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// The peer completes the handshake and resets the connection before it has sent anything.
pub(super) struct ResetAfterHandshakeScenario;

/// Accepts a connection.
fn accept(run: &ScenarioRun<'_>, listener: &TcpListener) -> Result<TcpStream> {
    let mut row = [interest(listener.as_raw_fd(), libc::POLLIN)];
    poll::wait(&mut row, run.deadline)?;
    let (stream, _) = listener.accept().context("accepting")?;
    Ok(stream)
}

/// A connected client, and when it called connect().
type Connected = (Client, Instant);

/// A connection that is older is none that is reset right after its handshake.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Waits until the RST has ended a client's connection. A note says if that was too late.
fn wait_reset(run: &mut ScenarioRun<'_>, (client, since): &Connected) -> Result<()> {
    socket::wait_reset(client, run.stop, run.deadline)?;
    if since.elapsed() >= AT_ONCE {
        run.note(format!(
            "{} was reset more than a second after connect(): the machine is too busy",
            client.local
        ));
    }
    Ok(())
}

/// Waits until there is something to read.
fn wait_readable(run: &ScenarioRun<'_>, stream: &TcpStream) -> Result<()> {
    let mut row = [interest(stream.as_raw_fd(), libc::POLLIN)];
    while !run.stopped() && row[0].revents == 0 {
        run.check_deadline()?;
        poll::wait(&mut row, Instant::now() + poll::SLICE)?;
    }
    Ok(())
}

impl ResetAfterHandshakeScenario {
    fn connected(run: &mut ScenarioRun<'_>, port: u16) -> Result<Connected> {
        let since = Instant::now();
        let mut client = run.connect(port)?;
        run.settle([&mut client])?;
        run.both_healthy(&client)?;
        Ok((client, since))
    }

    /// The proxy's upstream is down.
    fn proxy(run: &mut ScenarioRun<'_>, proxy: &TcpListener) -> Result<()> {
        for _ in 0..EACH {
            let client = Self::connected(run, PROXY)?;
            let accepted = accept(run, proxy)?;
            run.pause(UPSTREAM_FAILS)?;
            reset_at_close(&accepted)?;
            drop(accepted);
            wait_reset(run, &client)?;
        }
        for _ in 0..EACH {
            let mut client = Self::connected(run, PROXY)?;
            client.0.stream.write_all(REQUEST)?;
            let accepted = accept(run, proxy)?;
            wait_readable(run, &accepted)?;
            // What is closed with unread data is reset (RFC 2525, section 2.17).
            drop(accepted);
            wait_reset(run, &client)?;
        }
        let mut client = Self::connected(run, PROXY)?;
        drop(accept(run, proxy)?);
        wait_readable(run, &client.0.stream)?;
        client.0.stream.write_all(REQUEST)?;
        wait_reset(run, &client)
    }

    /// What looks alike and is not it.
    fn neighbours(run: &mut ScenarioRun<'_>, server: &TcpListener) -> Result<()> {
        // The peer has answered before it resets.
        let mut client = Self::connected(run, SERVER)?;
        let mut accepted = accept(run, server)?;
        accepted.write_all(REQUEST)?;
        wait_readable(run, &client.0.stream)?;
        client.0.stream.read_exact(&mut [0; REQUEST.len()])?;
        reset_at_close(&accepted)?;
        drop(accepted);
        wait_reset(run, &client)?;
        // The client resets, as a health check does.
        let client = Self::connected(run, SERVER)?;
        let accepted = accept(run, server)?;
        client.0.reset()?;
        wait_readable(run, &accepted)?;
        // The client closes first, and nobody waits for what comes then.
        let client = Self::connected(run, SERVER)?;
        let accepted = accept(run, server)?;
        client.0.stream.shutdown(Shutdown::Both)?;
        wait_readable(run, &accepted)?;
        reset_at_close(&accepted)?;
        drop(accepted);
        Ok(())
    }
}

impl Scenario for ResetAfterHandshakeScenario {
    fn name(&self) -> &'static str {
        "reset-after-handshake"
    }

    fn summary(&self) -> &'static str {
        "a proxy accepts and resets at once, a listener is closed with its accept queue"
    }

    fn nominal_seconds(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [u16] {
        &[PROXY, CLOSED, SERVER]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let (proxy, server) = (lab.listen(PROXY, 128)?, lab.listen(SERVER, 128)?);
        Self::proxy(&mut run, &proxy)?;
        Self::neighbours(&mut run, &server)?;

        let closed = lab.listen(CLOSED, 128)?;
        let mut queued = Vec::new();
        for _ in 0..QUEUED {
            queued.push(Self::connected(&mut run, CLOSED)?);
        }
        run.wait_established(CLOSED, QUEUED)?;
        drop(closed);
        for client in &queued {
            wait_reset(&mut run, client)?;
        }
        let (resets, own) = ((2 * EACH + 1 + QUEUED) as u64, 2);
        run.expect(Side::Client, "ActiveOpens", resets + 3..=resets + 3);
        run.expect(Side::Server, "PassiveOpens", resets + 3..=resets + 3);
        // Those that ended in ESTABLISHED or CLOSE_WAIT: not the one that the client closed.
        run.expect(Side::Client, "EstabResets", resets + own..=resets + own);
        run.expect(Side::Client, "RetransSegs", 0..=0);
        run.end()
    }
}
