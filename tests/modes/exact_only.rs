//! What only the exact mode reports.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe::{
    filter::{Detail, Selection},
    model::{Body, DwellSource, HalfOpenSource, Handshake, Line, Outcome, Peer, Role, VerdictKind},
    pipeline::WatchOptions,
    probe::half_open_source::RequestedMode,
    sys::clock::monotonic_ns,
};
use synprobe_lab::{
    Client, FaultInjector, Lab, LossPattern, PORT, RawSender, SocketFamily, bare_ack,
    capture::Capture, packet::flags, spoofed,
};
use synprobe_tests::{
    harness::{self, Case, figure},
    kernel::Capabilities,
    pipeline_run::{Live, WatchedRun, options, watch},
    traffic,
    wire::{SYN_ACK, WireTimes},
};

/// Long enough for the slowest of the kernel's timers that a test waits for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Tolerance between reported times and the wire: both are taken one after the other.
const TOLERANCE_US: u64 = 2_000;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("auto-without-noise", auto),
        Case::new("quiet-says-every-failure", quiet),
    ];
    for family in SocketFamily::ALL {
        for (mode, requested_mode) in [
            ("exact", RequestedMode::Exact),
            ("tracepoints", RequestedMode::Tracepoints),
        ] {
            // Before Linux 6.11 no tracepoint tells of the ACK.
            let seen = harness::host().is_ok_and(|host| Capabilities::of(host).half_open_deaths);
            if requested_mode == RequestedMode::Exact || seen {
                let title = format!("aborted-on-overflow-{mode}");
                cases.push(Case::for_family(&title, family, move |family| {
                    aborted_on_overflow(family, requested_mode)
                }));
            }
        }
        cases.push(Case::for_family("young-reset", family, young_reset));
        cases.push(Case::for_family("expiry", family, expiry));
        cases.push(Case::for_family("listener-closed", family, listener_closed));
        cases.push(Case::for_family(
            "listener-closed-then-ack",
            family,
            closed_then_ack,
        ));
        cases.push(Case::for_family(
            "closed-by-a-tool",
            family,
            closed_by_a_tool,
        ));
        // Only functions tell it: where the host refuses fentry there is no such test.
        let fentry = harness::host().is_ok_and(|host| host.exact.fentry.is_ok());
        if fentry {
            cases.push(Case::for_family(
                "accept-queue-refuses",
                family,
                accept_queue,
            ));
            cases.push(Case::for_family("syn-queue-refuses", family, syn_queue));
        }
    }
    cases
}

/// Watches the server's side of a lab.
fn of_server(lab: &Lab) -> WatchOptions {
    let mut options = options(Selection {
        netns: Some([lab.server.inode(); 2]),
        ..Selection::default()
    });
    options.namespaces = vec![lab.server.netns()];
    options.requested_mode = RequestedMode::Exact;
    options
}

/// A peer in the client's namespace at whose address nobody answers.
fn stranger(lab: &Lab, n: u16) -> SocketAddr {
    SocketAddr::new(spoofed(lab.family.wire_is_v6(), n), 40_000 + n)
}

/// Its line, as soon as it is said.
fn ended(live: &Live, peer: SocketAddr) -> Result<(Line, Handshake)> {
    let line = live.wait_for("its end", PATIENCE, |line| match &line.body {
        Body::Handshake(h) => h.connection.peer_port == Some(peer.port()),
        _ => false,
    })?;
    match &line.body {
        Body::Handshake(h) => Ok((line.clone(), (**h).clone())),
        _ => unreachable!("it was a handshake"),
    }
}

/// Polls until a half-open is there, or is not; gives the last moment before and the first after.
fn until_half_opens(lab: &Lab, wanted: usize) -> Result<(u64, u64)> {
    let deadline = Instant::now() + PATIENCE;
    let mut before_ns = monotonic_ns();
    loop {
        let asked_ns = monotonic_ns();
        if lab.half_opens(PORT)? == wanted {
            return Ok((before_ns, monotonic_ns()));
        }
        before_ns = asked_ns;
        ensure!(
            Instant::now() < deadline,
            "{wanted} half-opens: not in time"
        );
    }
}

