//! Handshakes that began before the agent started.

mod syn_sent;

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use synprobe::{
    model::{Body, DwellSource, Handshake, Line, Outcome, Retransmit, Role, TcpState},
    pipeline::WatchOptions,
};
use synprobe_lab::{
    Client, FaultInjector, Lab, LossPattern, PORT, RawSender, SocketFamily, bare_ack,
    capture::Capture, raw_peer::RawPeer, settle,
};
use synprobe_tests::{
    harness::{self, Case, Undecided, family_name, figure},
    pipeline_run::{Live, WatchedRun, options_for, watch},
    wire::{ACK, SYN_ACK, WireTimes, listener, off_us},
};

const PATIENCE: Duration = Duration::from_secs(40);
/// The first dump is asked for at once.
const FOUND_WITHIN: Duration = Duration::from_secs(4);
/// The two stamps of one SYN-ACK, at its making and on the wire; a tick where sock_diag tells.
const STAMP_US: u64 = 1000;
/// Long after the SYN-ACK and long before its first time-out: half-opens of this age are found.
const YOUNG: Duration = Duration::from_millis(400);
/// Between the first time-out (1 to 1.13 s) and the second (3 to 3.4 s).
const ONCE_AGAIN: Duration = Duration::from_millis(1400);

/// One way for a handshake that was there before to go on.
type FamilyTest = fn(SocketFamily) -> Result<()>;

fn main() -> ExitCode {
    let tests: [(&str, FamilyTest); 10] = [
        (
            "half-open::exact-once-sent-again-then-expires",
            expires_exact,
        ),
        ("half-open::expires-unseen", expires_bounded),
        ("half-open::listener-closed", listener_closed),
        ("half-open::sent-again-before-and-after", sent_again),
        ("half-open::reset", reset),
        ("half-open::completes-young", completes_young),
        ("half-open::completes-after-being-sent-again", completes_old),
        ("syn-sent::times-out", syn_sent::times_out),
        ("syn-sent::completes", syn_sent::completes),
        ("syn-sent::abandoned", syn_sent::abandoned),
    ];
    let mut cases = Vec::new();
    for (name, test) in tests {
        for family in SocketFamily::ALL {
            cases.push(Case::for_family(name, family, test));
        }
    }
    // Each must be attached well within the first second of its half-open.
    harness::main_with(cases, 4)
}

/// Waits until so long after `since`: the state that a test is about is a matter of the kernel's
/// timers, which have no event for it yet.
fn until(since: Instant, age: Duration) {
    std::thread::sleep(age.saturating_sub(since.elapsed()));
}

/// One half-open of a peer that says nothing more, in the namespace of the lab's server.
struct HalfOpen {
    lab: Lab,
    sender: RawSender,
    source: SocketAddr,
    server: SocketAddr,
    listener: Option<std::net::TcpListener>,
    capture: Capture,
    made: Instant,
}

const PEER_PORT: u16 = 40_000;
const ISN: u32 = 0xffff_ffff;

impl HalfOpen {
    fn make(family: SocketFamily, retries: &str) -> Result<Self> {
        let lab = Lab::new(family)?;
        lab.server.set_sysctl("ipv4/tcp_synack_retries", retries)?;
        let listener = Some(listener(&lab, &lab.server)?);
        let capture = Capture::start(&lab.server)?;
        let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
        // Beyond the client: routed there, nobody's.
        let nobody = match family.wire_is_v6() {
            true => "fd00:5950:f::9".parse()?,
            false => "198.18.128.9".parse()?,
        };
        let source = SocketAddr::new(nobody, PEER_PORT);
        let server = SocketAddr::new(lab.server_ip(), PORT);
        let made = Instant::now();
        sender.syn(source, server, ISN)?;
        let half = Self {
            lab,
            sender,
            source,
            server,
            listener,
            capture,
            made,
        };
        ensure!(half.lab.half_opens(PORT)? == 1, "there is a half-open");
        Ok(half)
    }

    fn options(&self) -> Result<WatchOptions> {
        options_for(&self.lab)
    }

    /// The SYN-ACKs as they left.
    fn syn_acks(capture: Capture) -> Result<Vec<u64>> {
        Ok(WireTimes::of(capture)?.times(SYN_ACK, true, PORT, PEER_PORT))
    }
}

/// So many transmissions as the test is about: the wire is not synprobe's, another number means that
/// the host was too slow for the test.
fn exactly<const N: usize>(sent: &[u64]) -> Result<[u64; N]> {
    let wrong = || Undecided(format!("{} transmissions where {N} were to be", sent.len()));
    Ok(sent.try_into().map_err(|_| wrong())?)
}

