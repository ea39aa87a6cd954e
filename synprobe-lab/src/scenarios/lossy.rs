use std::{io::Write, sync::atomic::AtomicBool};

use anyhow::{Context, Result};

use crate::{
    Client, FaultInjector, GroundTruth, Lab, LossPattern, PORT, Server, Side, data,
    scenario::{Scenario, ScenarioRun},
    set_option,
};

/// One pattern of loss, on its own port.
struct Phase {
    port: u16,
    what: &'static str,
    connections: u64,
    /// Number of small segments, written in a row once the first data is acknowledged.
    writes: u64,
    /// Bitmap of lost data segments, retransmissions included; bit 0 is the first segment.
    lost: u64,
    /// tcp_early_retrans: 3 allows tail-loss probes, 0 forbids them.
    early_retrans: &'static str,
    /// Retransmissions on each connection: tlp, rto, fast, recovery.
    repairs: [u64; 4],
}

const PHASES: [Phase; 4] = [
    Phase {
        port: PORT,
        what: "the last segment, once: a tail-loss probe repairs it",
        connections: 1,
        writes: 1,
        lost: 0b10,
        early_retrans: "3",
        repairs: [1, 0, 0, 0],
    },
    Phase {
        port: PORT + 1,
        what: "the last segment and its first retransmission: two RTOs",
        connections: 1,
        writes: 1,
        lost: 0b110,
        early_retrans: "0",
        repairs: [0, 2, 0, 0],
    },
    Phase {
        port: PORT + 2,
        what: "the second of a flight of five segments: a fast retransmit",
        connections: 2,
        writes: 5,
        lost: 0b100,
        early_retrans: "0",
        repairs: [0, 0, 1, 0],
    },
    Phase {
        port: PORT + 3,
        what: "a whole flight of five segments: one RTO, then recovery of the other four",
        connections: 1,
        writes: 5,
        lost: 0b11_1110,
        early_retrans: "0",
        repairs: [0, 1, 0, 4],
    },
];

/// Data is lost after the handshake, in patterns with exactly known retransmissions.
pub(super) struct LossyScenario;

impl Scenario for LossyScenario {
    fn name(&self) -> &'static str {
        "lossy"
    }

    fn summary(&self) -> &'static str {
        "data is lost and retransmitted: tail-loss probe, RTO, fast retransmit, recovery after RTO"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn ports(&self) -> &'static [u16] {
        &[PORT, PORT + 1, PORT + 2, PORT + 3]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        // One write() is one segment, also when it is retransmitted.
        lab.client.set_sysctl("ipv4/tcp_autocorking", "0")?;
        lab.client.set_sysctl("ipv4/tcp_retrans_collapse", "0")?;
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let server = Server::start(listeners)?;
        let mut fault = FaultInjector::attach(&lab.server)?;
        for (slot, phase) in (0..).zip(&PHASES) {
            fault.set(slot, data(), LossPattern::Ordinals(phase.lost), phase.port)?;
        }
        let mut totals = [0; 4];
        for (slot, phase) in (0..).zip(&PHASES) {
            lab.client
                .set_sysctl("ipv4/tcp_early_retrans", phase.early_retrans)?;
            for _ in 0..phase.connections {
                let sent = one_connection(&mut run, phase);
                sent.with_context(|| format!("losing {}", phase.what))?;
            }
            run.report_fault(&fault, slot, phase.what)?;
            for (total, repairs) in totals.iter_mut().zip(phase.repairs) {
                *total += repairs * phase.connections;
            }
        }
        server.stop()?;

        let [tlp, rto, fast, recovery] = totals;
        for (name, moved) in [
            ("TCPLossProbes", tlp),
            ("TCPTimeouts", rto),
            ("TCPFastRetrans", fast),
            ("TCPSlowStartRetrans", recovery),
            ("RetransSegs", tlp + rto + fast + recovery),
        ] {
            run.expect(Side::Client, name, moved..=moved);
        }
        run.expect(Side::Server, "RetransSegs", 0..=0);
        for (kind, count) in [
            ("tlp", tlp),
            ("rto", rto),
            ("fast", fast),
            ("recovery", recovery),
        ] {
            run.expect_retransmits(Side::Client, kind, count..=count);
        }
        run.end()
    }
}

fn one_connection(run: &mut ScenarioRun<'_>, phase: &Phase) -> Result<()> {
    if run.stopped() {
        return Ok(());
    }
    let peer = run.lab.server_addr(phase.port);
    let mut client = Client::connect(&run.lab.client, peer, |fd| {
        let on: libc::c_int = 1;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &on)?;
        // Other algorithms pace or probe: the order of segments would be unknown.
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"cubic")
            .or_else(|_| set_option(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"reno"))
    })?;
    run.settle([&mut client])?;
    run.both_healthy(&client)?;
    // All segments leave from one CPU, or they might be reordered.
    let pinned = Pinned::here();
    client.stream.write_all(b"first")?;
    run.wait_acknowledged(&client)?;
    for _ in 0..phase.writes {
        client.stream.write_all(b"again")?;
    }
    drop(pinned);
    // Only after all retransmissions, so that the FIN is not part of the lost flight.
    run.wait_acknowledged(&client)?;
    run.finish([client])
}

/// Pins the calling thread to its current CPU.
struct Pinned(libc::cpu_set_t);

impl Pinned {
    fn here() -> Option<Self> {
        // SAFETY: all-zero bytes are a valid, empty set.
        let mut before: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is alive and its size is its own.
        let got = unsafe { libc::sched_getaffinity(0, size_of_val(&before), &raw mut before) };
        // SAFETY: it takes no pointers.
        let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
        // SAFETY: all-zero bytes are a valid, empty set.
        let mut here: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        if got != 0 || cpu >= libc::CPU_SETSIZE as usize {
            return None;
        }
        // SAFETY: the index was checked.
        unsafe { libc::CPU_SET(cpu, &mut here) };
        set(&here).then_some(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        set(&self.0);
    }
}

fn set(cpus: &libc::cpu_set_t) -> bool {
    // SAFETY: the set is alive and its size is its own; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(cpus), cpus) == 0 }
}
