//! Every record is accounted for: received plus lost records equal the produced ones, and the produced ones
//! match the namespaces' counters.

use std::{
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe::model::{Body, Line, Outcome, Role};
use synprobe_lab::{
    Lab, LabCounters, PORT, RawSender, Server, SocketFamily, TcpCounters,
    packet::{TcpSegment, flags},
};
use synprobe_tests::{
    harness::{self, Case, family_name, figure},
    pipeline_run::{AMPLE_RING, WatchedRun, options_for, watch},
};

/// Of each of the two storms in a run.
const CONNECTIONS: u64 = 1500;
/// How a `lost` line calls what the kernel skipped.
const SKIPPED: &str = "same program";
/// The smallest ring there can be: some thirty records.
const TINY_RING: u32 = 4096;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for family in SocketFamily::ALL {
        cases.push(Case::for_family("ring-too-small", family, too_small));
        cases.push(Case::for_family("ring-ample", family, ample));
    }
    cases.push(Case::for_family("icmp-storm", SocketFamily::V4, icmp_storm));
    // Each is a storm already.
    harness::main_with(cases, 2)
}

fn too_small(family: SocketFamily) -> Result<()> {
    let (moved, watched) = storm(family, TINY_RING)?;
    let end = &watched.end;
    conserved(&moved, &watched)?;
    ensure!(
        end.lost > 0 && end.events > 0,
        "too small a ring loses some and not all: {end:?}"
    );
    // Each line says what was lost, and what would help.
    for lost in watched.lost() {
        ensure!(lost.events > 0, "an empty loss: {lost:?}");
        let reason = &lost.reason;
        ensure!(
            reason.contains("ring was full") || reason.contains(SKIPPED),
            "another reason: {lost:?}"
        );
    }
    figure(format!(
        "{} ring of {TINY_RING} bytes: {} produced = {} received + {} lost",
        family_name(family),
        end.produced,
        end.events,
        end.lost
    ));
    Ok(())
}

fn ample(family: SocketFamily) -> Result<()> {
    let (moved, watched) = storm(family, AMPLE_RING)?;
    conserved(&moved, &watched)?;
    ensure!(
        watched.lost().all(|lost| lost.reason.contains(SKIPPED)),
        "an ample ring was full: {:?}",
        watched.end
    );
    let watched = watched.complete()?;
    let established = [
        (Role::Client, moved[0].client.get("ActiveOpens")),
        (Role::Server, moved[0].server.get("PassiveOpens")),
    ];
    for (role, counted) in established {
        let seen = watched.count(role, Outcome::Established);
        ensure!(
            seen == counted,
            "{role:?}: {seen} established, {counted} counted"
        );
    }
    let all = watched.handshakes().count() as u64;
    ensure!(
        all == 4 * CONNECTIONS,
        "{all} handshake lines of {} ends",
        4 * CONNECTIONS
    );
    Ok(())
}

/// ICMP errors that nobody could read in time are a loss like others, of evidence.
fn icmp_storm(family: SocketFamily) -> Result<()> {
    const ERRORS: usize = 3000;
    let lab = Lab::new(family)?;
    let error = icmp_error(&lab)?;
    let router = RawSender::open(&lab.server, false)?;
    let to = SocketAddr::new(lab.client_ip(), 0);
    let (_, watched) = watch(options_for(&lab)?, |live| {
        // They are listened to from the first survey on.
        let until = Instant::now() + Duration::from_secs(30);
        let told = |line: &Line| matches!(&line.body, Body::Lost(l) if l.reason.contains("ICMP"));
        while !live.lines().iter().any(told) {
            ensure!(Instant::now() < until, "no line tells of lost ICMP errors");
            (0..ERRORS).try_for_each(|_| router.packet(&error, to))?;
        }
        Ok(())
    })?;
    let end = &watched.end;
    let said: u64 = watched.lost().map(|lost| lost.events).sum();
    ensure!(
        end.lost == said && end.events + end.lost == end.produced,
        "{said} said: {end:?}"
    );
    for lost in watched.lost() {
        ensure!(!lost.is_of_handshakes(), "no handshake was lost: {lost:?}");
    }
    Ok(())
}

