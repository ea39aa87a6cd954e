//! Dwell and intervals, compared with packets captured on the same veth pair and with the retransmission
//! schedule. The schedule is that of the kernel's documentation and of measurements, not synprobe's own.

use std::{
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe::{
    filter::Selection,
    model::{Body, DwellSource, Handshake, Outcome, Retransmit, Role, Trigger},
    pipeline::WatchOptions,
};
use synprobe_lab::{
    Client, Lab, PORT, SocketFamily, capture::Capture, raw_peer::RawPeer, set_option, settle,
};
use synprobe_tests::{
    harness::{self, Case, Undecided, family_name, figure},
    pipeline_run::{self, WatchedRun, watch},
    wire::{ACK, NEVER, SYN, SYN_ACK, WireTimes, listener, off_us},
};

/// Handshakes for each delay.
const HANDSHAKES: u16 = 100;
const DELAYS_MS: [u64; 3] = [0, 20, 200];
/// Tolerance between reported times and the wire.
const TOLERANCE_US: u64 = 1000;
/// A tick at the slowest HZ there is, and what a busy machine may add to a timer.
const LATE_US: u64 = 10_000 + 150_000;
/// Long enough for anything below to have happened.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for family in [SocketFamily::V6, SocketFamily::V4] {
        for plan in SYN_PLANS {
            let name = format!("gaps::syn::{}", plan.name);
            cases.push(Case::for_family(&name, family, move |f| syn_gaps(plan, f)));
        }
        for plan in SYNACK_PLANS {
            let name = format!("gaps::synack::{}", plan.name);
            cases.push(Case::for_family(&name, family, move |f| {
                synack_gaps(plan, f)
            }));
        }
    }
    // The longest first: all the others fit beside it.
    cases.reverse();
    for family in SocketFamily::ALL {
        for delay_ms in DELAYS_MS {
            let delay = Duration::from_millis(delay_ms);
            let name = format!("dwell::client::{delay_ms}ms");
            cases.push(Case::for_family(&name, family, move |f| {
                client_dwell(delay, f)
            }));
            let name = format!("dwell::server::{delay_ms}ms");
            cases.push(Case::for_family(&name, family, move |f| {
                server_dwell(delay, f)
            }));
        }
    }
    harness::main_with(cases, 16)
}

/// Watches the namespace in which the kernel is; the other end is a raw peer.
fn options(lab: &Lab) -> Result<WatchOptions> {
    let mut options = pipeline_run::options(Selection {
        netns: Some([lab.client.inode(); 2]),
        ..Selection::default()
    });
    options.namespaces = vec![lab.client.netns()];
    Ok(options)
}

/// A handshake of the kernel with the raw peer: its own port and the peer's.
fn ports(handshake: &Handshake) -> Result<(u16, u16)> {
    let c = &handshake.connection;
    Ok((
        c.local_port.context("a local port")?,
        c.peer_port.context("a peer port")?,
    ))
}

fn client_dwell(delay: Duration, family: SocketFamily) -> Result<()> {
    let lab = Lab::with_bare_server(family)?;
    let options = options(&lab)?;
    let capture = Capture::start(&lab.client)?;
    let peer = RawPeer::serve(&lab, move |_| delay)?;
    let (_, watched) = watch(options, |_| {
        let mut clients = Vec::new();
        for _ in 0..HANDSHAKES {
            clients.push(Client::connect(&lab.client, lab.server_addr(PORT), |_| {
                Ok(())
            })?);
        }
        settle(
            &mut clients,
            &AtomicBool::new(false),
            Instant::now() + PATIENCE,
        )
    })?;
    peer.stop()?;
    let wire = WireTimes::of(capture)?;
    let watched = watched.complete()?;
    dwells_agree(&watched, Role::Client, delay, family, |(local, peer)| {
        Ok((
            wire.first(SYN, true, local, peer)?,
            wire.first(SYN_ACK, false, local, peer)?,
        ))
    })
}

