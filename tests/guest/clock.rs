//! The wall clock is set back an hour during a handshake, and forward two hours during the next.

use std::{io, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use synprobe_lab::{
    Client, FaultInjector, Lab, LossPattern, PORT, SocketFamily, capture::Capture, syn_ack,
};
use synprobe_tests::{
    agent::Agent,
    guest::is_guest,
    harness::figure,
    wire::{ACK, SYN, SYN_ACK, WireTimes},
};

const HOUR_S: i64 = 3600;
/// Tolerance between reported times and those of the wire or of a clock.
const TOLERANCE_US: u64 = 1000;
/// So many SYN-ACKs are lost: the handshake takes seconds.
const LOST: u64 = 5;

fn now_ns(clock: libc::clockid_t) -> Result<i64> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the timespec is alive for the call.
    match unsafe { libc::clock_gettime(clock, &raw mut now) } {
        0 => Ok(now.tv_sec * 1_000_000_000 + now.tv_nsec),
        _ => Err(io::Error::last_os_error().into()),
    }
}

/// How far the wall clock is ahead of the monotonic one; of a few readings, the least disturbed.
fn ahead_ns() -> Result<i64> {
    let mut best = (i64::MAX, 0);
    for _ in 0..5 {
        let before = now_ns(libc::CLOCK_MONOTONIC)?;
        let wall = now_ns(libc::CLOCK_REALTIME)?;
        let taken = now_ns(libc::CLOCK_MONOTONIC)? - before;
        best = best.min((taken, wall - before - taken / 2));
    }
    Ok(best.1)
}

/// The offset of the two clocks before a step and after it, and when it was on the monotonic one.
#[derive(Clone, Copy, Debug)]
struct Step {
    before_ns: i64,
    after_ns: i64,
    at_ns: i64,
}

fn step(seconds: i64) -> Result<Step> {
    ensure!(is_guest(), "only a guest's clock is set");
    let before_ns = ahead_ns()?;
    let mut wall = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the timespec is alive for both calls.
    let set = unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut wall);
        wall.tv_sec += seconds;
        libc::clock_settime(libc::CLOCK_REALTIME, &raw const wall)
    };
    ensure!(set == 0, "clock_settime: {}", io::Error::last_os_error());
    let step = Step {
        before_ns,
        at_ns: now_ns(libc::CLOCK_MONOTONIC)?,
        after_ns: ahead_ns()?,
    };
    let off = (step.after_ns - step.before_ns) / 1_000_000_000 - seconds;
    ensure!(off.abs() <= 1, "the clock was not set: {step:?}");
    Ok(step)
}

/// Nanoseconds of `2026-11-23T04:26:13.123456Z`.
fn parsed(time: &str) -> Result<i64> {
    let parts: Vec<i64> = time
        .trim_end_matches('Z')
        .split(['-', 'T', ':', '.'])
        .map(|part| part.parse().with_context(|| time.to_owned()))
        .collect::<Result<_>>()?;
    let [year, month, day, hour, minute, second, micros] = parts[..] else {
        bail!("not a time: {time}");
    };
    // SAFETY: all-zero bytes are a valid tm, and timegm() reads and writes that one only.
    let seconds = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        parts.tm_year = i32::try_from(year)? - 1900;
        parts.tm_mon = i32::try_from(month)? - 1;
        parts.tm_mday = i32::try_from(day)?;
        parts.tm_hour = i32::try_from(hour)?;
        parts.tm_min = i32::try_from(minute)?;
        parts.tm_sec = i32::try_from(second)?;
        libc::timegm(&raw mut parts)
    };
    Ok(seconds * 1_000_000_000 + micros * 1000)
}

/// A handshake whose clock is set under way; its ports, and the step.
fn handshake(lab: &Lab, agent: &Agent, seconds: i64) -> Result<(u16, Step)> {
    let client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
    let port = client.local.port();
    let of_it = |line: &Value, kind: &str, role: &str| {
        let here = ["local_port", "peer_port"][usize::from(role == "server")];
        line["type"] == kind && line["role"] == role && line[here] == port
    };
    agent.wait_for("a SYN sent again", |line| {
        of_it(line, "retransmit", "client")
    })?;
    let step = step(seconds)?;
    for role in ["client", "server"] {
        let end = agent.wait_for("the handshake's end", |line| of_it(line, "handshake", role))?;
        ensure!(end["outcome"] == "established", "{end}");
    }
    Ok((port, step))
}

