//! A CPU goes offline while handshakes are made on it, and comes back. The counts in its per-CPU maps are
//! kept, and the ring continues.

use std::{
    fs, io,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use synprobe_lab::{Lab, PORT, Server, SocketFamily};
use synprobe_tests::{
    agent::{Agent, FinishedAgent},
    guest::is_guest,
    harness::figure,
};

/// Every handshake has lines.
pub const RECORDS: &[&str] = &["--ring-size", "16M", "--log-level", "info"];
/// Every handshake is counted, in a map of the CPU that it was made on.
pub const QUIET: &[&str] = &["--quiet", "--log-level", "info"];
/// The one that comes and goes. Guests begin without it (`maxcpus=1`).
const CPU: usize = 1;
const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";
/// On one CPU, one after the other.
const HANDSHAKES: u64 = 100;
/// Under load.
const TURNS: usize = 3;

/// The second CPU; away again with the value.
struct Second;

impl Second {
    fn new() -> Result<Self> {
        ensure!(is_guest(), "only a guest's CPUs are switched");
        Ok(Self)
    }

    fn switch(&self, on: bool) -> Result<()> {
        let wanted = if on { "1" } else { "0" };
        fs::write(SWITCH, wanted).with_context(|| format!("{wanted} into {SWITCH}"))?;
        let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
        let due = if on { "0-1" } else { "0" };
        ensure!(online.trim() == due, "CPUs online: {online}");
        Ok(())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // What the next test finds matters only where this one has not failed.
        let _ = self.switch(false);
    }
}

/// What makes the handshakes, and how many.
struct Traffic {
    lab: Lab,
    server: Server,
    made: u64,
}

impl Traffic {
    fn new() -> Result<Self> {
        let lab = Lab::new(SocketFamily::V4)?;
        let server = Server::start(vec![lab.listen(PORT, 1024)?])?;
        Ok(Self {
            lab,
            server,
            made: 0,
        })
    }

    /// Handshakes on this CPU.
    fn on(&mut self, cpu: usize) -> Result<()> {
        self.lab.client.run(|| {
            // The thread is over with this.
            pin_to(cpu)?;
            for _ in 0..HANDSHAKES {
                drop(TcpStream::connect(self.lab.server_addr(PORT))?);
                // SAFETY: takes nothing.
                let at = unsafe { libc::sched_getcpu() };
                ensure!(usize::try_from(at)? == cpu, "on CPU {at}, not {cpu}");
            }
            Ok(())
        })?;
        self.made += HANDSHAKES;
        Ok(())
    }

    /// Handshakes on any CPU, all through `meanwhile`.
    fn during(&mut self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        let stop = AtomicBool::new(false);
        let lab = &self.lab;
        self.made += std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                lab.client.run(|| {
                    let mut made = 0;
                    while !stop.load(Ordering::Relaxed) {
                        drop(TcpStream::connect(lab.server_addr(PORT))?);
                        made += 1;
                    }
                    Ok(made)
                })
            });
            let done = meanwhile();
            stop.store(true, Ordering::Relaxed);
            let made = load.join().map_err(|_| anyhow!("it panicked"))??;
            done.map(|()| made)
        })?;
        Ok(())
    }

    /// What was told is what the kernel has counted, and what was made.
    fn agrees_with(self, ended: &FinishedAgent) -> Result<()> {
        let counted = self.lab.counters()?;
        self.server.stop()?;
        let told = |role: &str| -> u64 {
            let of_role = |l: &&Value| l["role"] == role;
            let completed = ended.lines.iter().filter(|l| l["type"] == "completed");
            let completed = completed.filter(of_role);
            let counted: u64 = completed.filter_map(|l| l["handshakes"].as_u64()).sum();
            let lines = ended.handshakes().filter(of_role);
            let lines = lines.filter(|l| l["outcome"] == "established").count() as u64;
            // In the quiet mode the lines are among what was counted.
            if counted > 0 { counted } else { lines }
        };
        let numbers = [
            self.made,
            told("client"),
            counted.client.get("ActiveOpens"),
            told("server"),
            counted.server.get("PassiveOpens"),
        ];
        ensure!(
            numbers.iter().all(|number| *number == self.made),
            "made, told and counted by the kernel as client and as server: {numbers:?}"
        );
        let end = ended.summary()?;
        ensure!(end["events"] == end["produced"], "{end}");
        let stood_in = ended.err.lines().find(|l| l.contains("stand_in: "));
        let stood_in = stood_in.and_then(|l| l.split("stand_in: ").nth(1));
        figure(format!(
            "{} handshakes, counted exactly; the stand-in: {}",
            self.made,
            stood_in.unwrap_or("none")
        ));
        Ok(())
    }
}

fn pin_to(cpu: usize) -> Result<()> {
    // SAFETY: an all-zero set is a valid one; it is alive for the call with its own length.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    ensure!(pinned == 0, "CPU {cpu}: {}", io::Error::last_os_error());
    Ok(())
}

/// Both CPUs are there at first, and one is left at the end.
pub fn taken_away(detail: &[&str]) -> Result<()> {
    let second = Second::new()?;
    second.switch(true)?;
    let mut traffic = Traffic::new()?;
    let agent = Agent::watch(detail)?;
    traffic.on(0)?;
    traffic.on(CPU)?;
    traffic.during(|| second.switch(false))?;
    traffic.on(0)?;
    traffic.agrees_with(&agent.end()?.complete()?)
}

/// The run begins on one CPU; the other comes and goes under load, and stays.
pub fn added(detail: &[&str]) -> Result<()> {
    let second = Second::new()?;
    let mut traffic = Traffic::new()?;
    let agent = Agent::watch(detail)?;
    traffic.on(0)?;
    traffic.during(|| {
        for _ in 0..TURNS {
            second.switch(true)?;
            second.switch(false)?;
        }
        second.switch(true)
    })?;
    traffic.on(CPU)?;
    traffic.on(0)?;
    traffic.agrees_with(&agent.end()?.complete()?)
}