fn server_dwell(delay: Duration, family: SocketFamily) -> Result<()> {
    let lab = Lab::with_bare_server(family)?;
    let options = options(&lab)?;
    let _listener = listener(&lab, &lab.client)?;
    let capture = Capture::start(&lab.client)?;
    let (_, watched) = watch(options, |live| {
        let peer = RawPeer::call(&lab, HANDSHAKES, Duration::from_millis(3), move |_| delay)?;
        let mut ended = 0;
        live.wait_for("the last handshake", PATIENCE, |line| {
            ended += u16::from(matches!(line.body, Body::Handshake(_)));
            ended == HANDSHAKES
        })?;
        peer.stop()
    })?;
    let wire = WireTimes::of(capture)?;
    let watched = watched.complete()?;
    dwells_agree(&watched, Role::Server, delay, family, |(local, peer)| {
        Ok((
            wire.first(SYN_ACK, true, local, peer)?,
            wire.first(ACK, false, local, peer)?,
        ))
    })
}

/// Every handshake's dwell, and the moment of its end, against the wire's.
fn dwells_agree(
    watched: &WatchedRun,
    role: Role,
    delay: Duration,
    family: SocketFamily,
    on_the_wire: impl Fn((u16, u16)) -> Result<(u64, u64)>,
) -> Result<()> {
    let (mut count, mut worst_dwell, mut worst_end) = (0, 0, 0);
    let mut sum = 0;
    for (end_ns, handshake) in watched.handshakes() {
        ensure!(
            handshake.connection.role == role && handshake.outcome == Outcome::Established,
            "not an established {role:?}: {handshake:?}"
        );
        ensure!(
            handshake.retransmits == 0 && handshake.dwell_error_us.is_none(),
            "not exact: {handshake:?}"
        );
        let (from, to) = on_the_wire(ports(handshake)?)?;
        let dwell_us = handshake.dwell_us.context("a dwell")?;
        ensure!(
            dwell_us >= delay.as_micros() as u64,
            "shorter than the delay: {handshake:?}"
        );
        let off = off_us(dwell_us, from, to);
        let off_end = end_ns.abs_diff(to) / 1000;
        // The end of the connection may process the packet late, or pause while it does. Then the end is
        // late and the dwell is late by at most as much, which is no error of synprobe.
        let late_us = (end_ns.saturating_sub(to) / 1000).cast_signed();
        let tolerance_us = TOLERANCE_US.cast_signed();
        if off.max(late_us) >= tolerance_us
            && (1 - tolerance_us..late_us + tolerance_us).contains(&off)
        {
            let late = format!("the host took {late_us} us to look at a packet");
            return Err(Undecided(late).into());
        }
        ensure!(
            off.unsigned_abs() < TOLERANCE_US,
            "dwell {off} us off the wire's {} us: {handshake:?}",
            (to - from) / 1000
        );
        ensure!(
            off_end < TOLERANCE_US,
            "its end is {off_end} us off the wire's: {handshake:?}"
        );
        worst_dwell = worst_dwell.max(off.unsigned_abs());
        worst_end = worst_end.max(off_end);
        sum += off.unsigned_abs();
        count += 1;
    }
    ensure!(count == u64::from(HANDSHAKES), "{count} handshakes");
    figure(format!(
        "{} {} {} ms: {count} handshakes, |dwell - wire| at most {worst_dwell} us, mean {} us; \
         |end - wire| at most {worst_end} us",
        role.name(),
        family_name(family),
        delay.as_millis(),
        sum / count
    ));
    Ok(())
}

/// Settings, and what the kernel makes of them, in seconds: written down from
/// docs/kernel-facts.md, section 5, and the kernel's source, not computed.
#[derive(Clone, Copy)]
struct Plan {
    name: &'static str,
    sysctls: &'static [(&'static str, &'static str)],
    /// TCP_SYNCNT, on the socket that sends.
    syncnt: Option<libc::c_int>,
    /// Between one transmission and the next.
    gaps: &'static [u64],
    /// Between the last one and giving up.
    last: u64,
}

const LINEAR: &str = "ipv4/tcp_syn_linear_timeouts";
const SYN_RETRIES: &str = "ipv4/tcp_syn_retries";
const SYNACK_RETRIES: &str = "ipv4/tcp_synack_retries";