fn exact_end(h: &Handshake, outcome: Outcome) -> Result<u64> {
    ensure!(h.outcome == outcome, "{h:#?}");
    ensure!(h.dwell_error_us.is_none(), "{h:#?}");
    ensure!(h.dwell_source == Some(DwellSource::RequestSock), "{h:#?}");
    h.dwell_us.context("a dwell")
}

/// Ended by a RST within its first second: one line, with a dwell as on the wire.
fn young_reset(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let capture = Capture::start(&lab.server)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let (server, peer) = (SocketAddr::new(lab.server_ip(), PORT), stranger(&lab, 1));
    let before = lab.counters()?;
    let (line, watched) = watch(of_server(&lab), |live| {
        sender.syn(peer, server, 77)?;
        until_half_opens(&lab, 1)?;
        sender.rst(peer, server, 78)?;
        ended(live, peer)
    })?;
    let (line, h) = line;
    let watched = watched.complete()?;
    let dwell_us = exact_end(&h, Outcome::Reset)?;
    ensure!(watched.handshakes().count() == 1, "{:#?}", watched.lines);
    let resets = lab.counters()?.since(&before).server.get("EmbryonicRsts");
    ensure!(resets == 1, "{resets} EmbryonicRsts");

    let wire = WireTimes::of(capture)?;
    let sent_ns = wire.first(SYN_ACK, true, PORT, peer.port())?;
    let reset_ns = wire.first(flags::RST, false, PORT, peer.port())?;
    let wire_us = reset_ns.saturating_sub(sent_ns) / 1000;
    ensure!(wire_us < 1_000_000, "the RST came after {wire_us} µs");
    ensure!(
        dwell_us.abs_diff(wire_us) <= TOLERANCE_US,
        "{dwell_us} µs told, {wire_us} µs on the wire"
    );
    ensure!(line.mono_ns.abs_diff(reset_ns) <= TOLERANCE_US * 1000);
    figure(format!(
        "young-reset: {dwell_us} µs told, {wire_us} µs on the wire"
    ));
    Ok(())
}

/// With `tcp_abort_on_overflow` this host answers a final ACK at a full accept queue with a RST. The
/// kernel counts it like a peer's; it is the application's doing.
fn aborted_on_overflow(family: SocketFamily, requested_mode: RequestedMode) -> Result<()> {
    let lab = Lab::new(family)?;
    lab.server.set_sysctl("ipv4/tcp_abort_on_overflow", "1")?;
    let _listener = lab.listen(PORT, 1)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, bare_ack(), LossPattern::First(1), PORT)?;
    let before = lab.counters()?;
    let mut options = of_server(&lab);
    options.requested_mode = requested_mode;
    let connected = || traffic::connected(&lab, PATIENCE);
    let (h, watched) = watch(options, |live| {
        let half_open = connected()?;
        fault.lift(0)?;
        // The backlog and one more.
        let _queued = [connected()?, connected()?];
        // A second later its SYN-ACK comes again, and is acknowledged again.
        let (_, h) = ended(live, half_open.local)?;
        let told = half_open.stream.take_error()?;
        let reset = told.as_ref().and_then(io::Error::raw_os_error);
        ensure!(
            reset == Some(libc::ECONNRESET),
            "the client was told {told:?}"
        );
        Ok(h)
    })?;
    watched.complete()?;
    let resets = lab.counters()?.since(&before).server.get("EmbryonicRsts");
    ensure!(resets == 1, "{resets} EmbryonicRsts");
    ensure!(h.outcome == Outcome::Dropped, "{h:#?}");
    ensure!(h.verdict == Some(VerdictKind::AcceptQueueFull), "{h:#?}");
    let said = h
        .evidence
        .iter()
        .any(|e| e.fact.contains("tcp_abort_on_overflow"));
    ensure!(said, "{h:#?}");
    Ok(())
}

