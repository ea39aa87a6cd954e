//! `skb:kfree_skb`: what this host drops, and what its half-opens have dealt with, held against
//! captures, the fault's own count and the namespaces' counters.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::ExitCode,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe::{
    decode::{Event, decode},
    filter::{PortSet, Selection, parse_cidr},
    lab::{
        CLIENT_MAC, Client, Family, Fault, INTERFACE, Lab, Lose, Ns, PORT, RawSender, Seen,
        bare_ack,
        capture::{Capture, Recording},
        packet::{Segment, flags},
        set_option, settle, syn,
    },
    model::Role,
    preflight::Ready,
    probe::{LoadOptions, Probes, aside, hooks::DROPS, kallsyms::Kallsyms},
};
use synprobe_ebpf::{
    config::DROPS_PER_SECOND,
    event::{AF_INET, AF_INET6, DropRecord, KIND_DROP},
    stats::Stats,
};
use synprobe_tests::{
    harness::{self, Case, figure},
    watching::AMPLE_RING,
};

/// Long enough for the slowest of the kernel's timers that a test waits for.
const PATIENCE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for family in Family::ALL {
        cases.push(Case::for_family("half-open", family, half_open));
        cases.push(Case::for_family("deferred-accept", family, deferred));
        cases.push(Case::for_family("accept-queue-full", family, queue_full));
        cases.push(Case::for_family("classifier", family, classifier));
        cases.push(Case::for_family("filters", family, filters));
    }
    cases.push(Case::new("reverse-path-filter", reverse_path));
    cases.push(Case::new("no-neighbour", no_neighbour));
    cases.push(Case::new("more-than-is-written", flood));
    cases.push(Case::new("stepping-aside", stepping_aside));
    harness::main(cases)
}

/// The kernel side at work, and what it has said of drops.
struct Watch {
    host: &'static Ready,
    probes: Probes,
    drain: Box<dyn FnMut() -> Vec<DropRecord>>,
    seen: Vec<DropRecord>,
}

impl Watch {
    /// Of both namespaces of a lab.
    fn on(lab: &Lab) -> Result<Self> {
        Self::with(lab, Selection::default())
    }

    fn with(lab: &Lab, mut selection: Selection) -> Result<Self> {
        let host = harness::host()?;
        let both = [lab.client.inode(), lab.server.inode()];
        selection.netns.get_or_insert(both);
        let filter = selection.to_kernel(false, host.ephemeral_ports);
        let (probes, mut ring) = Probes::load(&LoadOptions {
            ring_bytes: AMPLE_RING,
            filter: &filter,
            places: host.places,
            hooks: &host.hooks,
            reasons: &host.reasons,
            log_level: 0,
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
            seen: Vec::new(),
        })
    }