const SYN_PLANS: [Plan; 6] = [
    Plan {
        name: "linear-4-syncnt-1",
        sysctls: &[],
        syncnt: Some(1),
        gaps: &[1, 1],
        last: 1,
    },
    Plan {
        name: "linear-2-syncnt-1",
        sysctls: &[(LINEAR, "2")],
        syncnt: Some(1),
        gaps: &[1, 1],
        last: 1,
    },
    Plan {
        name: "linear-0-syncnt-1",
        sysctls: &[(LINEAR, "0")],
        syncnt: Some(1),
        gaps: &[1],
        last: 2,
    },
    Plan {
        name: "linear-0-retries-2",
        sysctls: &[(LINEAR, "0"), (SYN_RETRIES, "2")],
        syncnt: None,
        gaps: &[1, 2],
        last: 4,
    },
    Plan {
        name: "linear-4-retries-2",
        sysctls: &[(SYN_RETRIES, "2")],
        syncnt: None,
        gaps: &[1, 1, 1, 1, 1],
        last: 2,
    },
    Plan {
        name: "linear-2-retries-2",
        sysctls: &[(LINEAR, "2"), (SYN_RETRIES, "2")],
        syncnt: None,
        gaps: &[1, 1, 1, 2],
        last: 4,
    },
];

const SYNACK_PLANS: [Plan; 3] = [
    Plan {
        name: "retries-1",
        sysctls: &[(SYNACK_RETRIES, "1")],
        syncnt: None,
        gaps: &[1],
        last: 2,
    },
    Plan {
        name: "listener-syncnt-1",
        sysctls: &[],
        syncnt: Some(1),
        gaps: &[1],
        last: 2,
    },
    Plan {
        name: "retries-3",
        sysctls: &[(SYNACK_RETRIES, "3")],
        syncnt: None,
        gaps: &[1, 2, 4],
        last: 8,
    },
];

fn syn_gaps(plan: Plan, family: SocketFamily) -> Result<()> {
    let lab = Lab::with_bare_server(family)?;
    apply(plan, &lab)?;
    let options = options(&lab)?;
    let capture = Capture::start(&lab.client)?;
    let (client, watched) = watch(options, |_| {
        let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |fd| {
            plan.syncnt.map_or(Ok(()), |count| {
                set_option(fd, libc::IPPROTO_TCP, libc::TCP_SYNCNT, &count)
            })
        })?;
        let until = Instant::now() + PATIENCE;
        settle([&mut client], &AtomicBool::new(false), until)?;
        Ok(client)
    })?;
    let watched = watched.complete()?;
    let syns = WireTimes::of(capture)?.times(SYN, true, client.local.port(), PORT);
    gaps_agree(plan, &watched, &syns, family)?;
    ends(plan, &watched, Outcome::TimedOut)?;
    ensure!(
        client.seen == synprobe_lab::ConnectState::Failed(libc::ETIMEDOUT),
        "the application saw {:?}",
        client.seen
    );
    Ok(())
}

fn synack_gaps(plan: Plan, family: SocketFamily) -> Result<()> {
    let lab = Lab::with_bare_server(family)?;
    apply(plan, &lab)?;
    let options = options(&lab)?;
    let listener = listener(&lab, &lab.client)?;
    if let Some(count) = plan.syncnt {
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_SYNCNT, &count)?;
    }
    let capture = Capture::start(&lab.client)?;
    let (port, watched) = watch(options, |live| {
        let peer = RawPeer::call(&lab, 1, Duration::ZERO, |_| NEVER)?;
        live.wait_for("the half-open's end", PATIENCE, |line| {
            matches!(line.body, Body::Handshake(_))
        })?;
        let made = peer.stop()?;
        Ok(made.first().context("a handshake")?.client_port)
    })?;
    let watched = watched.complete()?;
    let syn_acks = WireTimes::of(capture)?.times(SYN_ACK, true, PORT, port);
    gaps_agree(plan, &watched, &syn_acks, family)?;
    ends(plan, &watched, Outcome::Expired)?;
    let by_timer = |(_, r): (u64, &Retransmit)| r.trigger == Some(Trigger::Timer);
    ensure!(watched.retransmits().all(by_timer), "nobody repeated a SYN");
    Ok(())
}