/// The last time-out ends it at that moment: between the last look that shows it and the first that
/// does not.
fn expiry(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    lab.server.set_sysctl("ipv4/tcp_synack_retries", "1")?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let (server, peer) = (SocketAddr::new(lab.server_ip(), PORT), stranger(&lab, 2));
    let before = lab.counters()?;
    let (((shown_ns, gone_ns), (line, h)), watched) = watch(of_server(&lab), |live| {
        sender.syn(peer, server, 77)?;
        until_half_opens(&lab, 1)?;
        Ok((until_half_opens(&lab, 0)?, ended(live, peer)?))
    })?;
    let watched = watched.complete()?;
    exact_end(&h, Outcome::Expired)?;
    ensure!(h.error.is_none() && h.retransmits == 1, "{h:#?}");
    ensure!(
        (shown_ns..=gone_ns + TOLERANCE_US * 1000).contains(&line.mono_ns),
        "it ended at {}, between {shown_ns} and {gone_ns}",
        line.mono_ns
    );
    ensure!(watched.count(Role::Server, Outcome::Expired) == 1);
    let moved = lab.counters()?.since(&before);
    ensure!(moved.server.get("TCPTimeouts") == 2, "{moved:?}");
    ensure!(moved.server.get("EmbryonicRsts") == 0, "{moved:?}");
    Ok(())
}

/// Its listener is gone: the next packet, or its timer, ends it.
fn listener_closed(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let (server, peer) = (SocketAddr::new(lab.server_ip(), PORT), stranger(&lab, 3));
    let (((shown_ns, gone_ns), (line, h)), watched) = watch(of_server(&lab), |live| {
        sender.syn(peer, server, 77)?;
        until_half_opens(&lab, 1)?;
        drop(listener);
        Ok((until_half_opens(&lab, 0)?, ended(live, peer)?))
    })?;
    watched.complete()?;
    exact_end(&h, Outcome::Dropped)?;
    let fact = h
        .evidence
        .iter()
        .any(|e| e.fact == "its listener is closed");
    ensure!(fact, "{h:#?}");
    ensure!(
        (shown_ns..=gone_ns + TOLERANCE_US * 1000).contains(&line.mono_ns),
        "it ended at {}, between {shown_ns} and {gone_ns}",
        line.mono_ns
    );
    Ok(())
}

/// Its listener is gone, and a packet of the peer's ends it at once.
fn closed_then_ack(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let listener = lab.listen(PORT, 64)?;
    let capture = Capture::start(&lab.server)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let (server, peer) = (SocketAddr::new(lab.server_ip(), PORT), stranger(&lab, 6));
    let ((line, h), watched) = watch(of_server(&lab), |live| {
        sender.syn(peer, server, 77)?;
        until_half_opens(&lab, 1)?;
        drop(listener);
        sender.ack(peer, server, 78, 1)?;
        ended(live, peer)
    })?;
    let fentry = harness::host()?
        .exact_by(RequestedMode::Exact, Detail::Handshakes)?
        .source
        == HalfOpenSource::Fentry;
    let unreported = watched
        .lost()
        .any(|l| l.reason.starts_with("ends of half-opens"));
    if fentry && unreported {
        // inet_csk_reqsk_queue_drop() is inlined into inet_csk_reqsk_queue_drop_and_put() there: the
        // run says that an event was missing, and the look has found the end.
        figure("listener-closed-then-ack: by a look, and said to be lost (5.10)");
        ensure!(h.outcome == Outcome::Dropped, "{h:#?}");
        return Ok(());
    }
    watched.complete()?;
    exact_end(&h, Outcome::Dropped)?;
    ensure!(h.evidence[0].fact == "its listener is closed", "{h:#?}");
    let wire = WireTimes::of(capture)?;
    let ack_ns = wire.first(flags::ACK, false, PORT, peer.port())?;
    ensure!(line.mono_ns.abs_diff(ack_ns) <= TOLERANCE_US * 1000);
    Ok(())
}