    /// Waits for so many records in all.
    fn until(&mut self, count: usize) -> Result<&[DropRecord]> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.seen.extend((self.drain)());
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
        self.seen.extend((self.drain)());
        let stats = self.probes.stats()?;
        let kind = usize::from(KIND_DROP);
        let counts = (stats.dropped[kind], stats.unread[kind]);
        ensure!(counts == (0, 0), "lost: {stats:?}");
        ensure!(
            stats.produced[kind] == self.seen.len() as u64 + stats.held_back,
            "{} seen: {stats:?}",
            self.seen.len()
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
fn segment(record: &DropRecord) -> Segment {
    let address = |bytes: [u8; 16], port| SocketAddr::new(IpAddr::from(bytes).to_canonical(), port);
    let local = address(record.flow.local_addr, record.flow.local_port);
    let peer = address(record.flow.peer_addr, record.flow.peer_port);
    let (source, destination) = match record.ifindex {
        0 => (local, peer),
        _ => (peer, local),
    };
    Segment {
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
    recording: &Recording,
    wanted: impl Fn(&Segment) -> bool,
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
    let family = if lab.family.wire_is_v6() {
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

/// Where a half-open's packets end.
fn receive_function(lab: &Lab) -> &'static str {
    match lab.family.wire_is_v6() {
        true => "tcp_v6_rcv",
        false => "tcp_v4_rcv",
    }
}

/// A peer that nobody answers for.
fn stranger(lab: &Lab, n: u16) -> SocketAddr {
    let ip: IpAddr = match lab.family.wire_is_v6() {
        true => std::net::Ipv6Addr::new(0xfd00, 0x5950, 0xf, 0, 0, 0, 0, n + 1).into(),
        false => Ipv4Addr::new(198, 18, 128 + (n >> 8) as u8, n as u8).into(),
    };
    SocketAddr::new(ip, 40_000 + n)
}

/// A repeated SYN, and the RST that ends it: nothing else in the kernel tells of either.
fn half_open(family: Family) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 77)?;
    let capture = Capture::start(&lab.server)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let before = lab.counters()?;
    // The client's namespace throws the SYN-ACKs away: nobody there has the address.
    let here = Selection {
        netns: Some([lab.server.inode(); 2]),
        ..Selection::default()
    };
    let mut watch = Watch::with(&lab, here)?;
    let (one, two) = (stranger(&lab, 0), stranger(&lab, 1));
    let seq = 0xffff_ffff;
    sender.syn(one, server, seq)?;
    sender.syn(two, server, 5)?;
    wait("two half-opens", || Ok(lab.half_opens(PORT)? == 2))?;
    sender.syn(one, server, seq)?;
    watch.until(1)?;
    sender.syn(one, server, seq)?;
    watch.until(2)?;
    sender.rst(one, server, seq.wrapping_add(1))?;
    watch.until(3)?;
    wait("one half-open", || Ok(lab.half_opens(PORT)? == 1))?;

    let symbols = Kallsyms::new();
    // The request is gone before the RST itself is.
    let due = [(flags::SYN, 2), (flags::SYN, 2), (flags::RST, 1)];
    for (record, (flags, qlen)) in watch.seen.iter().zip(due) {
        came_into_server(&lab, record)?;
        ensure!(watch.reason(record) == "NOT_SPECIFIED", "{record:?}");
        ensure!(symbols.name(record.location) == Some(receive_function(&lab)));
        let is = (record.flags, record.listener, record.defer_accept);
        ensure!(is == (flags, 1, 0), "{record:?}");
        let queues = (
            record.qlen,
            record.young,
            record.ack_backlog,
            record.max_ack_backlog,
        );
        ensure!(queues == (qlen, qlen, 0, 77), "{record:?}");
    }
    let records = watch.all()?;
    ensure!(records.len() == 3, "{records:#?}");
    let resets = lab.counters()?.since(&before).server.get("EmbryonicRsts");
    ensure!(resets == 1, "{resets} EmbryonicRsts");
    // Of each peer the first SYN was taken.
    let mut taken = vec![one, two];
    let recording = capture.stop()?;
    let again = recording
        .segments
        .iter()
        .filter(|c| !c.outgoing)
        .filter(|c| {
            let first = taken.iter().position(|peer| *peer == c.segment.source);
            first.map(|at| taken.remove(at)).is_none()
        });
    ensure!(again.count() == records.len(), "{recording:#?}");
    Ok(())
}

/// TCP_DEFER_ACCEPT swallows the final ACK; the data behind it makes the connection.
fn deferred(family: Family) -> Result<()> {
    let lab = Lab::new(family)?;
    let listener = lab.listen(PORT, 64)?;
    let seconds: libc::c_int = 5;
    set_option(
        &listener,
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        &seconds,
    )?;
    let capture = Capture::start(&lab.server)?;
    let mut watch = Watch::on(&lab)?;
    let mut client = connected(&lab)?;
    let record = *watch.until(1)?.first().context("a record")?;
    let reason = watch.reason(&record);
    came_into_server(&lab, &record)?;
    let is = (
        record.flags,
        record.listener,
        record.payload,
        record.qlen,
        reason,
    );
    ensure!(
        is == (flags::ACK, 1, 0, 1, "NOT_SPECIFIED"),
        "{is:?}: {record:?}"
    );
    ensure!(record.defer_accept > 0, "{record:?}");
    client.stream.write_all(b"now")?;
    wait("a child", || match listener.accept() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e.into()),
    })?;
    let records = watch.all()?;
    let ports = client.local.port();
    let recording = capture.stop()?;
    // Until the data, every ACK is a half-open's.
    let data = recording
        .segments
        .iter()
        .position(|c| c.segment.payload_len > 0);
    let recording = Recording {
        segments: recording.segments[..data.context("the data")?].to_vec(),
        ..recording
    };
    are_those_of(&records, &recording, |s| {
        s.source.port() == ports && s.flags == flags::ACK
    })
}

