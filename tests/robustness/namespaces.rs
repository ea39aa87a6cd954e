//! Namespaces of others: they end when their last user does, and making many costs the agent little.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use synprobe::sys::netns;
use synprobe_lab::{Lab, Ns, PORT, RawSender, SocketFamily, net};
use synprobe_tests::{
    agent::PATIENCE,
    binary::{self, command, ended},
    harness::{Undecided, figure},
    netns_process::NetnsProcess,
    schema,
};

/// Nobody listens there.
const CLOSED: (&str, u16) = ("127.0.0.1", 9);

/// An agent over all namespaces.
fn agent(arguments: &[&str]) -> Result<(Child, BufReader<ChildStdout>)> {
    let mut child = command(arguments)?.spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("standard output")?);
    // Nothing is missed once the first line is there.
    out.read_line(&mut String::new())?;
    Ok((child, out))
}

/// A refused connection on the loopback device of a namespace.
fn refused(ns: &Ns) -> Result<()> {
    ns.run(|| {
        ensure!(TcpStream::connect(CLOSED).is_err(), "it is refused");
        Ok(())
    })
}

/// Other agents on this host, of any version: they look at every namespace too.
fn other_agents(ours: u32) -> Result<Vec<u32>> {
    let mut others = Vec::new();
    for pid in netns::pids().into_iter().filter(|pid| *pid != ours) {
        // It may have ended.
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if comm.starts_with("synprobe") {
            others.push(pid);
        }
    }
    Ok(others)
}