pub fn stepped() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let _listener = lab.listen(PORT, 16)?;
    let mut fault = FaultInjector::attach(&lab.client)?;
    fault.set(0, syn_ack(), LossPattern::First(LOST), PORT)?;
    let capture = Capture::start(&lab.client)?;
    let began = Instant::now();
    let agent = Agent::watch(&[])?;
    // Not the same way back: what had not followed the first would be right again.
    let steps = [-HOUR_S, 2 * HOUR_S].map(|seconds| handshake(&lab, &agent, seconds));
    let ended = agent.end()?.complete()?;
    let lasted = began.elapsed();
    let wire = WireTimes::of(capture)?;

    let mut worst_us = 0;
    let [back, forth] = steps;
    let steps = [back?, forth?];
    for (port, step) in steps {
        let times = Times::of(&wire, port)?;
        ensure!(
            (times.syns[0]..times.ack).contains(&u64::try_from(step.at_ns)?),
            "the clock was not set under way: {step:?}"
        );
        worst_us = worst_us.max(times.agree_with(&ended.lines, port)?);
    }
    let off_us = lines_tell_the_time(&ended.lines, &steps.map(|(_, step)| step))?;
    let told = ended.summary()?["duration_us"].as_u64();
    ensure!(
        told.is_some_and(|us| u128::from(us) <= lasted.as_micros()),
        "{told:?} us of {lasted:?}"
    );
    figure(format!(
        "clock set back an hour and forward two: dwells and gaps at most {worst_us} us off the wire, \
         times at most {off_us} us off the clock"
    ));
    Ok(())
}

/// When the segments of one handshake passed.
struct Times {
    syns: Vec<u64>,
    syn_acks: Vec<u64>,
    ack: u64,
}

impl Times {
    fn of(wire: &WireTimes, port: u16) -> Result<Self> {
        let times = Self {
            syns: wire.times(SYN, true, port, PORT),
            syn_acks: wire.times(SYN_ACK, false, port, PORT),
            ack: wire.first(ACK, true, port, PORT)?,
        };
        let enough = times.syns.len() > 1 && times.syn_acks.len() as u64 > LOST;
        ensure!(enough, "too few SYNs or SYN-ACKs");
        Ok(times)
    }

    /// The most, in microseconds, that a dwell or a gap is off.
    fn agree_with(&self, lines: &[Value], port: u16) -> Result<u64> {
        let mut worst = 0;
        let mut held = 0;
        let mut hold = |line: &Value, told: &Value, from: u64, to: u64| {
            let told = told
                .as_u64()
                .with_context(|| format!("nothing told: {line}"))?;
            let off = told.abs_diff((to - from) / 1000);
            ensure!(off < TOLERANCE_US, "{off} us off the wire: {line}");
            worst = worst.max(off);
            held += 1;
            Ok(())
        };
        let through = self.syn_acks[usize::try_from(LOST)?];
        for line in lines {
            let attempt = line["attempt"].as_u64().unwrap_or(0) as usize;
            let (sent, end) = match line["role"].as_str() {
                Some("client") if line["local_port"] == port => (&self.syns, through),
                Some("server") if line["peer_port"] == port => (&self.syn_acks, self.ack),
                _ => continue,
            };
            match line["type"].as_str() {
                Some("retransmit") => {
                    let pair = sent.get(attempt - 1).zip(sent.get(attempt));
                    let (from, to) = pair.with_context(|| format!("not on the wire: {line}"))?;
                    hold(line, &line["gap_us"], *from, *to)?;
                }
                Some("handshake") => hold(line, &line["dwell_us"], sent[0], end)?,
                _ => (),
            }
        }
        let due = 2 + (self.syns.len() - 1) + (self.syn_acks.len() - 1);
        ensure!(held == due, "{held} of {due} lines");
        Ok(worst)
    }
}

/// Of each line, the wall clock as it stood when it was printed; the most that one is off, in
/// microseconds.
fn lines_tell_the_time(lines: &[Value], [first, second]: &[Step; 2]) -> Result<u64> {
    let mut worst = 0;
    let mut between = 0;
    for line in lines {
        let mono_ns = line["mono_ns"].as_i64().context("mono_ns")?;
        let ahead = parsed(line["time"].as_str().context("time")?)? - mono_ns;
        // What came before a step may have been printed after it: a first SYN-ACK is, for one.
        let allowed = if mono_ns < first.at_ns {
            [first.before_ns, first.after_ns]
        } else if mono_ns < second.at_ns {
            between += 1;
            [second.before_ns, second.after_ns]
        } else {
            [second.after_ns; 2]
        };
        let off = allowed.map(|due| (ahead - due).unsigned_abs() / 1000);
        let off = off[0].min(off[1]);
        ensure!(
            off < TOLERANCE_US,
            "{off} us off {first:?} {second:?}: {line}"
        );
        worst = worst.max(off);
    }
    ensure!(between > 4, "{between} lines between the steps");
    Ok(worst)
}
