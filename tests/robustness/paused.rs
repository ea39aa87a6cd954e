//! The agent does not run for ten seconds, under load, with a small ring, as if its host were suspended.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use synprobe_lab::{Client, Lab, PORT, Server, SocketFamily};
use synprobe_tests::{agent::Agent, binary::netns_path, harness::figure};

/// Of the loss, and afterwards.
const BEFORE: u64 = 20;
const AFTER: u64 = 50;

pub fn ten_seconds() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    lab.server.set_sysctl("core/somaxconn", "8192")?;
    let (loaded, later, nobody) = (PORT, PORT + 1, PORT + 2);
    let server = Server::start(vec![lab.listen(loaded, 8192)?, lab.listen(later, 8192)?])?;
    let agent = Agent::watch(&["--ring-size", "64K", "--netns", &netns_path(&lab.client)])?;
    let connect = |port: u16| {
        lab.client
            .run(|| Ok(TcpStream::connect(lab.server_addr(port))?))
    };
    let refused = || -> Result<()> {
        let client = Client::connect(&lab.client, lab.server_addr(nobody), |_| Ok(()))?;
        drop(client);
        Ok(())
    };
    refused()?;
    let first = agent.wait_for("a refused connect", |l| {
        l["type"] == "handshake" && l["outcome"] == "refused"
    })?;
    ensure!(
        first["verdict"] == "refused" && first["confidence"] == "certain",
        "{first}"
    );
    for _ in 0..BEFORE {
        drop(connect(loaded)?);
    }
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let memory = agent.status_kib("VmRSS")?;
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            lab.client.run(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(TcpStream::connect(lab.server_addr(loaded))?);
                    made.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        agent.signal(libc::SIGSTOP)?;
        // What is tested is this very time.
        std::thread::sleep(Duration::from_secs(10));
        agent.signal(libc::SIGCONT)?;
        // Under load still, it says what it has missed.
        let said = agent.wait_for("what was lost", |l| {
            l["type"] == "lost" && l["reason"].to_string().contains("the ring was full")
        });
        stop.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow!("it panicked"))??;
        said.map(drop)
    })?;
    refused()?;
    let again = agent.wait_for("a refused connect", |l| {
        l["type"] == "handshake" && l["outcome"] == "refused" && l["id"] != first["id"]
    })?;
    // What was lost was of an earlier time.
    ensure!(
        again["verdict"] == "refused" && again["confidence"] == "certain",
        "as sure as before: {again}"
    );
    let said_at = Instant::now();
    for _ in 0..AFTER {
        drop(connect(later)?);
    }
    let told = |l: &serde_json::Value| l["type"] == "handshake" && l["peer_port"] == later;
    let complete = agent.wait_for("the last of them", |l| {
        told(l) && l["outcome"] == "established"
    });
    complete?;
    ensure!(said_at.elapsed() < Duration::from_secs(30));
    let grown = agent.status_kib("VmHWM")?.saturating_sub(memory);
    let ended = agent.end()?;
    let later = ended.handshakes().filter(|l| told(l)).count() as u64;
    ensure!(later == AFTER, "{later} of {AFTER} afterwards");
    let sum = |field: &str| ended.summary().map(|end| end[field].as_u64().unwrap_or(0));
    let (events, lost, produced) = (sum("events")?, sum("lost")?, sum("produced")?);
    let said: u64 = ended
        .lines
        .iter()
        .filter(|l| l["type"] == "lost")
        .filter_map(|l| l["events"].as_u64())
        .sum();
    ensure!(
        lost == said && events + lost == produced,
        "{:?}",
        ended.summary()
    );
    let made = made.load(Ordering::Relaxed);
    // Three records or more for each on this side.
    ensure!(lost > made / 2, "{lost} lost of {made} connections");
    server.stop()?;
    figure(format!(
        "stopped for 10 s: {made} connections, {produced} produced = {events} received + {lost} lost; \
         {grown} KiB more memory"
    ));
    Ok(())
}
