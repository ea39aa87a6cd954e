//! `cargo xtask soak`: runs `serve` beside scenarios, healthy load and floods for a while, with all its outputs:
//! scrapes, OTLP, a rolling recording. Its memory must not grow, its records must add up, its table must be empty
//! at the end, and no descriptor may be left open.

mod outputs;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use outputs::{Descriptors, Outputs};
use serde_json::Value;
use synprobe::{
    diag::{
        inet_diag_msg::mask,
        sock_diag::{Query, SockDiag},
    },
    sys::netns::NetNs,
};
use synprobe_lab::{self, Jitter, Lab, SocketFamily};
use synprobe_tests::binary;

/// Runs the soak test.
#[derive(Parser)]
struct SoakOptions {
    /// Duration, seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Scenarios in parallel
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// The synprobe binary to test
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,
}

/// Interval between two samples of the agent.
const LOOK: Duration = Duration::from_secs(2);
/// After the labs have ended, their remaining half-opens find a closed listener when their timer fires. The
/// last fires after 32 s and an eighth, in a namespace that only the agent holds.
const LAST_TIMER: Duration = Duration::from_secs(40);
/// The next sock_diag dumps show which half-opens are gone. In a namespace that ended before its dump this is
/// known once the SYN-ACK is overdue: 4 s and the last time-out (32 s) two and a quarter times
/// (`track/orphaned.rs`). A status is used again for up to 15 s.
const OVERDUE: Duration = Duration::from_secs(100);
/// A run of this length waits until the namespaces are closed again.
const LONG: Duration = Duration::from_secs(300);
/// The agent closes a namespace within this time after nothing has used it.
const CLOSED: Duration = Duration::from_secs(80);
/// Memory may grow by this factor and this many bytes, because of the allocator.
const FLAT: (f64, u64) = (1.10, 4 << 20);
/// By then the tables are full: a window of problems, and two minutes of a recording.
const WARM: Duration = Duration::from_secs(150);
/// Memory that no run needs.
const MOST: u64 = 96 << 20;

/// One sample of the agent.
#[derive(Clone, Copy, Debug)]
struct MemorySample {
    at: Duration,
    bytes: u64,
    cpu: Duration,
}

fn main() -> ExitCode {
    match run(&SoakOptions::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &SoakOptions) -> Result<()> {
    let path = std::env::temp_dir().join(format!("synprobe-soak-{}", std::process::id()));
    let output = File::create_new(&path)?;
    let reader = File::open(&path)?;
    // It goes with the last who has it open.
    fs::remove_file(&path)?;
    let mut outputs = Outputs::new()?;
    let mut agent = Command::new(&args.agent)
        .arg("serve")
        .args(outputs.options())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{}: is it built?", args.agent.display()))?;
    let soaked = serving(&mut agent).and_then(|address| soak(args, &agent, address, &mut outputs));
    if soaked.is_err() {
        let _ = agent.kill();
    } else {
        binary::signal(&agent, libc::SIGINT)?;
    }
    let status = agent.wait()?;
    let (looks, scenarios) = soaked?;
    ensure!(status.success(), "the agent: {status}");
    judge(&looks, scenarios, reader, &outputs)
}

/// Where it serves. What else it prints on standard error is printed here.
fn serving(agent: &mut Child) -> Result<SocketAddr> {
    let errors = agent.stderr.take().context("standard error")?;
    let mut lines = BufReader::new(errors).lines();
    let first = lines.next().context("it does not serve")??;
    thread::spawn(move || {
        for line in lines.map_while(std::result::Result::ok) {
            eprintln!("agent: {line}");
        }
    });
    let address = first.strip_prefix("synprobe: serving ");
    let address = address.with_context(|| format!("it does not serve: {first}"))?;
    Ok(address.parse()?)
}

/// Scenario after scenario, riddles and floods among them; each has healthy traffic beside it.
fn soak(
    args: &SoakOptions,
    agent: &Child,
    address: SocketAddr,
    outputs: &mut Outputs,
) -> Result<(Vec<MemorySample>, usize)> {
    let descriptors = Descriptors::of(agent.id())?;
    let began = Instant::now();
    let length = Duration::from_secs(args.seconds);
    let (over, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    let mut looks = Vec::new();
    let mut scraped = Ok(());
    thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = one(n, &over) {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push(error);
                    }
                }
            });
        }
        while began.elapsed() < length {
            thread::sleep(LOOK.min(length));
            match look(agent, began) {
                Ok(look) => looks.push(look),
                Err(_) => break,
            }
            scraped = outputs.scrape_in_time(address);
            if scraped.is_err() {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    scraped.context("a scrape")?;
    let until = Instant::now() + LAST_TIMER;
    while half_opens(agent)? > 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(500));
    }
    let left = half_opens(agent)?;
    ensure!(
        left == 0,
        "the kernel has {left} half-opens, with their listeners closed"
    );
    let until = Instant::now() + OVERDUE;
    while outputs.half_opens(address)? > 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(500));
    }
    looks.push(look(agent, began).context("the agent is gone")?);
    if length >= LONG {
        let until = Instant::now() + CLOSED;
        while !Descriptors::of(agent.id())?.has_closed(descriptors) && Instant::now() < until {
            thread::sleep(Duration::from_millis(500));
        }
    }
    Descriptors::of(agent.id())?.check(descriptors)?;
    // A busy host may spoil a scenario; what the agent says of it must hold all the same.
    for error in failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        eprintln!("soak: a scenario was spoilt: {error:#}");
    }
    Ok((looks, next.into_inner()))
}