/// The server's port unreachable, about a SYN of the client, IPv4.
fn icmp_error(lab: &Lab) -> Result<Vec<u8>> {
    let segment = |source, destination| TcpSegment {
        source: SocketAddr::new(source, PORT),
        destination: SocketAddr::new(destination, PORT),
        seq: 1,
        ack: 0,
        flags: flags::SYN,
        payload_len: 0,
    };
    let (client, server) = (lab.client_ip(), lab.server_ip());
    let syn = segment(client, server).to_ip().context("one family")?;
    let mut packet = segment(server, client).to_ip().context("one family")?;
    packet.truncate(20);
    packet[9] = libc::IPPROTO_ICMP as u8;
    packet.extend([3, 3, 0, 0, 0, 0, 0, 0]);
    packet.extend(syn);
    let words = packet[20..].chunks_exact(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = !(((sum >> 16) + (sum & 0xffff)) as u16);
    packet[22..24].copy_from_slice(&folded.to_be_bytes());
    Ok(packet)
}

fn conserved([moved, after]: &[LabCounters; 2], watched: &WatchedRun) -> Result<()> {
    let end = &watched.end;
    // A program that the kernel skipped, because it was running on that CPU already, counts as a record
    // that was lost, though nobody knows whether the filter would have let the event through.
    let skipped: u64 = watched
        .lost()
        .filter(|lost| lost.reason.contains(SKIPPED))
        .map(|lost| lost.events)
        .sum();
    ensure!(
        end.events + end.lost == end.produced,
        "received and lost is not produced, {skipped} skipped: {end:?}"
    );
    let said: u64 = watched.lost().map(|lost| lost.events).sum();
    ensure!(
        said == end.lost,
        "the lost lines tell of {said}, the end of {}",
        end.lost
    );
    // CLOSE->SYN_SENT->ESTABLISHED there, LISTEN->SYN_RECV->ESTABLISHED here; nothing else happened.
    let (active, passive) = (
        moved.client.get("ActiveOpens"),
        moved.server.get("PassiveOpens"),
    );
    ensure!(
        (active, passive) == (2 * CONNECTIONS, 2 * CONNECTIONS),
        "{active} active and {passive} passive opens"
    );
    for side in [&moved.client, &moved.server] {
        ensure!(
            side.get("TCPSynRetrans") == 0 && side.get("AttemptFails") == 0,
            "a storm without retransmissions: {:?}",
            side.moved().collect::<Vec<_>>()
        );
    }
    // A FIN that found a full backlog is retransmitted later, perhaps after the run.
    let again =
        |moved: &LabCounters| moved.client.get("RetransSegs") + moved.server.get("RetransSegs");
    // One that could not be sent, as the first was still in a queue, raises the tracepoint too.
    let in_queue = |side: &TcpCounters| side.get("TCPSpuriousRtxHostQueues");
    let most = again(after) + in_queue(&after.client) + in_queue(&after.server);
    let handshakes = 2 * (active + passive);
    let due = handshakes + again(moved)..=handshakes + most + skipped;
    ensure!(
        due.contains(&end.produced),
        "{} produced, {skipped} skipped, of {active} active and {passive} passive opens and {} to \
         {most} retransmissions",
        end.produced,
        again(moved)
    );
    Ok(())
}

/// Two threads connect and close as fast as they can; how far the counters had moved when they were
/// done, and when the watch was over.
fn storm(family: SocketFamily, ring_bytes: u32) -> Result<([LabCounters; 2], WatchedRun)> {
    let lab = Lab::new(family)?;
    let mut options = options_for(&lab)?;
    options.ring_bytes = ring_bytes;
    // A full accept queue would have SYNs repeated.
    lab.server.set_sysctl("core/somaxconn", "8192")?;
    let server = Server::start(vec![lab.listen(PORT, 8192)?])?;
    let before = lab.counters()?;
    let target = lab.server_addr(PORT);
    let (moved, watched) = watch(options, |_| {
        thread::scope(|scope| {
            let storms = [
                scope.spawn(|| connect(&lab, target)),
                scope.spawn(|| connect(&lab, target)),
            ];
            storms
                .into_iter()
                .try_for_each(|storm| storm.join().unwrap_or_else(|_| anyhow::bail!("a panic")))
        })?;
        // The last final ACKs may still be on their way.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let moved = lab.counters()?.since(&before);
            if moved.server.get("PassiveOpens") >= 2 * CONNECTIONS || Instant::now() > until {
                return Ok(moved);
            }
            thread::yield_now();
        }
    })?;
    let after = lab.counters()?.since(&before);
    server.stop()?;
    Ok(([moved, after], watched))
}

fn connect(lab: &Lab, target: SocketAddr) -> Result<()> {
    lab.client.run(|| {
        for _ in 0..CONNECTIONS {
            drop(TcpStream::connect(target)?);
        }
        Ok(())
    })
}