fn apply(plan: Plan, lab: &Lab) -> Result<()> {
    for (key, value) in plan.sysctls {
        lab.client.set_sysctl(key, value)?;
    }
    Ok(())
}

fn gaps_agree(plan: Plan, watched: &WatchedRun, sent: &[u64], family: SocketFamily) -> Result<()> {
    let told: Vec<_> = watched.retransmits().map(|(_, r)| r).collect();
    ensure!(
        told.len() == plan.gaps.len() && sent.len() == told.len() + 1,
        "{} retransmit lines, {} segments on the wire, {} gaps in the plan: {:#?}",
        told.len(),
        sent.len(),
        plan.gaps.len(),
        watched.json
    );
    let mut worst = 0;
    let mut measured = Vec::new();
    for (n, (line, pair)) in told.iter().zip(sent.windows(2)).enumerate() {
        let nominal_us = plan.gaps[n] * 1_000_000;
        let left = &plan.gaps[n + 1..];
        let gap_us = line.gap_us.context("a gap")?;
        let off = off_us(gap_us, pair[0], pair[1]);
        ensure!(
            off.unsigned_abs() < TOLERANCE_US,
            "gap {off} us off the wire's: {line:?}"
        );
        ensure!(
            (nominal_us..=nominal_us * 9 / 8 + LATE_US).contains(&gap_us),
            "not what the kernel does: {line:?}"
        );
        ensure!(
            line.expected_gap_us == Some(nominal_us) && line.attempt == Some(n as u32 + 1),
            "expected {nominal_us} us, attempt {}: {line:?}",
            n + 1
        );
        ensure!(
            line.next_us == left.first().map(|s| s * 1_000_000),
            "the next is due in {left:?} s: {line:?}"
        );
        let end_us = (left.iter().sum::<u64>() + plan.last) * 1_000_000;
        ensure!(
            line.gives_up_us == Some(end_us),
            "the end is due in {end_us} us: {line:?}"
        );
        ensure!(!line.failed && line.segs == 1, "{line:?}");
        worst = worst.max(off.unsigned_abs());
        measured.push(gap_us as f64 / 1e6);
    }
    figure(format!(
        "{} {}: gaps {measured:.3?} s, |gap - wire| at most {worst} us",
        plan.name,
        family_name(family)
    ));
    Ok(())
}

/// The end is not on the wire: it is held against the plan, and against its own bound.
fn ends(plan: Plan, watched: &WatchedRun, outcome: Outcome) -> Result<()> {
    let handshakes: Vec<_> = watched.handshakes().map(|(_, h)| h).collect();
    let [handshake] = handshakes.as_slice() else {
        anyhow::bail!("{} handshake lines", handshakes.len());
    };
    ensure!(handshake.outcome == outcome, "{handshake:?}");
    ensure!(
        handshake.retransmits as usize == plan.gaps.len() && handshake.retransmits_by_peer == 0,
        "{handshake:?}"
    );
    let source = match outcome {
        Outcome::TimedOut => DwellSource::Events,
        _ => DwellSource::SockDiag,
    };
    ensure!(
        handshake.dwell_source == Some(source),
        "dwell by {source:?}: {handshake:?}"
    );
    let nominal_us = (plan.gaps.iter().sum::<u64>() + plan.last) * 1_000_000;
    let latest_us = nominal_us * 9 / 8 + LATE_US * (plan.gaps.len() as u64 + 1);
    let dwell_us = handshake.dwell_us.context("a dwell")?;
    let earliest_us = dwell_us.saturating_sub(handshake.dwell_error_us.unwrap_or(0));
    ensure!(
        dwell_us >= nominal_us && earliest_us <= latest_us,
        "it ended between {nominal_us} and {latest_us} us: {handshake:?}"
    );
    Ok(())
}