/// Half-opens in all namespaces that the agent looks into, as the kernel has them now.
fn half_opens(agent: &Child) -> Result<usize> {
    let mut half_opens = 0;
    for entry in fs::read_dir(format!("/proc/{}/fd", agent.id()))? {
        let path = entry?.path();
        // It may let one go at any time.
        let Ok(target) = fs::read_link(&path) else {
            continue;
        };
        if !target.to_string_lossy().starts_with("net:") {
            continue;
        }
        if let Ok(file) = File::open(&path)
            && let Ok(netns) = NetNs::from_fd(file.into())
        {
            let dump = SockDiag::open(&netns)?.dump(&Query::states(mask::SYN_RECV))?;
            half_opens += dump.rows.len();
        }
    }
    Ok(half_opens)
}

fn one(n: usize, over: &AtomicBool) -> Result<()> {
    let scenarios = synprobe_lab::all();
    let scenario = scenarios[n % scenarios.len()];
    let family = [SocketFamily::V4, SocketFamily::V6][n / scenarios.len() % 2];
    if !scenario.supports(family) {
        return Ok(());
    }
    let mut lab = Lab::new(family)?;
    lab.jitter = Jitter {
        seed: n as u64,
        background: true,
    };
    scenario
        .run(&lab, over)
        .map(drop)
        .with_context(|| format!("{} {family:?}", scenario.name()))
}

fn look(agent: &Child, began: Instant) -> Result<MemorySample> {
    let kib = binary::status_kib(agent.id(), "VmRSS")?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    // utime and stime, in USER_HZ: 100 everywhere.
    let cpu = Duration::from_millis((ticks(12) + ticks(13)) * 10);
    Ok(MemorySample {
        at: began.elapsed(),
        bytes: kib * 1024,
        cpu,
    })
}

fn judge(looks: &[MemorySample], scenarios: usize, output: File, outputs: &Outputs) -> Result<()> {
    let (mut open, mut lost, mut handshakes, mut end) = (Vec::new(), Vec::new(), 0_u64, None);
    let mut exported = 0;
    for line in BufReader::new(output).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        // These are log records too.
        let record = |kind| ["handshake", "problem", "lost"].contains(&kind);
        exported += usize::from(line["type"].as_str().is_some_and(record));
        match line["type"].as_str() {
            Some("handshake") => {
                handshakes += 1;
                let unseen = line["evidence"].as_array().is_some_and(|all| {
                    let said = |e: &Value| e["fact"].as_str().map(str::to_owned);
                    all.iter()
                        .filter_map(said)
                        .any(|f| f.contains("was not seen"))
                });
                if line["outcome"] == "open" && !unseen {
                    open.push(line);
                }
            }
            Some("lost") => lost.push(line),
            Some("end") => end = Some(line),
            _ => (),
        }
    }
    let end = end.context("no end line")?;
    let number = |name: &str| end[name].as_u64().with_context(|| format!("{name}: {end}"));
    let (first, last) = (
        looks.first().context("no look")?,
        looks.last().context("no look")?,
    );
    let warm_at = looks.iter().position(|look| look.at >= WARM);
    let warm = warm_at.and_then(|at| looks.get(at));
    let most = looks.iter().map(|l| l.bytes).max().unwrap_or(0);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{scenarios} scenarios in {:.0} s: {handshakes} handshakes with a line and {} only counted, {} records, {} lost",
        last.at.as_secs_f64(),
        number("counted")?,
        number("events")?,
        number("lost")?
    );
    let warm_mib = warm.map_or(String::new(), |warm| {
        format!(
            ", {:.1} after {:.0} s",
            mib(warm.bytes),
            warm.at.as_secs_f64()
        )
    });
    println!(
        "memory {:.1} MiB at first{warm_mib}, {:.1} at most, {:.1} at the end",
        mib(first.bytes),
        mib(most),
        mib(last.bytes)
    );
    println!(
        "agent {:.2} % of a core",
        (last.cpu.saturating_sub(first.cpu)).as_secs_f64() * 100.0
            / (last.at - first.at).as_secs_f64()
    );
    for line in &lost {
        println!("lost {}: {}", line["events"], line["reason"]);
    }
    println!("left in the table at the end: {}", open.len());
    outputs.check(exported)?;
    ensure!(
        number("produced")? == number("events")? + number("lost")?,
        "received and lost are not what was produced: {end}"
    );
    ensure!(
        handshakes == number("handshakes")?,
        "{handshakes} handshake lines: {end}"
    );
    ensure!(
        open.is_empty(),
        "{} handshakes left in the table that the kernel does not have, such as {}",
        open.len(),
        open[0]
    );
    ensure!(most <= MOST, "memory grew to {most} bytes");
    // A short run ends before the tables are full.
    let Some(warm) = warm else {
        return Ok(());
    };
    let bound = (warm.bytes as f64 * FLAT.0) as u64 + FLAT.1;
    ensure!(
        last.bytes <= bound,
        "memory grew from {} to {} bytes after the warm-up",
        warm.bytes,
        last.bytes
    );
    Ok(())
}