fn is_end(line: &Line) -> bool {
    matches!(line.body, Body::Handshake(_))
}

/// The line that says that the half-open is there, while all that tells of it is sock_diag.
fn found(live: &Live) -> Result<Line> {
    let line = live.wait_for(
        "the half-open is found",
        FOUND_WITHIN,
        |line| matches!(&line.body, Body::State(s) if s.new == TcpState::SynRecv),
    );
    // A slow host: the segment was retransmitted, or the handshake ended, before the first dump.
    let line = line.map_err(|error| Undecided(format!("{error:#}")))?;
    let told = |l: &Line| matches!(l.body, Body::Retransmit(_) | Body::Handshake(_));
    match live.lines().iter().any(told) {
        true => Err(Undecided("an event told of it before sock_diag did".into()).into()),
        false => Ok(line),
    }
}

/// The only handshake there is, and when it ended.
fn only(watched: &WatchedRun, role: Role) -> Result<(u64, &Handshake)> {
    let all: Vec<_> = watched.handshakes().collect();
    let [(at_ns, handshake)] = all.as_slice() else {
        bail!("{} handshake lines: {:#?}", all.len(), watched.json);
    };
    ensure!(handshake.connection.role == role, "{handshake:?}");
    Ok((*at_ns, handshake))
}

/// Holds start (= end - dwell) and end against what is known of them, each within the stated bound.
fn bounded(
    (at_ns, handshake): (u64, &Handshake),
    began_ns: u64,
    ended_ns: std::ops::RangeInclusive<u64>,
) -> Result<()> {
    let dwell_us = handshake.dwell_us.context("a dwell")?;
    let bound_us = handshake.dwell_error_us.unwrap_or(0) + STAMP_US;
    let truth = |end: u64| end.saturating_sub(began_ns) / 1000;
    let (shortest, longest) = (truth(*ended_ns.start()), truth(*ended_ns.end()));
    ensure!(
        dwell_us + bound_us >= shortest && dwell_us <= longest + bound_us,
        "the truth is {shortest} to {longest} us, the bound {bound_us} us: {handshake:?}"
    );
    // What is said to be the end is never before it.
    ensure!(
        at_ns / 1000 + STAMP_US >= ended_ns.start() / 1000,
        "it ended later: {handshake:?}"
    );
    Ok(())
}

/// When the kernel's timer ends it: nominally `after_s` from the last SYN-ACK, up to an eighth late.
fn expiry(last_ns: u64, after_s: u64) -> std::ops::RangeInclusive<u64> {
    let nominal = after_s * 1_000_000_000;
    last_ns + nominal..=last_ns + nominal * 9 / 8 + 200_000_000
}

fn ended_as(handshake: &Handshake, outcome: Outcome, source: DwellSource) -> Result<()> {
    ensure!(
        handshake.outcome == outcome && handshake.dwell_source == Some(source),
        "{outcome:?} by {source:?}: {handshake:?}"
    );
    Ok(())
}

/// The start that a found half-open was first said to have, against the wire.
fn start_told(line: &Line, syn_acks: &[u64], bound_us: u64) -> Result<i64> {
    let first = *syn_acks.first().context("a SYN-ACK on the wire")?;
    let off = off_us(line.mono_ns / 1000, 0, first);
    ensure!(
        off.unsigned_abs() <= bound_us,
        "the start was told {off} us off: {line:?}"
    );
    Ok(off)
}

/// Two ticks of the slowest HZ, the millisecond that sock_diag counts in, and as long as a dump may
/// be interrupted on a busy host.
const TIMER_BOUND_US: u64 = 21_000 + 150_000;