/// A namespace that the agent has looked at for seconds ends with its last process: the other end of its veth pair
/// goes with it.
pub fn removed() -> Result<()> {
    /// What the agent holds is closed within a second. The kernel then needs a moment, and so does a busy machine.
    const BOUND: Duration = Duration::from_secs(2);
    let (kept, gone) = (Ns::new_anonymous("kept")?, Ns::new_anonymous("removed")?);
    net::join(&kept, &gone, false)?;
    let process = NetnsProcess::of(&gone)?;
    let devices = || Ok::<_, anyhow::Error>(kept.read_proc("net/dev")?.lines().count());
    let both = devices()?;
    let (child, mut out) = agent(&["watch", "--format", "json"])?;
    let began = Instant::now();
    let inode = u64::from(gone.inode());
    let (mut first, mut last) = (None, 0);
    // Its rounds come every second: three have looked at it.
    while last < first.unwrap_or(u64::MAX - 4_000_000_000) + 3_000_000_000 {
        ensure!(began.elapsed() < PATIENCE, "it is not watched");
        refused(&gone)?;
        let mut text = String::new();
        loop {
            text.clear();
            out.read_line(&mut text)?;
            let line: Value = serde_json::from_str(&text)?;
            if line["netns"] == inode && line["type"] == "handshake" {
                last = line["mono_ns"].as_u64().context("a time")?;
                first.get_or_insert(last);
                break;
            }
        }
    }
    let mut others = other_agents(child.id())?;
    drop((gone, process));
    let ended_at = Instant::now();
    while devices()? == both {
        ensure!(ended_at.elapsed() < PATIENCE, "its namespace lives on");
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = ended_at.elapsed();
    let child_id = child.id();
    binary::signal(&child, libc::SIGINT)?;
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    let ran = ended(child)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    others.extend(other_agents(child_id)?);
    if took >= BOUND && !others.is_empty() {
        return Err(Undecided(format!("{took:?}, but {others:?} may have held it")).into());
    }
    ensure!(took < BOUND, "the namespace lived on for {took:?}");
    figure(format!(
        "a removed namespace was gone {took:?} after its last process"
    ));
    Ok(())
}

/// CPU time of a process and its threads.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("a command")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// A tenant makes fifty namespaces a second, each of which dies after one refused connection. The run ends on time,
/// and no record is lost.
pub fn dying() -> Result<()> {
    const RATE: Duration = Duration::from_millis(20);
    const RUN: Duration = Duration::from_secs(6);
    const BOUND: Duration = Duration::from_millis(7500);
    let (child, out) = agent(&["watch", "--format", "json", "--duration", "6s"])?;
    let pid = child.id();
    let (began, before) = (Instant::now(), cpu(pid)?);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let makes = std::thread::spawn(move || -> Result<u64> {
        let mut made = 0;
        while !stopped.load(Ordering::Relaxed) {
            refused(&Ns::new_anonymous("dying")?)?;
            made += 1;
            std::thread::sleep(RATE);
        }
        Ok(made)
    });
    let reader = std::thread::spawn(move || out.lines().collect::<std::io::Result<Vec<_>>>());
    std::thread::sleep(RUN.saturating_sub(began.elapsed() + Duration::from_millis(500)));
    let spent = cpu(pid)?.saturating_sub(before);
    let share = spent.as_secs_f64() / began.elapsed().as_secs_f64();
    let ran = ended(child)?;
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let made = makes.join().map_err(|_| anyhow!("it panicked"))??;
    let text = reader.join().map_err(|_| anyhow!("it panicked"))??;
    ensure!(ran.code == Some(0), "{ran:?}");
    ensure!(took < BOUND, "--duration 6s took {took:?}");
    let lines = schema::check(text.iter().map(String::as_str))?;
    let end = lines.last().context("a line")?;
    ensure!(end["type"] == "end", "{end}");
    ensure!(made > 20, "{made} namespaces");
    let of_them = lines
        .iter()
        .filter(|l| l["type"] == "handshake" && l["peer_port"] == CLOSED.1)
        .count();
    ensure!(of_them as u64 >= made / 2, "{of_them} of {made}");
    figure(format!(
        "{made} namespaces that died: over after {took:?}, {:.1} % of a core (not optimized), {} lost",
        share * 100.0,
        end["lost"]
    ));
    Ok(())
}

/// A hundred idle namespaces, of which only the counters are read. A half-open that began in one of them a moment before
/// the end, and raised no event, is seen by the last look all the same; and that look does not hold up the end.
pub fn many() -> Result<()> {
    const IDLE: usize = 100;
    /// The last look takes a second at most; a busy machine needs a moment for the rest.
    const BOUND: Duration = Duration::from_secs(3);
    let lab = Lab::new(SocketFamily::V4)?;
    let _listener = lab.listen(PORT, 64)?;
    let _shown = NetnsProcess::of(&lab.server)?;
    let idle = (0..IDLE).map(|_| {
        let ns = Ns::new_anonymous("idle")?;
        let process = NetnsProcess::of(&ns)?;
        Ok((ns, process))
    });
    let idle: Vec<_> = idle.collect::<Result<_>>()?;
    let sender = RawSender::open(&lab.client, false)?;
    let stranger = SocketAddr::new(net::spoofed(false, 0), 40_000);
    let (child, out) = agent(&["watch", "--format", "json"])?;
    let reader = std::thread::spawn(move || out.lines().collect::<std::io::Result<Vec<_>>>());
    // Looks raise no event: these are several.
    std::thread::sleep(Duration::from_secs(6));
    sender.syn(stranger, SocketAddr::new(lab.server_ip(), PORT), 1000)?;
    // Younger than its first retransmission, which would be an event; old enough for a line.
    std::thread::sleep(Duration::from_millis(400));
    let began = Instant::now();
    binary::signal(&child, libc::SIGTERM)?;
    let ran = ended(child)?;
    let took = began.elapsed();
    let text = reader.join().map_err(|_| anyhow!("it panicked"))??;
    ensure!(ran.code == Some(0), "{ran:?}");
    ensure!(took < BOUND, "SIGTERM took {took:?}");
    let lines = schema::check(text.iter().map(String::as_str))?;
    let seen = lines.iter().any(|l| {
        l["type"] == "handshake"
            && l["netns"] == u64::from(lab.server.inode())
            && l["peer_port"] == stranger.port()
    });
    let reached = !lines.iter().any(|l| {
        l["reason"]
            .as_str()
            .is_some_and(|r| r.starts_with("last looks"))
    });
    if !reached && !seen {
        return Err(Undecided("the last look had no time for all".to_owned()).into());
    }
    ensure!(seen, "the half-open was not seen");
    drop(idle);
    figure(format!("{IDLE} idle namespaces: SIGTERM took {took:?}"));
    Ok(())
}
