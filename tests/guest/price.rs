//! The cost of the modes in instructions. A guest's clock counts instructions (docs/kernels.md), so the CPU
//! time of the thread that makes the traffic is the number of instructions that the kernel executes for it,
//! eBPF programs included, without noise.

use std::{
    ffi::CStr,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use synprobe::{
    filter::{Detail, Selection},
    model::HalfOpenSource,
    probe::half_open_source::RequestedMode,
    sys::clock::CpuTimer,
};
use synprobe_lab::{Lab, PORT, RawSender, SocketFamily, spoofed};
use synprobe_tests::{
    empty_program::EmptyProgram,
    guest::is_guest,
    harness::{self, figure},
    pipeline_run::{options, watch},
    traffic::connected,
};

/// Of each kind of traffic.
const TIMES: u16 = 500;
/// `--slow`'s default.
const QUIET: Detail = Detail::Quiet {
    slow: Duration::from_secs(1),
};
/// What a connection that goes well passes by, in the quiet mode.
const QUIET_HOOKS: [&CStr; 2] = [c"inet_sock_set_state", c"kfree_skb"];
/// What a connection may take more than with nothing attached, percent: half as much again as was
/// measured on the kernel where it takes most (7.2, docs/performance.md).
const QUIET_MORE: u64 = 10;
const STREAMED_MORE: u64 = 17;
/// What the exact mode may take more of it than the tracepoints alone, percent: of what goes well it sees
/// the SYN's arrival, and where all is streamed the half-open's beginning.
const EXACT_MORE: u64 = 7;

/// What the kernel executes for one of each.
#[derive(Clone, Copy)]
struct Cost {
    connection: u64,
    reset_half_open: u64,
    refused_syn: u64,
}

/// By fentry: what it takes more than the tracepoints alone.
pub fn of_the_modes() -> Result<()> {
    ensure!(is_guest(), "only a guest's clock counts instructions");
    let source = harness::host()?
        .exact_by(RequestedMode::Exact, Detail::Handshakes)?
        .source;
    ensure!(
        source == HalfOpenSource::Fentry,
        "the exact mode is {}",
        source.name()
    );

    let nothing = cost()?;
    let empty = {
        let attached: Result<Vec<_>, _> =
            QUIET_HOOKS.into_iter().map(EmptyProgram::attach).collect();
        let _attached = attached?;
        cost()?
    };
    for (name, detail, most) in [
        ("quiet", QUIET, QUIET_MORE),
        ("streamed", Detail::Handshakes, STREAMED_MORE),
    ] {
        let by_tracepoints = watched(RequestedMode::Tracepoints, detail)?;
        let exact = watched(RequestedMode::Exact, detail)?;
        let row = |what, of: fn(&Cost) -> u64| {
            figure(format!(
                "{name}, instructions for {what}: {} with nothing attached, {} with empty programs on the \
                 same tracepoints, {} by tracepoints, {} by fentry",
                of(&nothing),
                of(&empty),
                of(&by_tracepoints),
                of(&exact)
            ));
        };
        row("a connection, both ends", |c| c.connection);
        row("a half-open that its peer resets", |c| c.reset_half_open);
        row("a SYN refused at a full queue", |c| c.refused_syn);
        let [unwatched, empty, by_tracepoints, exact] =
            [nothing, empty, by_tracepoints, exact].map(|c| c.connection);
        ensure!(
            unwatched < empty && empty < by_tracepoints && by_tracepoints < exact,
            "what does more takes no more: something was not attached"
        );
        let within = |more: u64, than: u64, percent: u64| more <= than * (100 + percent) / 100;
        ensure!(
            within(by_tracepoints, unwatched, most) && within(exact, by_tracepoints, EXACT_MORE),
            "a connection takes {exact} instructions by fentry, {by_tracepoints} by tracepoints, \
             {unwatched} unwatched"
        );
    }
    Ok(())
}

fn watched(requested_mode: RequestedMode, detail: Detail) -> Result<Cost> {
    let mut options = options(Selection::default());
    options.requested_mode = requested_mode;
    options.detail = detail;
    Ok(watch(options, |_| cost())?.0)
}

fn cost() -> Result<Cost> {
    Ok(Cost {
        connection: connections()?,
        reset_half_open: reset_half_opens()?,
        refused_syn: refused_syns()?,
    })
}

/// CPU time of this thread for one of them, nanoseconds, which are instructions.
fn each(mut make: impl FnMut(u16) -> Result<()>) -> Result<u64> {
    // Caches of the kernel's, and the first of everything.
    for n in 0..TIMES / 10 {
        make(n)?;
    }
    let timer = CpuTimer::begin();
    for n in 0..TIMES {
        make(n)?;
    }
    let took = timer.took();
    Ok(took.as_nanos() as u64 / u64::from(TIMES))
}

/// Opened, accepted and closed over loopback, one after the other.
fn connections() -> Result<u64> {
    let lab = Lab::new(SocketFamily::V4)?;
    // Nothing is left of one when the next begins.
    lab.client.set_sysctl("ipv4/tcp_max_tw_buckets", "0")?;
    lab.client.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
        each(|_| {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
            let (accepted, _) = listener.accept()?;
            drop(client);
            drop(accepted);
            Ok(())
        })
    })
}

fn stranger(n: u16) -> SocketAddr {
    SocketAddr::new(spoofed(false, n), 40_000)
}

/// A SYN and a RST; the SYN-ACK goes to nobody.
fn reset_half_opens() -> Result<u64> {
    let lab = Lab::new(SocketFamily::V4)?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, false)?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    lab.client.run(|| {
        each(|n| {
            sender.syn(stranger(n), server, 77)?;
            sender.rst(stranger(n), server, 78)?;
            Ok(())
        })
    })
}

/// SYNs at an accept queue that is full.
fn refused_syns() -> Result<u64> {
    let lab = Lab::new(SocketFamily::V4)?;
    let _listener = lab.listen(PORT, 0)?;
    let _filling = connected(&lab, Duration::from_secs(5))?;
    let sender = RawSender::open(&lab.client, false)?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let before = lab.counters()?;
    let cost = lab.client.run(|| {
        each(|n| {
            sender.syn(stranger(n), server, 1_000)?;
            Ok(())
        })
    })?;
    let refused = lab.counters()?.since(&before).server.get("ListenOverflows");
    ensure!(
        refused == u64::from(TIMES + TIMES / 10),
        "{refused} SYNs were refused"
    );
    Ok(cost)
}