/// Found at 0.4 s; its SYN-ACK is retransmitted at 1 s, which gives the exact start; then
/// it expires at 3 s.
fn expires_exact(family: SocketFamily) -> Result<()> {
    let half = HalfOpen::make(family, "1")?;
    until(half.made, YOUNG);
    let (found, watched) = watch(half.options()?, |live| {
        let found = found(live)?;
        live.wait_for("its end", PATIENCE, is_end)?;
        Ok(found)
    })?;
    let watched = watched.complete()?;
    let syn_acks = HalfOpen::syn_acks(half.capture)?;
    let [first, second] = exactly(&syn_acks)?;
    if watched.began_ns() >= second {
        return Err(Undecided("the watch began after the second SYN-ACK".into()).into());
    }
    let off = start_told(&found, &syn_acks, TIMER_BOUND_US)?;
    let again: Vec<&Retransmit> = watched.retransmits().map(|(_, r)| r).collect();
    let [again] = again.as_slice() else {
        bail!("{} retransmit lines: {:#?}", again.len(), watched.json);
    };
    let gap_off = off_us(again.gap_us.context("a gap")?, first, second);
    ensure!(
        gap_off.unsigned_abs() < STAMP_US && again.attempt == Some(1),
        "gap {gap_off} us off: {again:?}"
    );
    let end = only(&watched, Role::Server)?;
    ended_as(end.1, Outcome::Expired, DwellSource::SockDiag)?;
    bounded(end, first, expiry(second, 2))?;
    // With the start exact, the bound is that of the end alone: from its nominal time to the dump.
    let start_ns = end.0 - end.1.dwell_us.context("a dwell")? * 1000;
    let start_off = off_us(start_ns / 1000, 0, first);
    ensure!(
        start_off.unsigned_abs() < STAMP_US,
        "the start is {start_off} us off once its SYN-ACK was seen: {end:?}"
    );
    figure(format!(
        "{}: found {off} us off, exact to {start_off} us once sent again",
        family_name(family)
    ));
    Ok(())
}

/// Found after its last SYN-ACK: its end raises no event at all.
fn expires_bounded(family: SocketFamily) -> Result<()> {
    let half = HalfOpen::make(family, "1")?;
    until(half.made, ONCE_AGAIN);
    let (_, watched) = watch(half.options()?, |live| {
        found(live)?;
        live.wait_for("its end", PATIENCE, is_end)
    })?;
    let watched = watched.complete()?;
    let syn_acks = HalfOpen::syn_acks(half.capture)?;
    let [first, second] = exactly(&syn_acks)?;
    let end = only(&watched, Role::Server)?;
    ended_as(end.1, Outcome::Expired, DwellSource::SockDiag)?;
    ensure!(end.1.retransmits == 1, "{end:?}");
    ensure!(end.1.dwell_error_us.is_some(), "no bound: {end:?}");
    bounded(end, first, expiry(second, 2))
}

/// Its listener closes; the kernel lets go of it at its next time-out.
fn listener_closed(family: SocketFamily) -> Result<()> {
    let mut half = HalfOpen::make(family, "5")?;
    until(half.made, YOUNG);
    let (_, watched) = watch(half.options()?, |live| {
        found(live)?;
        half.listener = None;
        live.wait_for("its end", PATIENCE, is_end)
    })?;
    let watched = watched.complete()?;
    let syn_acks = HalfOpen::syn_acks(half.capture)?;
    let (first, last) = (syn_acks.first(), syn_acks.last());
    let (first, last) = (*first.context("a SYN-ACK")?, *last.context("a SYN-ACK")?);
    let end = only(&watched, Role::Server)?;
    ended_as(end.1, Outcome::Dropped, DwellSource::SockDiag)?;
    // It ended between its last SYN-ACK and the time-out after it.
    let time_out = 1 << (syn_acks.len() - 1);
    bounded(end, first, last..=*expiry(last, time_out).end())
}

/// Retransmitted at 1 s, found at 1.4 s, retransmitted at 3 s: exact from then on; reset at once.
fn sent_again(family: SocketFamily) -> Result<()> {
    let half = HalfOpen::make(family, "5")?;
    until(half.made, ONCE_AGAIN);
    let (found, watched) = watch(half.options()?, |live| {
        let found = found(live)?;
        live.wait_for("its SYN-ACK again", PATIENCE, |line| {
            matches!(line.body, Body::Retransmit(_))
        })?;
        half.sender
            .rst(half.source, half.server, ISN.wrapping_add(1))?;
        live.wait_for("its end", PATIENCE, is_end)?;
        Ok(found)
    })?;
    let watched = watched.complete()?;
    let syn_acks = HalfOpen::syn_acks(half.capture)?;
    let [first, second, third] = exactly(&syn_acks)?;
    // A second later its timer fits a half-open without a time-out too, whose peer had repeated its SYN.
    if watched.began_ns() >= second + 800_000_000 {
        return Err(Undecided("the watch began too late to tell its age".into()).into());
    }
    // Found with one retransmission behind it: an eighth of its age, and what a peer that repeats
    // its SYN could have made of it.
    let off = start_told(&found, &syn_acks, 1_500_000)?;
    let again: Vec<&Retransmit> = watched.retransmits().map(|(_, r)| r).collect();
    let [again] = again.as_slice() else {
        bail!("{} retransmit lines: {:#?}", again.len(), watched.json);
    };
    ensure!(again.attempt == Some(2), "{again:?}");
    // The previous transmission was not seen. If an interval is reported, it is the true one.
    if let Some(gap_us) = again.gap_us {
        let off = off_us(gap_us, second, third);
        ensure!(off.unsigned_abs() < STAMP_US, "gap {off} us off: {again:?}");
    }
    let (end_ns, handshake) = only(&watched, Role::Server)?;
    // Where the RST itself is seen (Linux 6.11) nothing is left to be looked for.
    let source = match handshake.facts.reset_seen {
        true => DwellSource::RequestSock,
        false => DwellSource::SockDiag,
    };
    ended_as(handshake, Outcome::Reset, source)?;
    ensure!(handshake.retransmits == 2, "{handshake:?}");
    let start_ns = end_ns - handshake.dwell_us.context("a dwell")? * 1000;
    let start_off = off_us(start_ns / 1000, 0, first);
    ensure!(
        start_off.unsigned_abs() < STAMP_US,
        "the start is {start_off} us off once its SYN-ACK was seen: {handshake:?}"
    );
    figure(format!(
        "{}: found after one retransmission {off} us off, exact to {start_off} us after the next",
        family_name(family)
    ));
    Ok(())
}