/// The final ACK finds the accept queue full.
fn queue_full(family: Family) -> Result<()> {
    const BACKLOG: i32 = 1;
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, BACKLOG)?;
    let mut fault = Fault::attach(&lab.server)?;
    fault.set(0, bare_ack(), Lose::First(1), PORT)?;
    let before = lab.counters()?;
    let mut watch = Watch::on(&lab)?;
    let half_open = connected(&lab)?;
    watch.until(1)?;
    fault.lift(0)?;
    // The backlog and one more.
    let _queued = [connected(&lab)?, connected(&lab)?];
    // A second later the SYN-ACK comes again, and is acknowledged again.
    let records = watch.until(2)?.to_vec();
    let (lost, refused) = (&records[0], &records[1]);
    ensure!(
        watch.reason(lost) == "TC_INGRESS" && lost.listener == 0,
        "{lost:?}"
    );
    // Until 6.15 it has no reason of its own.
    let due = match watch.host.reasons.number("TCP_LISTEN_OVERFLOW") {
        Some(_) => "TCP_LISTEN_OVERFLOW",
        None => "NOT_SPECIFIED",
    };
    ensure!(watch.reason(refused) == due, "{refused:?}");
    for record in [lost, refused] {
        came_into_server(&lab, record)?;
        let who = (record.flow.peer_port, record.flags, record.payload);
        ensure!(who == (half_open.local.port(), flags::ACK, 0), "{record:?}");
    }
    let queues = (
        refused.listener,
        refused.qlen,
        refused.ack_backlog,
        refused.max_ack_backlog,
    );
    ensure!(queues == (1, 1, 2, BACKLOG as u32), "{refused:?}");
    let refusals = watch.all()?.len() - 1;
    let counted = lab.counters()?.since(&before).server.get("ListenOverflows");
    ensure!(
        counted == refusals as u64,
        "{refusals} records, {counted} counted"
    );
    Ok(())
}

/// A classifier on the way in, which is also what the lab loses segments with.
fn classifier(family: Family) -> Result<()> {
    const SYNS: u16 = 300;
    let lab = Lab::new(family)?;
    let mut fault = Fault::attach(&lab.server)?;
    fault.set(0, syn(), Lose::All, PORT)?;
    let capture = Capture::start(&lab.server)?;
    let mut watch = Watch::on(&lab)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    // Its skb still belongs to the client's socket when the server's classifier drops it.
    let _client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
    for n in 0..SYNS {
        sender.syn(stranger(&lab, n), server, u32::from(n))?;
    }
    watch.until(usize::from(SYNS) + 1)?;
    for record in &watch.seen {
        came_into_server(&lab, record)?;
        let is = (watch.reason(record), record.flags, record.listener);
        ensure!(is == ("TC_INGRESS", flags::SYN, 0), "{record:?}");
        ensure!(watch.host.reasons.own_doing(record.reason).is_some());
    }
    let records = watch.all()?;
    let lost = fault.count(0)?.dropped;
    ensure!(
        lost == records.len() as u64,
        "{lost} lost by the classifier"
    );
    are_those_of(&records, &capture.stop()?, |s| s.flags == flags::SYN)
}

/// What was not asked for is not told: ports, peers, roles and namespaces.
fn filters(family: Family) -> Result<()> {
    let other_port = PORT + 1;
    let lab = Lab::new(family)?;
    let port: PortSet = other_port.to_string().parse()?;
    let peer = parse_cidr(&stranger(&lab, 3).ip().to_string())?;
    let role = |role| Selection {
        role: Some(role),
        ..Selection::default()
    };
    let netns = |ns: &Ns| Selection {
        netns: Some([ns.inode(); 2]),
        ..Selection::default()
    };
    let cases: [(Selection, fn(u16, u16) -> bool); 7] = [
        (Selection::default(), |_, _| true),
        (
            Selection {
                local_ports: port.clone(),
                ..Selection::default()
            },
            |port, _| port == PORT + 1,
        ),
        (
            Selection {
                peer_ports: port,
                ..Selection::default()
            },
            |_, _| false,
        ),
        (
            Selection {
                peers: vec![peer],
                ..Selection::default()
            },
            |_, n| n == 3,
        ),
        (role(Role::Server), |_, _| true),
        (role(Role::Client), |_, _| false),
        (netns(&lab.client), |_, _| false),
    ];
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let mut fault = Fault::attach(&lab.server)?;
    fault.set(0, syn(), Lose::All, 0)?;
    for (selection, wanted) in cases {
        let before = fault.count(0)?.dropped;
        let words = selection.describe();
        let mut watch = Watch::with(&lab, selection)?;
        let mut due = Vec::new();
        for port in [PORT, other_port] {
            for n in 0..5 {
                let peer = stranger(&lab, n);
                sender.syn(peer, SocketAddr::new(lab.server_ip(), port), 1)?;
                if wanted(port, n) {
                    due.push((port, peer));
                }
            }
        }
        wait("the drops", || Ok(fault.count(0)?.dropped - before == 10))?;
        watch.until(due.len())?;
        let records = watch.all()?;
        let seen = records.iter().map(segment);
        let mut seen: Vec<_> = seen.map(|s| (s.destination.port(), s.source)).collect();
        seen.sort_unstable();
        due.sort_unstable();
        ensure!(seen == due, "{words:?}: {due:?} are due, seen {seen:?}");
    }
    Ok(())
}

