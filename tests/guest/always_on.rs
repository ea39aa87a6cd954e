//! What an agent costs that is always on: `watch --quiet` and `serve` with all its outputs, without load and with
//! one. In instructions, as in [`price`](super::price).

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{Lab, PORT, SocketFamily};
use synprobe_tests::{
    binary::{command, ended, signal, status_kib},
    collector::{Collector, TAKEN},
    guest::is_guest,
    harness::figure,
    recorded::Scratch,
};

/// The work of starting is done by then.
const SETTLED: Duration = Duration::from_secs(30);
/// Between two scrapes, and two exports.
const INTERVAL: Duration = Duration::from_secs(15);
/// Intervals that are measured.
const INTERVALS: u32 = 4;
/// Connections a second under load.
const RATE: u32 = 500;
/// `watch --quiet` without load, instructions a second; half as much again as was measured (docs/performance.md).
const WATCH_IDLE: u64 = 2_800_000;
/// The same of `serve`.
const SERVE_IDLE: u64 = 4_100_000;

/// One agent, by what it took.
struct AgentPrice {
    /// Instructions a second.
    each_second: u64,
    /// The same of each thread that is still there, by name.
    threads: BTreeMap<String, u64>,
    /// Resident, KiB: before, and after each interval.
    resident: Vec<u64>,
}

/// `watch --quiet` and `serve`, idle and with connections.
pub fn price() -> Result<()> {
    ensure!(is_guest(), "only a guest's clock counts instructions");
    let lab = Lab::new(SocketFamily::V4)?;
    lab.client.set_sysctl("ipv4/tcp_max_tw_buckets", "0")?;
    for (load, what) in [(0, "without load"), (RATE, "at 500 connections a second")] {
        let watch = watched(&lab, load)?;
        let serve = served(&lab, load)?;
        for (name, price) in [("watch --quiet", &watch), ("serve", &serve)] {
            figure(format!(
                "{name} {what}: {} instructions a second; {:?}; resident {:?} KiB",
                price.each_second, price.threads, price.resident
            ));
        }
        if load == 0 {
            ensure!(
                watch.each_second <= WATCH_IDLE && serve.each_second <= SERVE_IDLE,
                "idle: {} and {} instructions a second",
                watch.each_second,
                serve.each_second
            );
        }
    }
    Ok(())
}

fn watched(lab: &Lab, load: u32) -> Result<AgentPrice> {
    let mut watch = command(&["watch", "--quiet", "--format", "json"])?;
    watch.stdout(Stdio::null()).stderr(Stdio::null());
    let child = watch.spawn()?;
    let price = measured(lab, &child, load, || Ok(()))?;
    signal(&child, libc::SIGTERM)?;
    ended(child)?;
    Ok(price)
}

fn served(lab: &Lab, load: u32) -> Result<AgentPrice> {
    let collector = Collector::start(|_, _| Some(TAKEN))?;
    let folder = Scratch::new();
    fs::create_dir(&folder.0)?;
    let interval = format!("{}s", INTERVAL.as_secs());
    let mut serve: Command = command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--otlp",
        &collector.url(),
        "--otlp-interval",
        &interval,
        "--rolling",
        folder.text(),
    ])?;
    serve.stdout(Stdio::null());
    let mut child = serve.spawn()?;
    let mut err = BufReader::new(child.stderr.take().context("standard error")?);
    let mut line = String::new();
    err.read_line(&mut line)?;
    let address = line.trim().strip_prefix("synprobe: serving ");
    let address: SocketAddr = address.with_context(|| line.clone())?.parse()?;
    let price = measured(lab, &child, load, || scrape(address))?;
    ensure!(
        collector.metrics()?.len() >= INTERVALS as usize,
        "too few exports"
    );
    signal(&child, libc::SIGTERM)?;
    ended(child)?;
    Ok(price)
}

fn scrape(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    ensure!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    Ok(())
}

/// What the agent takes while connections are made, and `once` is called in each interval.
fn measured(
    lab: &Lab,
    agent: &Child,
    load: u32,
    once: impl Fn() -> Result<()>,
) -> Result<AgentPrice> {
    let pid = agent.id();
    thread::sleep(SETTLED);
    let mut resident = vec![status_kib(pid, "VmRSS")?];
    let (cpu, threads) = (cpu_of(pid)?, threads_of(pid)?);
    let began = Instant::now();
    for _ in 0..INTERVALS {
        connections(lab, load, INTERVAL / 2)?;
        once()?;
        connections(lab, load, INTERVAL / 2)?;
        resident.push(status_kib(pid, "VmRSS")?);
    }
    let (took, seconds) = (cpu_of(pid)? - cpu, began.elapsed().as_secs_f64());
    let each_second = |n: u64| (n as f64 / seconds) as u64;
    let threads = threads_of(pid)?.into_iter().map(|(name, now)| {
        let before = threads.get(&name).copied().unwrap_or(0);
        (name, each_second(now.saturating_sub(before)))
    });
    Ok(AgentPrice {
        each_second: each_second(took),
        threads: threads.collect(),
        resident,
    })
}

/// Opened, accepted and closed, for so long.
fn connections(lab: &Lab, each_second: u32, length: Duration) -> Result<()> {
    let began = Instant::now();
    lab.client.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
        for n in 1.. {
            let due = match each_second {
                0 => length,
                rate => Duration::from_secs(1) * n / rate,
            };
            thread::sleep(due.min(length).saturating_sub(began.elapsed()));
            if due >= length {
                return Ok(());
            }
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
            let (accepted, _) = listener.accept()?;
            drop(client);
            drop(accepted);
        }
        Ok(())
    })
}

/// CPU time of a process, its threads that have ended included: nanoseconds, which are instructions.
fn cpu_of(pid: u32) -> Result<u64> {
    let (mut clock, mut time) = (
        0,
        libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
    );
    // SAFETY: both pointers are to locals.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock)
            | libc::clock_gettime(clock, &raw mut time)
    };
    ensure!(failed == 0, "the CPU clock of {pid}");
    Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// The same of each thread, by name.
fn threads_of(pid: u32) -> Result<BTreeMap<String, u64>> {
    let mut threads = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        // One may end meanwhile.
        let read = |file: &str| fs::read_to_string(thread.join(file)).unwrap_or_default();
        let ran = read("schedstat");
        let ran = ran.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        *threads.entry(read("comm").trim().to_owned()).or_default() += ran.unwrap_or(0);
    }
    Ok(threads)
}
