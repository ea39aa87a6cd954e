//! `skb:kfree_skb`: packets that this host drops and those that its half-opens processed, compared with
//! captures, the fault injector's counts and the namespaces' counters.

mod half_open;
mod limits;
mod own_doing;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use synprobe::{
    decode::{Event, decode},
    filter::{Detail, Selection},
    preflight::Ready,
    probe::{
        LoadOptions, Probes,
        hooks::{Chosen, DROPS},
    },
};
use synprobe_ebpf::{
    event::{AF_INET, AF_INET6, DropRecord, KIND_DROP},
    stats::Stats,
};
use synprobe_lab::{
    CLIENT_MAC, Client, INTERFACE, Lab, Ns, SocketFamily, capture::PacketTrace, packet::TcpSegment,
};
use synprobe_tests::{
    harness::{self, Case},
    pipeline_run::load_options,
    traffic,
};

/// Long enough for the slowest of the kernel's timers that a test waits for.
const PATIENCE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for family in SocketFamily::ALL {
        cases.push(Case::for_family("half-open", family, half_open::half_open));
        cases.push(Case::for_family(
            "deferred-accept",
            family,
            half_open::deferred,
        ));
        cases.push(Case::for_family(
            "accept-queue-full",
            family,
            half_open::queue_full,
        ));
        cases.push(Case::for_family(
            "classifier",
            family,
            own_doing::classifier,
        ));
        cases.push(Case::for_family("filters", family, limits::filters));
    }
    cases.push(Case::new("reverse-path-filter", own_doing::reverse_path));
    cases.push(Case::new("before-6.11", own_doing::without_receiver));
    for family in [SocketFamily::V4, SocketFamily::V6] {
        cases.push(Case::for_family("no-socket", family, own_doing::no_socket));
        cases.push(Case::for_family(
            "no-socket-after-nat",
            family,
            own_doing::no_socket_after_nat,
        ));
        cases.push(Case::for_family(
            "other-station",
            family,
            own_doing::other_station,
        ));
    }
    cases.push(Case::new("no-neighbour", own_doing::no_neighbour));
    cases.push(Case::new("more-than-is-written", limits::flood));
    cases.push(Case::new("more-resets-than-are-written", limits::resets));
    cases.push(Case::new("stepping-aside", limits::stepping_aside));
    harness::main(cases)
}

/// The kernel side at work, and what it has said of drops.
struct Watch {
    host: &'static Ready,
    probes: Probes,
    drain: Box<dyn FnMut() -> Vec<DropRecord>>,
    selection: Selection,
    /// Of the selection.
    seen: Vec<DropRecord>,
    /// How many others came.
    others: u64,
}

impl Watch {
    /// Of both namespaces of a lab.
    fn on(lab: &Lab) -> Result<Self> {
        Self::with(lab, Selection::default())
    }

    fn with(lab: &Lab, selection: Selection) -> Result<Self> {
        Self::by(lab, selection, &harness::host()?.hooks)
    }

    fn by(lab: &Lab, mut selection: Selection, hooks: &[Chosen]) -> Result<Self> {
        let host = harness::host()?;
        let both = [lab.client.inode(), lab.server.inode()];
        selection.netns.get_or_insert(both);
        let filter = selection.to_kernel(Detail::default(), host.ephemeral_ports);
        let (probes, mut ring) = Probes::load(&LoadOptions {
            hooks,
            ..load_options(host, &filter)
        })?;
        ensure!(
            probes.attached().any(|hook| hook == DROPS),
            "this kernel does not tell why it drops"
        );
        let drain = Box::new(move || {
            let mut drops = Vec::new();
            while let Some(item) = ring.next() {
                if let Ok(Event::Drop(record)) = decode(&item) {
                    drops.push(record);
                }
            }
            drops
        });
        Ok(Self {
            host,
            probes,
            drain,
            selection,
            seen: Vec::new(),
            others: 0,
        })
    }

    fn take(&mut self) {
        let (seen, others): (Vec<_>, Vec<_>) = (self.drain)()
            .into_iter()
            .partition(|record| self.selection.selects_drop(record));
        self.seen.extend(seen);
        self.others += others.len() as u64;
    }

