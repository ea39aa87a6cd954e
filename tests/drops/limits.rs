//! What is not reported: packets outside the filter, more than the limit per second, and a host in a drop storm.

use std::{
    net::SocketAddr,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use synprobe::{
    filter::{PortSet, Selection, parse_cidr},
    model::Role,
    probe::drop_governor,
};
use synprobe_ebpf::{
    config::{DROPS_PER_SECOND, EARLY_RESETS_PER_SECOND},
    event::KIND_EARLY_RESET,
};
use synprobe_lab::{
    Client, ConnectState, FaultInjector, Lab, LossPattern, Ns, PORT, RawSender, SocketFamily,
    TcpCounters, settle, syn,
};
use synprobe_tests::harness::figure;

use super::{Watch, segment, stranger, wait};

/// Whether a SYN to this port from this stranger is one that was asked for.
type Wanted = fn(u16, u16) -> bool;

/// What was not asked for is not told: ports, peers, roles and namespaces.
pub fn filters(family: SocketFamily) -> Result<()> {
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
    let cases: [(Selection, Wanted); 7] = [
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
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.drop_here(0, syn(), LossPattern::All, 0)?;
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

/// More drops than may be written: what is held back is counted, to the last one.
pub fn flood() -> Result<()> {
    const SYNS: u64 = 5000;
    let lab = Lab::new(SocketFamily::V4)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.drop_here(0, syn(), LossPattern::All, PORT)?;
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

/// More early resets than may be written: what is held back is counted, to the last one.
pub fn resets() -> Result<()> {
    const RESETS: u64 = 2000;
    let lab = Lab::new(SocketFamily::V4)?;
    let _listener = lab.listen(PORT, 4096)?;
    let watch = Watch::on(&lab)?;
    let began = Instant::now();
    for _ in 0..RESETS {
        let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
        settle(
            [&mut client],
            &AtomicBool::new(false),
            began + Duration::from_secs(20),
        )?;
        ensure!(
            client.seen == ConnectState::Connected,
            "not connected: {:?}",
            client.seen
        );
        client.reset()?;
    }
    let counted = || -> Result<u64> { Ok(TcpCounters::read(&lab.server)?.get("EstabResets")) };
    wait("the resets", || Ok(counted()? == RESETS))?;
    let seconds = began.elapsed().as_secs() + 2;
    let (_, stats) = watch.end()?;
    let kind = usize::from(KIND_EARLY_RESET);
    let due = stats.produced[kind];
    let written = due - stats.dropped[kind] - stats.unread[kind] - stats.resets_held_back;
    figure(format!(
        "{written} of {due} early resets written in {:?}; EstabResets {}",
        began.elapsed(),
        counted()?
    ));
    let most = EARLY_RESETS_PER_SECOND * thread::available_parallelism()?.get() as u64 * seconds;
    ensure!(due == RESETS, "{stats:?}");
    ensure!(written <= most, "{written} written, {most} at most");
    ensure!(stats.resets_held_back > 0 || most >= RESETS, "{stats:?}");
    ensure!(stats.held_back == 0, "they are no drops: {stats:?}");
    Ok(())
}

/// Too many drops on the host: the hook, and it alone, is off for a while and comes back.
pub fn stepping_aside() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.drop_here(0, syn(), LossPattern::All, PORT)?;
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
    let due = "packet drops: 412,000 a second on this host, too many to watch: not \
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
            .relieve(runs, then + drop_governor::PAUSE / 2)
            .is_none()
    );
    ensure!(
        watch
            .probes
            .relieve(runs, then + drop_governor::PAUSE)
            .is_none()
    );
    let again: Vec<_> = watch.probes.attached().collect();
    ensure!(again == hooks, "{again:?}");
    drop_one(3)?;
    watch.until(2)?;
    let sequences: Vec<_> = watch.all()?.iter().map(|r| r.seq).collect();
    ensure!(sequences == [1, 3], "{sequences:?}");
    Ok(())
}
