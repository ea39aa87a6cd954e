//! The flood of `cargo xtask bench`: SYNs from spoofed addresses, and legitimate clients at another port. Reads
//! commands from standard input, one a line, and answers each with a JSON object:
//!
//! - `flood MILLISECONDS`: SYNs at full speed, and [`HONEST_RATE`] legitimate connections per second;
//! - `fill NUMBER`: this number of half-opens.

use std::{
    io::{self, BufRead, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use synprobe_lab::{Lab, PORT, RawSender, Server, SocketFamily, TcpCounters, sink, spoofed};

/// Port of the legitimate clients.
const HONEST: u16 = PORT + 1;
/// Legitimate connections per second.
const HONEST_RATE: u32 = 200;
/// Backlog of the flooded port, about the maximum of production hosts. SYN cookies answer the rest.
const QUEUE: i32 = 4096;
/// Backlog of the filled port. The kernel shortens the lifetime of half-opens in a queue that is half full.
const ROOMY: i32 = 1 << 23;
const FILLED: u16 = PORT + 2;
/// Unassigned addresses: those of a flood are beyond the client, those that fill a queue are beyond a sink. Their
/// number is within the kernel's default limit of neighbour entries (`net.ipv4.neigh.default.gc_thresh3`).
const FLOODING: (u16, u32) = (1 << 14, 16_000);
const FILLING: (u16, u32) = (0, 1_000);
/// The network of the latter.
const BEYOND_THE_SINK: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(198, 18, 128, 0)), 18);
/// SYNs between two checks of the clock.
const A_STEP: u32 = 64;
/// SYNs that wait to be received, at most: with their answers half of what `net.core.netdev_max_backlog`
/// admits by default.
const A_QUEUEFUL: u32 = 250;
/// Those that have been sent arrive within this time, or not at all.
const PATIENCE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flood: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    lab.server.set_sysctl("ipv4/tcp_syncookies", "1")?;
    lab.server
        .set_sysctl("core/somaxconn", &ROOMY.to_string())?;
    let listeners = vec![
        lab.listen(PORT, QUEUE)?,
        lab.listen(HONEST, QUEUE)?,
        lab.listen(FILLED, ROOMY)?,
    ];
    sink(&lab.server, BEYOND_THE_SINK)?;
    let server = Server::start(listeners)?;
    let mut flood = Flood {
        sender: RawSender::open(&lab.client, false)?,
        server: lab.server_ip(),
        sent: 0,
    };
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.trim().split_once(' ') {
            Some(("flood", millis)) => {
                flood.for_so_long(&lab, Duration::from_millis(millis.parse()?))?
            }
            Some(("fill", number)) => flood.fill(&lab, number.parse()?)?,
            _ => bail!("{line:?} is neither flood nor fill"),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    server.stop()?;
    Ok(())
}

struct Flood {
    sender: RawSender,
    server: IpAddr,
    sent: u32,
}

impl Flood {
    fn send(&mut self, port: u16, (first, hosts): (u16, u32), number: u32) -> Result<()> {
        for _ in 0..number {
            let host = spoofed(false, first + (self.sent % hosts) as u16);
            let from = 1024 + (self.sent / hosts % 60_000) as u16;
            let source = SocketAddr::new(host, from);
            let target = SocketAddr::new(self.server, port);
            self.sender.syn(source, target, self.sent << 8)?;
            self.sent = self.sent.wrapping_add(1);
        }
        Ok(())
    }

    fn for_so_long(&mut self, lab: &Lab, length: Duration) -> Result<Value> {
        let (began, before) = (Instant::now(), self.sent);
        let over = AtomicBool::new(false);
        let counted = TcpCounters::read(&lab.server)?;
        let honest = thread::scope(|scope| {
            let clients = scope.spawn(|| honest(lab, &over));
            let mut sent = Ok(());
            while began.elapsed() < length && sent.is_ok() {
                sent = self.send(PORT, FLOODING, A_STEP);
            }
            over.store(true, Ordering::Relaxed);
            let honest = clients.join();
            sent.and(honest.unwrap_or_else(|_| bail!("an honest client panicked")))
        })?;
        let counted = TcpCounters::read(&lab.server)?.since(&counted);
        Ok(json!({
            "syns": self.sent - before,
            "seconds": began.elapsed().as_secs_f64(),
            "honest": honest,
            "honest_port": HONEST,
            "cookies": counted.get("SyncookiesSent"),
        }))
    }

    fn fill(&mut self, lab: &Lab, number: u32) -> Result<Value> {
        let began = Instant::now();
        let before = TcpCounters::read(&lab.server)?;
        let arrived = || {
            let now = TcpCounters::read(&lab.server)?;
            anyhow::Ok(now.since(&before).get("InSegs"))
        };
        loop {
            let there = arrived()?;
            let step = u64::from(A_QUEUEFUL).min(u64::from(number).saturating_sub(there));
            if step == 0 {
                break;
            }
            self.send(FILLED, FILLING, step as u32)?;
            // The queue between the two hosts is short, and what does not fit is gone: it is made up for.
            let patience = Instant::now() + PATIENCE;
            while arrived()? < there + step && Instant::now() < patience {}
        }
        let counted = TcpCounters::read(&lab.server)?.since(&before);
        ensure!(
            counted.get("ListenDrops") == 0 && counted.get("SyncookiesSent") == 0,
            "not every SYN found room"
        );
        let seconds = began.elapsed().as_secs_f64();
        let half_opens = lab.half_opens(FILLED)?;
        Ok(json!({ "half_opens": half_opens, "seconds": seconds, "port": FILLED }))
    }
}

/// Honest connections until it is over, one after another, and how many they were.
fn honest(lab: &Lab, over: &AtomicBool) -> Result<u64> {
    lab.client.enter_on_this_thread()?;
    let mut made = 0;
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        drop(TcpStream::connect(lab.server_addr(HONEST)).context("an honest client")?);
        made += 1;
        next += Duration::from_secs(1) / HONEST_RATE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(made)
}
