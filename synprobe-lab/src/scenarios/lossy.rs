use std::io::Write;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use crate::scenario::{Run, Scenario};
use crate::{Client, Fault, Lab, Lose, Made, PORT, Server, Side, data, set_option};

/// One way to lose data, on a port of its own.
struct Phase {
    port: u16,
    what: &'static str,
    connections: u64,
    /// Small segments, written one after the other once the first has been acknowledged.
    writes: u64,
    /// Which data segments are lost, retransmissions counted too; bit 0 is the first.
    lost: u64,
    /// tcp_early_retrans: 3 allows tail-loss probes, 0 forbids them.
    early_retrans: &'static str,
    /// What makes up for it on each connection: tlp, rto, fast, recovery.
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

/// Data is lost after the handshake, in ways whose repair is exactly known.
pub(super) struct Lossy;

impl Scenario for Lossy {
    fn name(&self) -> &'static str {
        "lossy"
    }

    fn summary(&self) -> &'static str {
        "data is lost: repaired by tail-loss probe, by RTO, by fast retransmit, by recovery after RTO"
    }

    fn nominal_seconds(&self) -> u32 {
        2
    }

    fn ports(&self) -> &'static [u16] {
        &[PORT, PORT + 1, PORT + 2, PORT + 3]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<Made> {
        let mut run = Run::new(self, lab, stop);
        // A segment is what one write() gives, also when it is sent again.
        lab.client.set_sysctl("ipv4/tcp_autocorking", "0")?;
        lab.client.set_sysctl("ipv4/tcp_retrans_collapse", "0")?;
        let mut listeners = Vec::new();
        for &port in self.ports() {
            listeners.push(lab.listen(port, 128)?);
        }
        let server = Server::start(listeners)?;
        let mut fault = Fault::attach(&lab.server)?;
        for (slot, phase) in (0..).zip(&PHASES) {
            fault.set(slot, data(), Lose::Ordinals(phase.lost), phase.port)?;
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

fn one_connection(run: &mut Run<'_>, phase: &Phase) -> Result<()> {
    if run.stopped() {
        return Ok(());
    }
    let peer = run.lab.server_addr(phase.port);
    let mut client = Client::connect(&run.lab.client, peer, |fd| {
        let on: libc::c_int = 1;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &on)?;
        // Others pace, or probe: the order of segments would not be known.
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"cubic")
            .or_else(|_| set_option(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"reno"))
    })?;
    run.settle([&mut client])?;
    run.both_healthy(&client)?;
    // One CPU for the whole flight, or it might arrive in another order than it left in.
    let pinned = Pinned::here();
    client.stream.write_all(b"first")?;
    run.wait_acknowledged(&client)?;
    for _ in 0..phase.writes {
        client.stream.write_all(b"again")?;
    }
    drop(pinned);
    // Only when all is repaired, lest a FIN be part of the lost flight.
    run.wait_acknowledged(&client)?;
    run.finish([client])
}

/// Keeps the calling thread on the CPU it is on.
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