/// Killed by the peer's RST, which raises no event.
fn reset(family: SocketFamily) -> Result<()> {
    let half = HalfOpen::make(family, "5")?;
    let before = half.lab.counters()?;
    until(half.made, YOUNG);
    let (_, watched) = watch(half.options()?, |live| {
        found(live)?;
        half.sender
            .rst(half.source, half.server, ISN.wrapping_add(1))?;
        live.wait_for("its end", PATIENCE, is_end)
    })?;
    let watched = watched.complete()?;
    let moved = half.lab.counters()?.since(&before);
    ensure!(
        moved.server.get("EmbryonicRsts") == 1,
        "the RST took effect"
    );
    let wire = WireTimes::of(half.capture)?;
    let first = wire.first(SYN_ACK, true, PORT, PEER_PORT)?;
    let killed = wire.first(synprobe_lab::packet::flags::RST, false, PORT, PEER_PORT)?;
    let end = only(&watched, Role::Server)?;
    ended_as(end.1, Outcome::Reset, DwellSource::SockDiag)?;
    bounded(end, first, killed..=killed)
}

/// Completes before any retransmission: the child's own sample is exact.
fn completes_young(family: SocketFamily) -> Result<()> {
    let lab = Lab::with_bare_server(family)?;
    let _listener = listener(&lab, &lab.client)?;
    let capture = Capture::start(&lab.client)?;
    let delay = Duration::from_millis(850);
    let peer = RawPeer::call(&lab, 1, Duration::ZERO, move |_| delay)?;
    until(Instant::now(), YOUNG);
    let (_, watched) = watch(options_for(&lab)?, |live| {
        found(live)?;
        live.wait_for("its end", PATIENCE, is_end)
    })?;
    let watched = watched.complete()?;
    let made = peer.stop()?;
    let port = made.first().context("a handshake")?.client_port;
    let wire = WireTimes::of(capture)?;
    let first = wire.first(SYN_ACK, true, PORT, port)?;
    let acked = wire.first(ACK, false, PORT, port)?;
    let end = only(&watched, Role::Server)?;
    ended_as(end.1, Outcome::Established, DwellSource::RttSample)?;
    ensure!(end.1.dwell_error_us.is_none(), "exact: {end:?}");
    bounded(end, first, acked..=acked)
}

/// A real client whose final ACKs are lost: retransmitted at 1 s, found at 1.4 s, completes at 3 s.
fn completes_old(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = listener(&lab, &lab.server)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, bare_ack(), LossPattern::First(2), PORT)?;
    let capture = Capture::start(&lab.server)?;
    let began = Instant::now();
    let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
    settle([&mut client], &AtomicBool::new(false), began + PATIENCE)?;
    until(began, ONCE_AGAIN);
    let (_, watched) = watch(options_for(&lab)?, |live| {
        found(live)?;
        live.wait_for("its end", PATIENCE, is_end)
    })?;
    let watched = watched.complete()?;
    let port = client.local.port();
    let wire = WireTimes::of(capture)?;
    let syn_acks = wire.times(SYN_ACK, true, PORT, port);
    let acks = wire.times(ACK, false, PORT, port);
    ensure!(
        syn_acks.len() == 3 && acks.len() == 3,
        "{} SYN-ACKs, {} ACKs",
        syn_acks.len(),
        acks.len()
    );
    let end = only(&watched, Role::Server)?;
    ended_as(end.1, Outcome::Established, DwellSource::RequestSock)?;
    ensure!(end.1.retransmits == 2, "{end:?}");
    bounded(end, syn_acks[0], acks[2]..=acks[2])
}