    /// Waits for this many records in total.
    fn until(&mut self, count: usize) -> Result<&[DropRecord]> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.take();
            if self.seen.len() >= count {
                return Ok(&self.seen);
            }
            ensure!(
                Instant::now() < deadline,
                "{count} records are due: {:#?}",
                self.seen
            );
            thread::sleep(STEP);
        }
    }

    /// Ends it: all records, and the counters; nothing was lost but what was held back.
    fn end(mut self) -> Result<(Vec<DropRecord>, Stats)> {
        self.probes.detach();
        self.take();
        let stats = self.probes.stats()?;
        let kind = usize::from(KIND_DROP);
        let counts = (stats.dropped[kind], stats.unread[kind]);
        ensure!(counts == (0, 0), "lost: {stats:?}");
        let written = self.seen.len() as u64 + self.others;
        ensure!(
            stats.produced[kind]
                == written
                    + stats.held_back
                    + stats.elsewhere_held_back
                    + stats.others_held_back
                    + stats.no_socket_held_back,
            "{} and {} others seen: {stats:?}",
            self.seen.len(),
            self.others
        );
        Ok((self.seen, stats))
    }

    /// All records of a test in which nothing may be held back.
    fn all(self) -> Result<Vec<DropRecord>> {
        let (seen, stats) = self.end()?;
        ensure!(stats.held_back == 0, "held back: {stats:?}");
        Ok(seen)
    }

    fn reason(&self, record: &DropRecord) -> &'static str {
        self.host.reasons.name(record.reason).unwrap_or("none")
    }
}

/// A record as the segment that it is about.
fn segment(record: &DropRecord) -> TcpSegment {
    let address = |bytes: [u8; 16], port| SocketAddr::new(IpAddr::from(bytes).to_canonical(), port);
    let local = address(record.flow.local_addr, record.flow.local_port);
    let peer = address(record.flow.peer_addr, record.flow.peer_port);
    let (source, destination) = match record.ifindex {
        0 => (local, peer),
        _ => (peer, local),
    };
    TcpSegment {
        source,
        destination,
        seq: record.seq,
        ack: record.ack,
        flags: record.flags,
        payload_len: usize::from(record.payload),
    }
}

/// The same segments, each as often: `wanted` picks from what a capture in the receiving namespace has
/// recorded.
fn are_those_of(
    records: &[DropRecord],
    recording: &PacketTrace,
    wanted: impl Fn(&TcpSegment) -> bool,
) -> Result<()> {
    ensure!(recording.missed == 0, "the capture was too slow");
    let mut count: BTreeMap<String, i64> = BTreeMap::new();
    for record in records {
        *count.entry(format!("{:?}", segment(record))).or_default() += 1;
    }
    for captured in &recording.segments {
        let mut one = captured.segment;
        if !captured.outgoing && wanted(&one) {
            one.payload_len = one.payload_len.min(1);
            *count.entry(format!("{one:?}")).or_default() -= 1;
        }
    }
    count.retain(|_, n| *n != 0);
    ensure!(
        count.is_empty(),
        "more (+) or fewer (-) than captured: {count:#?}"
    );
    Ok(())
}

/// What every record of a packet into the server has in common.
fn came_into_server(lab: &Lab, record: &DropRecord) -> Result<()> {
    // The listener's, where one is the receiver, else the packet's.
    let mapped = record.listener == 1 && lab.family == SocketFamily::V4Mapped;
    let family = if lab.family.wire_is_v6() || mapped {
        AF_INET6
    } else {
        AF_INET
    };
    let local = segment(record).destination.ip();
    let is = (
        record.flow.netns,
        record.ifindex,
        record.flow.family,
        local,
        record.has_mac,
        record.source_mac,
    );
    let due = (
        lab.server.inode(),
        index(&lab.server)?,
        family,
        lab.server_ip(),
        1,
        CLIENT_MAC,
    );
    ensure!(is == due, "{due:?} is due: {record:?}");
    Ok(())
}

fn index(ns: &Ns) -> Result<u32> {
    ns.run(|| {
        let name = std::ffi::CString::new(INTERFACE)?;
        // SAFETY: the name is a live NUL-terminated string.
        match unsafe { libc::if_nametoindex(name.as_ptr()) } {
            0 => Err(io::Error::last_os_error().into()),
            index => Ok(index),
        }
    })
}

/// A peer that nobody answers for.
fn stranger(lab: &Lab, n: u16) -> SocketAddr {
    let ip: IpAddr = match lab.family.wire_is_v6() {
        true => std::net::Ipv6Addr::new(0xfd00, 0x5950, 0xf, 0, 0, 0, 0, n + 1).into(),
        false => Ipv4Addr::new(198, 18, 128 + (n >> 8) as u8, n as u8).into(),
    };
    SocketAddr::new(ip, 40_000 + n)
}

fn connected(lab: &Lab) -> Result<Client> {
    traffic::connected(lab, PATIENCE)
}

fn wait(what: &str, mut is_there: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_there()? {
        ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(STEP);
    }
    Ok(())
}