/// SOCK_DESTROY, as `ss -K` sends it.
fn closed_by_a_tool(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let (server, peer) = (SocketAddr::new(lab.server_ip(), PORT), stranger(&lab, 7));
    let (told, watched) = watch(of_server(&lab), |live| {
        sender.syn(peer, server, 77)?;
        until_half_opens(&lab, 1)?;
        let before_ns = monotonic_ns();
        match lab.server.run(|| Ok(destroy(server, peer)))? {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
            done => done.context("SOCK_DESTROY")?,
        }
        Ok(Some((before_ns, monotonic_ns(), ended(live, peer)?)))
    })?;
    let Some((before_ns, after_ns, (line, h))) = told else {
        figure("closed-by-a-tool: this kernel has no SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY)");
        return Ok(());
    };
    watched.complete()?;
    exact_end(&h, Outcome::Dropped)?;
    ensure!(
        h.evidence[0].fact == "it was closed by a tool (ss -K)",
        "{h:#?}"
    );
    ensure!((before_ns..=after_ns).contains(&line.mono_ns), "{line:?}");
    Ok(())
}

/// include/uapi/linux/{sock_diag,inet_diag}.h: a header, then `struct inet_diag_req_v2`.
fn destroy(local: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    const SOCK_DESTROY: u16 = 21;
    const LEN: usize = 16 + 56;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut m = [0_u8; LEN];
    m[..4].copy_from_slice(&(LEN as u32).to_ne_bytes());
    m[4..6].copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
    m[6..8].copy_from_slice(&flags.to_ne_bytes());
    m[16] = match local {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    } as u8;
    m[17] = libc::IPPROTO_TCP as u8;
    m[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    m[24..26].copy_from_slice(&local.port().to_be_bytes());
    m[26..28].copy_from_slice(&peer.port().to_be_bytes());
    let mut address = |at: usize, ip: IpAddr| match ip {
        IpAddr::V4(v4) => m[at..at + 4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => m[at..at + 16].copy_from_slice(&v6.octets()),
    };
    address(28, local.ip());
    address(44, peer.ip());
    // No interface, no cookie (INET_DIAG_NOCOOKIE).
    m[64..].copy_from_slice(&[0xff; 8]);
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut answer = [0_u8; 256];
    // SAFETY: both buffers are alive for the length that is said. The kernel answers within the send.
    let got = unsafe {
        if libc::send(fd.as_raw_fd(), m.as_ptr().cast(), m.len(), 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    // NLMSG_ERROR: a negative errno behind the header, 0 for an acknowledgement.
    match (got >= 20, answer[16..20].first_chunk()) {
        (true, Some(code)) => match i32::from_ne_bytes(*code) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        },
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What a wish comes to, and what is said of it.
fn auto() -> Result<()> {
    let host = harness::host()?;
    let decided = host.exact_by(RequestedMode::Auto, Detail::Handshakes)?;
    let lab = Lab::new(SocketFamily::V4)?;
    let mut auto = of_server(&lab);
    auto.requested_mode = RequestedMode::Auto;
    let ((), watched) = watch(auto, |_| Ok(()))?;
    let Some(Body::Start(start)) = watched.lines.first().map(|line| &line.body) else {
        anyhow::bail!("no start line: {:?}", watched.lines);
    };
    ensure!(start.mode == decided.source.name(), "{start:?}");
    match &host.exact.fentry {
        Ok(_) => ensure!(decided.source == HalfOpenSource::Fentry && start.mode_why.is_none()),
        Err(refusal) => {
            ensure!(
                decided.source == HalfOpenSource::Tracepoints,
                "auto took the timer"
            );
            ensure!(start.mode_why.as_deref() == Some(&*refusal.0), "{start:?}");
        }
    }
    let exact = host.exact_by(RequestedMode::Exact, Detail::Handshakes)?;
    ensure!(exact.source.is_exact());
    let none = host.exact_by(RequestedMode::Tracepoints, Detail::Handshakes)?;
    ensure!(none.source == HalfOpenSource::Tracepoints && none.why.is_none());
    Ok(())
}

/// The quiet mode: a failure within the first second has its line, a healthy handshake no record.
fn quiet() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, false)?;
    let (server, peer) = (SocketAddr::new(lab.server_ip(), PORT), stranger(&lab, 4));
    let mut options = of_server(&lab);
    options.detail = Detail::Quiet {
        slow: Duration::from_secs(1),
    };
    const HEALTHY: u64 = 50;
    let (line, watched) = watch(options, |live| {
        let mut clients = Vec::new();
        for _ in 0..HEALTHY {
            clients.push(Client::connect(&lab.client, lab.server_addr(PORT), |_| {
                Ok(())
            })?);
            while listener.accept().is_err() {}
        }
        sender.syn(peer, server, 77)?;
        until_half_opens(&lab, 1)?;
        sender.rst(peer, server, 78)?;
        ended(live, peer)
    })?;
    let watched = watched.complete()?;
    exact_end(&line.1, Outcome::Reset)?;
    let end = &watched.end;
    ensure!((end.handshakes, end.counted) == (1, HEALTHY), "{end:#?}");
    Ok(())
}

fn peer_line(watched: &WatchedRun, peer: SocketAddr) -> Result<Peer> {
    let found = watched.lines.iter().find_map(|line| match &line.body {
        Body::Peer(p) if p.peer_addr == peer.ip() && p.role == Role::Server => Some((**p).clone()),
        _ => None,
    });
    found.with_context(|| format!("no line of {peer}: {:#?}", watched.lines))
}

/// SYNs that find the accept queue full: by peer.
fn accept_queue(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let listener = lab.listen(PORT, 1)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let (server, peer) = (SocketAddr::new(lab.server_ip(), PORT), stranger(&lab, 5));
    let before = lab.counters()?;
    let ((), watched) = watch(of_server(&lab), |_| {
        // One more than the backlog fits.
        let mut clients = Vec::new();
        for _ in 0..2 {
            clients.push(Client::connect(&lab.client, lab.server_addr(PORT), |_| {
                Ok(())
            })?);
        }
        let deadline = Instant::now() + PATIENCE;
        while lab.established(PORT)? != 2 {
            ensure!(Instant::now() < deadline, "the accept queue is not full");
        }
        for seq in 0..7 {
            sender.syn(peer, server, 1_000 + seq)?;
        }
        refused(&lab, &before, "ListenOverflows", 7)
    })?;
    drop(listener);
    let line = peer_line(&watched.complete()?, peer)?;
    ensure!(line.syns_refused_accept_queue == Some(7), "{line:#?}");
    ensure!(
        line.syns_refused_syn_queue == Some(0) && line.attempts == 0,
        "{line:#?}"
    );
    Ok(())
}

/// SYNs that find the SYN queue full, without cookies: by peer.
fn syn_queue(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    lab.server.set_sysctl("ipv4/tcp_syncookies", "0")?;
    let _listener = lab.listen(PORT, 2)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let before = lab.counters()?;
    let peer = stranger(&lab, 50);
    let ((), watched) = watch(of_server(&lab), |_| {
        for n in 0..3 {
            sender.syn(stranger(&lab, 10 + n), server, 1)?;
        }
        until_half_opens(&lab, 3)?;
        for seq in 0..7 {
            sender.syn(peer, server, 1_000 + seq)?;
        }
        refused(&lab, &before, "TCPReqQFullDrop", 7)
    })?;
    let line = peer_line(&watched.complete()?, peer)?;
    ensure!(line.syns_refused_syn_queue == Some(7), "{line:#?}");
    ensure!(
        line.syns_refused_accept_queue == Some(0) && line.attempts == 0,
        "{line:#?}"
    );
    Ok(())
}

/// Waits until the kernel has counted this many.
fn refused(
    lab: &Lab,
    before: &synprobe_lab::LabCounters,
    counter: &str,
    wanted: u64,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counted = lab.counters()?.since(before).server.get(counter);
        if counted == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{counter}: {counted} counted");
    }
}