/// rp_filter=1, and the route back to the sender is another than the way it came.
fn reverse_path() -> Result<()> {
    let lab = Lab::new(Family::V4)?;
    lab.server.set_sysctl("ipv4/conf/all/rp_filter", "1")?;
    lab.server
        .run(|| route_by_loopback(Ipv4Addr::new(198, 19, 0, 0)))?;
    let _listener = lab.listen(PORT, 64)?;
    let capture = Capture::start(&lab.server)?;
    let sender = RawSender::open(&lab.client, false)?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let mut watch = Watch::on(&lab)?;
    for n in 1..=20u8 {
        let source = SocketAddr::from(([198, 19, 0, n], 50_000));
        sender.syn(source, server, u32::from(n))?;
        sender.ack(source, server, 7, 8)?;
        sender.rst(source, server, 9)?;
    }
    watch.until(60)?;
    for record in &watch.seen {
        came_into_server(&lab, record)?;
        ensure!(watch.reason(record) == "IP_RPFILTER", "{record:?}");
        ensure!(record.listener == 0 && record.payload == 0, "{record:?}");
    }
    let meaning = watch.host.reasons.own_doing(watch.seen[0].reason);
    ensure!(
        meaning.is_some_and(|m| m.words.contains("asymmetric")),
        "{meaning:?}"
    );
    are_those_of(&watch.all()?, &capture.stop()?, |_| true)?;
    ensure!(lab.half_opens(PORT)? == 0, "the SYNs did not get through");
    Ok(())
}

/// `ip route add NETWORK/16 dev lo`, in this thread's namespace.
fn route_by_loopback(network: Ipv4Addr) -> Result<()> {
    // SAFETY: all-zero bytes are a valid rtentry.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    let write = |to: &mut libc::sockaddr, ip: Ipv4Addr| {
        to.sa_family = libc::AF_INET as libc::sa_family_t;
        for (to, from) in to.sa_data[2..6].iter_mut().zip(ip.octets()) {
            *to = from as libc::c_char;
        }
    };
    write(&mut route.rt_dst, network);
    write(&mut route.rt_genmask, Ipv4Addr::new(255, 255, 0, 0));
    route.rt_flags = libc::RTF_UP;
    let mut device = *b"lo\0";
    route.rt_dev = device.as_mut_ptr().cast();
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "a socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the route and the device's name, which is NUL-terminated, outlive the call.
    let added = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCADDRT as _, &raw mut route) };
    ensure!(added == 0, "a route: {}", io::Error::last_os_error());
    Ok(())
}

/// On the way out: the next hop does not answer ARP, and the SYN that waited for it is dropped.
fn no_neighbour() -> Result<()> {
    let lab = Lab::new(Family::V4)?;
    let absent: SocketAddr = "198.18.0.77:8080".parse()?;
    let capture = Capture::start(&lab.client)?;
    let mut watch = Watch::on(&lab)?;
    let client = Client::connect(&lab.client, absent, |_| Ok(()))?;
    let record = watch.until(1)?[0];
    let reason = watch.reason(&record);
    let is = (
        reason,
        record.flags,
        record.listener,
        record.ifindex,
        record.flow.netns,
    );
    let due = ("NEIGH_FAILED", flags::SYN, 0, 0, lab.client.inode());
    ensure!(is == due, "{due:?} is due: {record:?}");
    let told = segment(&record);
    ensure!(
        (told.source, told.destination) == (client.local, absent),
        "{told:?}"
    );
    ensure!(capture.stop()?.segments.is_empty(), "nothing got out");
    Ok(())
}

