use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use synprobe_common::model::VerdictKind;

use crate::Cause;
use crate::scenario::{Run, Scenario};
use crate::socket::settle;
use crate::{Client, Counters, Fault, Lab, Lose, Made, Outcome, PORT, Seen, Side, syn_ack};
use synprobe_common::sys::fd_limit;
use synprobe_common::sys::poll;

const BACKLOG: i32 = 64;
const CROWD: usize = 300;
/// Those whose first SYN-ACK is lost: they fill the SYN queue, in some kernels one more than the
/// backlog, and one to find it full.
const FIRST: usize = BACKLOG as usize + 2;
/// How many come between two turns of accept(): more than the accept queue takes.
const BETWEEN: usize = 100;
const TURN: Duration = Duration::from_millis(50);
/// Before anything is sent again, at 1 s.
const FIRST_TRY: Duration = Duration::from_millis(600);

/// Real clients, more at once than the queues were made for.
///
/// In a crowd packets are lost, and that is what makes half-opens stay: on this link a handshake takes
/// microseconds. The first clients' SYN-ACKs are, so that the SYN queue is full and the others come in
/// by cookie, or find the accept queue full.
pub(super) struct FlashCrowd;

impl Scenario for FlashCrowd {
    fn name(&self) -> &'static str {
        "flash-crowd"
    }

    fn summary(&self) -> &'static str {
        "300 real clients at once, queues of 64: all come in, by cookie or at a second try"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        // A crowd needs more than the usual 1024.
        fd_limit::raise()?;
        lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let cookies = lab.server.try_sysctl("ipv4/tcp_syncookies", "1")?;
        let listener = lab.listen(PORT, BACKLOG)?;
        let mut fault = Fault::attach(&lab.client)?;
        fault.set(0, syn_ack(), Lose::First(1), PORT)?;
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
            run.pause(TURN)?;
            accept_all(&listener)?;
        }
        settle(&mut others, stop, begin + FIRST_TRY)?;
        let at_once: Vec<_> = others.iter().map(|c| c.seen == Seen::Connected).collect();
        let overflows =
            || -> Result<u64> { Ok(Counters::read(&lab.server)?.get("ListenOverflows")) };
        let before = overflows()?;

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
                    // A final ACK may have been refused in the second wave: then nobody knows whose.
                    if n < queue && after == before {
                        run.with_cause(VerdictKind::FlashCrowd);
                    }
                }
                for (client, at_once) in others.iter().zip(at_once) {
                    run.client_ended(client, Outcome::Established)?;
                    if run.stopped() {
                        break;
                    }
                    run.with_cause(if at_once {
                        Cause::Healthy
                    } else {
                        Cause::Verdict(VerdictKind::ServerQueueFull)
                    });
                    // By cookie, most of them.
                    run.server_ended(client, Outcome::Established, 1..=1);
                }
                run.finish(first.into_iter().chain(others))?;
                anyhow::Ok(after)
            })();
            over.store(true, Ordering::Relaxed);
            let served = server
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            served.context("the server of the crowd")?;
            done
        })?;
        run.report_fault(&fault, 0, "first SYN-ACKs of the crowd's first 66")?;
        run.note(format!(
            "{} final ACKs or SYNs were refused after the first try",
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

/// Takes all that the queue holds and closes it: the server closes first, so that whatever of a
/// connection comes late meets its TIME_WAIT and not the listener, where a cookie would still be valid.
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
