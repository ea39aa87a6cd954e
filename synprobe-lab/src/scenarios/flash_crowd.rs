use std::{
    io,
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use synprobe_common::{
    model::VerdictKind,
    sys::{fd_limit, poll},
};

use crate::{
    Cause, Client, FaultInjector, GroundTruth, Lab, LossPattern, Outcome, PORT, Side, TcpCounters,
    scenario::{Scenario, ScenarioRun},
    socket::settle,
    syn_ack,
};

const BACKLOG: i32 = 64;
const CROWD: usize = 300;
/// Clients whose first SYN-ACK is lost. They fill the SYN queue, which in some kernels takes one more
/// than the backlog; one more client finds it full.
const FIRST: usize = BACKLOG as usize + 2;
/// Clients between two rounds of accept(): more than the accept queue takes.
const BETWEEN: usize = 100;
const ROUND: Duration = Duration::from_millis(50);
/// Ends before the first retransmission, at 1 s.
const FIRST_TRY: Duration = Duration::from_millis(600);
/// Before the first SYN-ACK is repeated, at 1 s.
const FIRST_TIME_OUT: Duration = Duration::from_millis(950);

/// More real clients at once than the queues can hold.
///
/// On this link a handshake takes microseconds, so half-opens remain only where packets are lost. The
/// SYN-ACKs of the first clients are lost, which fills the SYN queue. The other clients connect by SYN
/// cookie, or find the accept queue full.
pub(super) struct FlashCrowdScenario;

impl Scenario for FlashCrowdScenario {
    fn name(&self) -> &'static str {
        "flash-crowd"
    }

    fn summary(&self) -> &'static str {
        "300 real clients at once, queues of 64: all connect, by SYN cookie or after a retransmission"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        // The clients need more than the usual 1024 descriptors.
        fd_limit::raise()?;
        lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let cookies = lab.server.try_sysctl("ipv4/tcp_syncookies", "1")?;
        let listener = lab.listen(PORT, BACKLOG)?;
        let mut fault = FaultInjector::attach(&lab.client)?;
        fault.set(0, syn_ack(), LossPattern::First(1), PORT)?;
        let begin = Instant::now();
        let mut first = Vec::new();
        for _ in 0..FIRST {
            first.push(run.connect(PORT)?);
        }
        let queue = BACKLOG as usize;
        run.wait_half_opens(PORT, queue..=FIRST)?;
        fault.lift(0)?;

        let mut others: Vec<Client> = Vec::new();
        while others.len() < CROWD - FIRST && !run.stopped() {
            let left = CROWD - FIRST - others.len();
            for _ in 0..left.min(BETWEEN) {
                others.push(run.connect(PORT)?);
            }
            run.pause(ROUND)?;
            accept_all(&listener)?;
        }
        settle(&mut others, stop, begin + FIRST_TRY)?;
        let overflows =
            || -> Result<u64> { Ok(TcpCounters::read(&lab.server)?.get("ListenOverflows")) };
        let before = overflows()?;
        // On a slow host the first SYN-ACKs are repeated while the others still overflow the queue.
        let apart = begin.elapsed() < FIRST_TIME_OUT;

        let over = AtomicBool::new(false);
        let after = thread::scope(|scope| {
            let server = scope.spawn(|| keep_accepting(&listener, &over));
            let done = (|| {
                run.settle(first.iter_mut().chain(&mut others))?;
                run.wait_no_half_opens(PORT)?;
                let after = overflows()?;
                for (n, client) in first.iter().enumerate() {
                    run.client_ended(client, Outcome::Established)?;
                    if run.stopped() {
                        break;
                    }
                    run.server_ended(client, Outcome::Established, 1..=1);
                    // The second wave may have overflowed the accept queue: whose ACK was dropped is unknown then.
                    if n < queue && after == before && apart {
                        run.with_cause(VerdictKind::FlashCrowd);
                    }
                }
                for client in &others {
                    run.client_ended(client, Outcome::Established)?;
                    if run.stopped() {
                        break;
                    }
                    run.with_cause(match client.retransmits()? {
                        0 => Cause::Healthy,
                        _ => Cause::Verdict(VerdictKind::ServerQueueFull),
                    });
                    // Most of them by SYN cookie.
                    run.server_ended(client, Outcome::Established, 1..=1);
                }
                run.finish(first.into_iter().chain(others))?;
                anyhow::Ok(after)
            })();
            over.store(true, Ordering::Relaxed);
            let served = server
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the accepting thread panicked")));
            served.context("accepting the clients")?;
            done
        })?;
        run.report_fault(&fault, 0, "first SYN-ACKs of the first 66 clients")?;
        run.note(format!(
            "{} final ACKs or SYNs were dropped after the first attempt",
            after - before
        ));
        let (all, queue) = (CROWD as u64, queue as u64);
        run.expect(Side::Client, "ActiveOpens", all..=all);
        run.expect(Side::Client, "AttemptFails", 0..=0);
        run.expect(Side::Server, "PassiveOpens", all..=all);
        run.expect(Side::Server, "ListenOverflows", 1..=all * 3);
        run.expect(Side::Server, "TCPSynRetrans", queue..=all);
        if cookies {
            run.expect(Side::Server, "SyncookiesSent", queue..=all * 3);
            run.expect(Side::Server, "SyncookiesRecv", queue..=all);
            run.expect(Side::Server, "SyncookiesFailed", 0..=0);
        }
        run.end()
    }
}

/// Accepts and closes every queued connection. The server closes first: a late segment then meets its
/// TIME_WAIT socket, not the listener, where a SYN cookie would still be valid.
fn accept_all(listener: &TcpListener) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

fn keep_accepting(listener: &TcpListener, over: &AtomicBool) -> io::Result<()> {
    while !over.load(Ordering::Relaxed) {
        if poll::readable(listener, Instant::now() + poll::SLICE)? {
            accept_all(listener)?;
        }
    }
    Ok(())
}