/// More drops than may be written: what is held back is counted, to the last one.
fn flood() -> Result<()> {
    const SYNS: u64 = 5000;
    let lab = Lab::new(Family::V4)?;
    let mut fault = Fault::attach(&lab.server)?;
    fault.set(0, syn(), Lose::All, PORT)?;
    let sender = RawSender::open(&lab.client, false)?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let watch = Watch::on(&lab)?;
    let began = Instant::now();
    for n in 0..SYNS {
        sender.syn(stranger(&lab, (n % 200) as u16), server, n as u32)?;
    }
    wait("the drops", || Ok(fault.count(0)?.dropped == SYNS))?;
    let seconds = began.elapsed().as_secs() + 2;
    let (records, stats) = watch.end()?;
    let cpus = thread::available_parallelism()?.get() as u64;
    let most = DROPS_PER_SECOND * cpus * seconds;
    let written = records.len() as u64;
    figure(format!(
        "{written} of {SYNS} drops written in {:?}",
        began.elapsed()
    ));
    ensure!(written <= most, "{written} written, {most} at most");
    ensure!(
        written + stats.held_back == SYNS,
        "{written} written: {stats:?}"
    );
    ensure!(stats.held_back > 0 || most >= SYNS, "{stats:?}");
    ensure!(
        stats.drop_runs >= stats.drop_looks && stats.drop_looks >= SYNS,
        "{stats:?}"
    );
    Ok(())
}

/// Too many drops on the host: the hook, and it alone, is off for a while and comes back.
fn stepping_aside() -> Result<()> {
    let lab = Lab::new(Family::V4)?;
    let mut fault = Fault::attach(&lab.server)?;
    fault.set(0, syn(), Lose::All, PORT)?;
    let sender = RawSender::open(&lab.client, false)?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let drop_one = |seq: u32| -> Result<()> {
        let before = fault.count(0)?.dropped;
        sender.syn(stranger(&lab, 0), server, seq)?;
        wait("a drop", || Ok(fault.count(0)?.dropped == before + 1))
    };
    let mut watch = Watch::on(&lab)?;
    let hooks: Vec<_> = watch.probes.attached().collect();
    drop_one(1)?;
    watch.until(1)?;
    let then = Instant::now() + Duration::from_secs(1);
    let runs = watch.probes.stats()?.drop_runs;
    ensure!(
        watch.probes.relieve(runs, then).is_none(),
        "one drop is no storm"
    );
    let storm = runs + 412_000;
    let then = then + Duration::from_secs(1);
    let said = watch.probes.relieve(storm, then);
    let due = "packet drops: 412,000 a second on this host, more than it is worth to look at: not \
               watched for 10 s";
    ensure!(said.as_deref() == Some(due), "{said:?}");
    let runs = watch.probes.stats()?.drop_runs;
    drop_one(2)?;
    ensure!(watch.probes.stats()?.drop_runs == runs, "it still runs");
    // The others go on.
    let _listener = lab.listen(PORT + 1, 8)?;
    let states = |watch: &Watch| -> Result<u64> { Ok(watch.probes.stats()?.produced[1]) };
    let before = states(&watch)?;
    drop(Client::connect(
        &lab.client,
        SocketAddr::new(lab.server_ip(), PORT + 1),
        |_| Ok(()),
    )?);
    wait("a transition", || Ok(states(&watch)? > before))?;
    ensure!(
        watch
            .probes
            .relieve(runs, then + aside::PAUSE / 2)
            .is_none()
    );
    ensure!(watch.probes.relieve(runs, then + aside::PAUSE).is_none());
    let again: Vec<_> = watch.probes.attached().collect();
    ensure!(again == hooks, "{again:?}");
    drop_one(3)?;
    watch.until(2)?;
    let sequences: Vec<_> = watch.all()?.iter().map(|r| r.seq).collect();
    ensure!(sequences == [1, 3], "{sequences:?}");
    Ok(())
}

/// An open whose application is told that it is connected.
fn connected(lab: &Lab) -> Result<Client> {
    let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
    settle(
        [&mut client],
        &AtomicBool::new(false),
        Instant::now() + PATIENCE,
    )?;
    ensure!(client.seen == Seen::Connected, "{:?}", client.seen);
    Ok(client)
}

fn wait(what: &str, mut is_there: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_there()? {
        ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(STEP);
    }
    Ok(())
}
