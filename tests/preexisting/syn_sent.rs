//! Active opens whose SYNs were lost before the agent started.

use std::{sync::atomic::AtomicBool, time::Instant};

use anyhow::{Context, Result, ensure};
use synprobe::model::{Body, DwellSource, Handshake, Line, Outcome, Role};
use synprobe_lab::{
    Client, ConnectState, FaultInjector, Lab, LossPattern, PORT, SocketFamily, capture::Capture,
    settle, syn,
};
use synprobe_tests::{
    pipeline_run::{Live, WatchedRun, options_for, watch},
    wire::{SYN, SYN_ACK, WireTimes, listener},
};

use super::{PATIENCE, YOUNG, bounded, ended_as, exactly, expiry, until};

/// A client whose SYNs are lost, 0.4 s old when the watch begins.
fn watched(
    family: SocketFamily,
    retries: &str,
    then: impl FnOnce(&Live, &mut FaultInjector<'_>, &mut Client) -> Result<()>,
) -> Result<(WatchedRun, Client, Vec<u64>, WireTimes)> {
    let lab = Lab::new(family)?;
    lab.client.set_sysctl("ipv4/tcp_syn_retries", retries)?;
    lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "0")?;
    let _listener = listener(&lab, &lab.server)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, syn(), LossPattern::All, PORT)?;
    let capture = Capture::start(&lab.client)?;
    let began = Instant::now();
    let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
    until(began, YOUNG);
    let (_, watched) = watch(options_for(&lab)?, |live| {
        then(live, &mut fault, &mut client)
    })?;
    let watched = watched.complete()?;
    let wire = WireTimes::of(capture)?;
    let syns = wire.times(SYN, true, client.local.port(), PORT);
    Ok((watched, client, syns, wire))
}

/// The client's side of what was watched; the server's too where it completed.
fn client_end(watched: &WatchedRun) -> Result<(u64, &Handshake)> {
    let mut ends = watched
        .handshakes()
        .filter(|(_, h)| h.connection.role == Role::Client);
    let end = ends.next().context("a client's handshake line")?;
    ensure!(ends.next().is_none(), "one line: {:#?}", watched.json);
    Ok(end)
}

fn client_ended(line: &Line) -> bool {
    matches!(&line.body, Body::Handshake(h) if h.connection.role == Role::Client)
}

/// Its retries are used up.
pub fn times_out(family: SocketFamily) -> Result<()> {
    let (watched, client, syns, _) = watched(family, "1", |live, _, client| {
        let until = Instant::now() + PATIENCE;
        settle([client], &AtomicBool::new(false), until)?;
        live.wait_for("its end", PATIENCE, client_ended)?;
        Ok(())
    })?;
    ensure!(client.seen == ConnectState::Failed(libc::ETIMEDOUT));
    let [first, second] = exactly(&syns)?;
    let end = client_end(&watched)?;
    ended_as(end.1, Outcome::TimedOut, DwellSource::SockDiag)?;
    ensure!(end.1.retransmits == 1, "{end:?}");
    bounded(end, first, expiry(second, 2))
}

/// Its next SYN gets through.
pub fn completes(family: SocketFamily) -> Result<()> {
    let (watched, client, syns, wire) = watched(family, "5", |live, fault, _| {
        live.wait_for("its SYN again", PATIENCE, |line| {
            matches!(line.body, Body::Retransmit(_))
        })?;
        fault.lift(0)?;
        live.wait_for("its end", PATIENCE, client_ended)?;
        Ok(())
    })?;
    let answered = wire.first(SYN_ACK, false, client.local.port(), PORT)?;
    let end = client_end(&watched)?;
    ended_as(end.1, Outcome::Established, DwellSource::SockDiag)?;
    let first = *syns.first().context("a SYN")?;
    bounded(end, first, answered..=answered)
}

/// Its application closes it.
pub fn abandoned(family: SocketFamily) -> Result<()> {
    let (watched, _, syns, _) = watched(family, "5", |live, _, client| {
        // Found by the first dump, which is over when the next one begins, a second later.
        live.wait_for("its SYN again", PATIENCE, |line| {
            matches!(line.body, Body::Retransmit(_))
        })?;
        let stream = client.stream.try_clone()?;
        stream.shutdown(std::net::Shutdown::Both)?;
        live.wait_for("its end", PATIENCE, client_ended)?;
        Ok(())
    })?;
    let end = client_end(&watched)?;
    ended_as(end.1, Outcome::Abandoned, DwellSource::SockDiag)?;
    let first = *syns.first().context("a SYN")?;
    let last = *syns.last().context("a SYN")?;
    // After the second SYN, and before the third was due.
    bounded(end, first, last..=last + 2_000_000_000)
}
