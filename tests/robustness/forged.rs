//! Packets and namespaces of strangers. What they send is real, and what it is meant to make synprobe say is not
//! true. docs/robustness.md states what each of them can do.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use synprobe::model::{
    Body, Confidence, Evidence, Handshake, Outcome, RetransmitKind, Role, Trigger, VerdictKind,
};
use synprobe_lab::{
    Client, ConnectState, FaultInjector, Lab, LossPattern, Ns, PORT, RawSender, SocketFamily,
    TcpCounters,
    capture::Capture,
    net::{self, RouteTarget},
    nft::{self, NftHook, NftRule},
    packet::{TcpSegment, checksum, flags},
    set_option, syn, syn_ack,
};
use synprobe_tests::{
    harness::Undecided,
    pipeline_run::{Live, WatchedRun, options_for, watch},
};

/// A test for one family.
pub type OfFamily = fn(SocketFamily) -> Result<()>;

/// Longer than the first two SYN-ACK time-outs take, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);
/// Far outside of any receive window.
const FAR: u32 = 0x4000_0000;

/// The initial sequence number that strangers of this lab use. Two labs at the same time have two: a program in the
/// kernel sees what is dropped in both.
fn number(lab: &Lab) -> u32 {
    lab.server.inode() % 100_000 * 10_000
}

/// The `n`th stranger: an address that the lab routes to the client's namespace, and that nobody has.
fn stranger(lab: &Lab, n: u16) -> SocketAddr {
    SocketAddr::new(net::spoofed(is_v6(lab), n), 40_000 + n)
}

fn is_v6(lab: &Lab) -> bool {
    lab.family == SocketFamily::V6
}

fn server(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), PORT)
}

/// Waits until the timer has sent the SYN-ACK of a stranger `times` times again.
fn repeated(live: &Live, of: SocketAddr, times: u32) -> Result<()> {
    live.wait_for("a SYN-ACK again", PATIENCE, |line| match &line.body {
        Body::Retransmit(r) => {
            r.kind == RetransmitKind::Synack
                && r.trigger == Some(Trigger::Timer)
                && is_of(r.connection.peer_addr, r.connection.peer_port, of)
                && r.attempt >= Some(times)
        }
        _ => false,
    })
    .map(drop)
}

fn is_of(addr: IpAddr, port: Option<u16>, of: SocketAddr) -> bool {
    addr == of.ip() && port == Some(of.port())
}

/// The lines of the half-opens of a stranger.
fn of(watched: &WatchedRun, peer: SocketAddr) -> Vec<&Handshake> {
    let all = watched.handshakes().map(|(_, h)| h);
    all.filter(|h| {
        h.connection.role == Role::Server
            && is_of(h.connection.peer_addr, h.connection.peer_port, peer)
    })
    .collect()
}

fn one(watched: &WatchedRun, peer: SocketAddr) -> Result<&Handshake> {
    let all = of(watched, peer);
    ensure!(all.len() == 1, "one line of {peer}: {all:#?}");
    // What other tests drop by the thousand can cost records of drops, and so a verdict that rests on their absence.
    let weakened = |e: &Evidence| e.fact.starts_with("records were lost");
    if all[0].evidence.iter().any(weakened) {
        return Err(Undecided(format!("records were lost: {:?}", all[0].verdict)).into());
    }
    Ok(all[0])
}

fn complete(watched: WatchedRun) -> Result<WatchedRun> {
    let skipped = watched
        .lost()
        .find(|l| l.is_of_handshakes() && l.reason.contains("skipped"));
    match skipped {
        Some(lost) => Err(Undecided(format!("{lost:?}")).into()),
        None => Ok(watched),
    }
}

/// A peer that sees the SYN-ACK acknowledges it outside of the window, and with an old timestamp. Neither is a final
/// ACK that a full queue refused: the queue is empty.
pub fn ack_outside_the_window(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, is_v6(&lab))?;
    let to = server(&lab);
    let (outside, old) = (stranger(&lab, 0), stranger(&lab, 1));
    let segment = |source, seq, ack, flags| TcpSegment {
        source,
        destination: to,
        seq,
        ack,
        flags,
        payload_len: 0,
    };
    let stamped = |segment: TcpSegment, value: u32| {
        let packet = segment.to_ip_with(Some((value, 0))).context("one family")?;
        sender.packet(&packet, to)
    };
    let before = TcpCounters::read(&lab.server)?;
    let capture = Capture::start(&lab.client)?;
    let ((), watched) = watch(options_for(&lab)?, |live| {
        sender.syn(outside, to, number(&lab))?;
        stamped(segment(old, number(&lab), 0, flags::SYN), 5000)?;
        repeated(live, outside, 1)?;
        repeated(live, old, 1)?;
        let seen = capture.stop()?;
        let answer = |peer: SocketAddr| {
            let all = seen.segments.iter().map(|s| &s.segment);
            let mut to_peer = all.filter(|s| s.destination == peer);
            to_peer
                .next()
                .map(|s| s.seq.wrapping_add(1))
                .context("its SYN-ACK")
        };
        sender.ack(outside, to, number(&lab) + 1 + FAR, answer(outside)?)?;
        stamped(
            segment(old, number(&lab) + 1, answer(old)?, flags::ACK),
            4000,
        )?;
        repeated(live, outside, 2)?;
        repeated(live, old, 2)
    })?;
    let after = TcpCounters::read(&lab.server)?.since(&before);
    ensure!(after.get("ListenOverflows") == 0, "the queue is empty");
    let watched = complete(watched)?;
    for peer in [outside, old] {
        let h = one(&watched, peer)?;
        ensure!(!h.facts.acked, "{h:#?}");
        ensure!(h.verdict == Some(VerdictKind::PeerSilent), "{h:#?}");
        ensure!(h.confidence != Confidence::Certain, "{h:#?}");
        // The stranger was not silent: the verdict says what came.
        let said = h.evidence.iter().any(|e| e.fact.contains("outside"));
        ensure!(said, "{h:#?}");
    }
    Ok(())
}

/// A flood that sends each SYN twice: no address of it is known to live.
pub fn flood_of_repeated_syns(family: SocketFamily) -> Result<()> {
    const SOURCES: u16 = 90;
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 128)?;
    let sender = RawSender::open(&lab.client, is_v6(&lab))?;
    let to = server(&lab);
    let ((), watched) = watch(options_for(&lab)?, |live| {
        for n in 0..SOURCES {
            sender.syn(stranger(&lab, n), to, number(&lab))?;
            sender.syn(stranger(&lab, n), to, number(&lab))?;
        }
        // The timer prunes the oldest of a SYN queue that is more than half full: the last ones stay.
        for n in SOURCES / 2..SOURCES {
            repeated(live, stranger(&lab, n), 1)?;
        }
        Ok(())
    })?;
    let watched = complete(watched)?;
    let mut flood = 0;
    for n in 0..SOURCES {
        for h in of(&watched, stranger(&lab, n)) {
            ensure!(h.confidence != Confidence::Certain, "{h:#?}");
            flood += u32::from(h.verdict == Some(VerdictKind::SynFlood));
        }
    }
    ensure!(flood > u32::from(SOURCES) / 2, "{flood} of a flood");
    Ok(())
}

/// A network that makes copies (a switch loop, a mirror port): each SYN comes twice, and one of them again after its
/// handshake. The peer has repeated nothing, and nothing was lost.
pub fn copies_of_a_syn(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, is_v6(&lab))?;
    let to = server(&lab);
    let (peer, silent) = (stranger(&lab, 0), stranger(&lab, 1));
    let before = TcpCounters::read(&lab.server)?;
    let capture = Capture::start(&lab.client)?;
    let ((), watched) = watch(options_for(&lab)?, |live| {
        for from in [peer, peer, silent, silent] {
            sender.syn(from, to, number(&lab))?;
        }
        live.wait_for("the answer to a copy", PATIENCE, |line| match &line.body {
            Body::Retransmit(r) => {
                r.trigger == Some(Trigger::Peer)
                    && is_of(r.connection.peer_addr, r.connection.peer_port, silent)
            }
            _ => false,
        })?;
        let seen = capture.stop()?;
        let mut answers = seen.segments.iter().map(|s| &s.segment);
        let answer = answers.find(|s| s.destination == peer);
        let answer = answer.context("its SYN-ACK")?.seq.wrapping_add(1);
        sender.ack(peer, to, number(&lab) + 1, answer)?;
        sender.syn(peer, to, number(&lab))?;
        repeated(live, silent, 2)
    })?;
    let after = TcpCounters::read(&lab.server)?.since(&before);
    let counted = ["PassiveOpens", "TCPSYNChallenge"].map(|name| after.get(name));
    ensure!(
        counted == [1, 1],
        "a handshake, and a copy after it: {counted:?}"
    );
    let watched = complete(watched)?;
    let h = one(&watched, peer)?;
    ensure!(h.outcome == Outcome::Established, "{h:#?}");
    ensure!(h.retransmits_by_peer == 1, "{h:#?}");
    ensure!(h.verdict.is_none(), "{h:#?}");
    ensure!(
        h.evidence
            .iter()
            .any(|e| e.fact.contains("the network made the copy")),
        "{h:#?}"
    );
    let h = one(&watched, silent)?;
    ensure!(h.verdict == Some(VerdictKind::PeerSilent), "{h:#?}");
    let refused = watched
        .lines
        .iter()
        .find(|line| matches!(line.body, Body::SynRefused(_)));
    ensure!(refused.is_none(), "{refused:#?}");
    Ok(())
}

/// Blind: a RST in the name of a half-open that lives, outside of its window, while another one is really reset.
pub fn rst_outside_the_window(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, is_v6(&lab))?;
    let to = server(&lab);
    let (victim, other, young) = (stranger(&lab, 0), stranger(&lab, 1), stranger(&lab, 2));
    let before = TcpCounters::read(&lab.server)?;
    let ((), watched) = watch(options_for(&lab)?, |live| {
        sender.syn(victim, to, number(&lab))?;
        sender.syn(other, to, number(&lab))?;
        repeated(live, victim, 1)?;
        repeated(live, other, 1)?;
        // One that nothing has shown yet.
        sender.syn(young, to, number(&lab))?;
        sender.rst(young, to, number(&lab) + 1 + FAR)?;
        sender.rst(victim, to, number(&lab) + 1 + FAR)?;
        sender.rst(other, to, number(&lab) + 1)?;
        repeated(live, victim, 2)?;
        repeated(live, young, 1)
    })?;
    let after = TcpCounters::read(&lab.server)?.since(&before);
    ensure!(after.get("EmbryonicRsts") == 1, "one was reset");
    let lost: Vec<_> = watched.lost().cloned().collect();
    let watched = complete(watched)?;
    for lives in [victim, young] {
        let h = one(&watched, lives)?;
        ensure!(h.outcome == Outcome::Open, "it lives: {h:#?}");
        ensure!(h.verdict != Some(VerdictKind::PeerReset), "{h:#?}");
    }
    let h = one(&watched, other)?;
    let told = (h.outcome, h.verdict, h.confidence);
    let due = (
        Outcome::Reset,
        Some(VerdictKind::PeerReset),
        Confidence::Certain,
    );
    ensure!(told == due, "{h:#?}");
    ensure!(lost.is_empty(), "nothing was lost: {lost:?}");
    Ok(())
}

/// A tenant with a network namespace of its own: it has the addresses and ports of others there, and a rule that
/// drops.
pub fn drops_of_a_tenant(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, is_v6(&lab))?;
    let (to, victim) = (server(&lab), stranger(&lab, 0));
    let tenant = Ns::new_anonymous("tenant")?;
    net::prepare(&tenant)?;
    let whole = if is_v6(&lab) { 128 } else { 32 };
    net::add_route(&tenant, (victim.ip(), whole), RouteTarget::Here)?;
    nft::install(&tenant, is_v6(&lab), &[NftRule::drop(NftHook::Output)])?;
    let forger = RawSender::open(&tenant, is_v6(&lab))?;
    let forged = TcpSegment {
        source: to,
        destination: victim,
        seq: 1,
        ack: 1,
        flags: flags::SYN | flags::ACK,
        payload_len: 0,
    };
    let mut options = options_for(&lab)?;
    options.selection.netns = Some([lab.server.inode(), tenant.inode()]);
    options.namespaces.push(tenant.netns());
    let ((), watched) = watch(options, |live| {
        sender.syn(victim, to, number(&lab))?;
        for again in 1..=2 {
            // Whoever forged the SYN knows what acknowledges it, and not the number of the SYN-ACK.
            for ack in [1, number(&lab) + 1, 1, number(&lab) + 1] {
                let forged = TcpSegment { ack, ..forged };
                // The rule refuses it with EPERM: that is the drop.
                let refused = forger.packet(&forged.to_ip().context("one family")?, victim);
                ensure!(refused.is_err(), "the tenant's rule drops it");
            }
            repeated(live, victim, again)?;
        }
        Ok(())
    })?;
    let watched = complete(watched)?;
    let h = one(&watched, victim)?;
    let certain = h.confidence == Confidence::Certain;
    ensure!(!certain, "{h:#?}");
    Ok(())
}

/// A damaged segment of before the SYN is no part of the handshake.
pub fn drop_of_earlier(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, is_v6(&lab))?;
    let (to, peer, pace) = (server(&lab), stranger(&lab, 0), stranger(&lab, 1));
    let ((), watched) = watch(options_for(&lab)?, |live| {
        let mut damaged = TcpSegment {
            source: peer,
            destination: to,
            seq: number(&lab) + 1,
            ack: 1,
            flags: flags::ACK,
            payload_len: 0,
        }
        .to_ip()
        .context("one family")?;
        let header = if is_v6(&lab) { 40 } else { 20 };
        damaged[header + 16] ^= 0x55;
        sender.packet(&damaged, to)?;
        // The second time-out of another half-open ends 3 s after its SYN.
        sender.syn(pace, to, number(&lab))?;
        repeated(live, pace, 2)?;
        sender.syn(peer, to, number(&lab))?;
        sender.rst(peer, to, number(&lab) + 1)?;
        live.wait_for("its end", PATIENCE, |line| match &line.body {
            Body::Handshake(h) => is_of(h.connection.peer_addr, h.connection.peer_port, peer),
            _ => false,
        })
        .map(drop)
    })?;
    let watched = complete(watched)?;
    let h = one(&watched, peer)?;
    ensure!(h.outcome == Outcome::Reset, "{h:#?}");
    ensure!(h.verdict == Some(VerdictKind::PeerReset), "{h:#?}");
    Ok(())
}

/// A scanner that uses its port again: SYN, RST, and the same with another SYN. It does not repeat a SYN.
pub fn port_used_again(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let sender = RawSender::open(&lab.client, is_v6(&lab))?;
    let (to, peer, pace) = (server(&lab), stranger(&lab, 0), stranger(&lab, 1));
    let ((), watched) = watch(options_for(&lab)?, |live| {
        sender.syn(pace, to, number(&lab))?;
        for isn in [number(&lab), number(&lab) + FAR] {
            sender.syn(peer, to, isn)?;
            sender.rst(peer, to, isn + 1)?;
            // A second or two lie between the two.
            let times = if isn == number(&lab) { 1 } else { 2 };
            repeated(live, pace, times)?;
        }
        Ok(())
    })?;
    let watched = complete(watched)?;
    let all = of(&watched, peer);
    ensure!(all.len() == 2, "{all:#?}");
    for h in all {
        let told = (h.verdict, h.confidence);
        let due = (Some(VerdictKind::PeerReset), Confidence::Certain);
        ensure!(told == due, "{h:#?}");
    }
    Ok(())
}

/// A process that restores connections (TCP_REPAIR): no packet is sent, and there is no handshake.
pub fn restored_connections(family: SocketFamily) -> Result<()> {
    const RESTORED: usize = 20;
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 64)?;
    let before = TcpCounters::read(&lab.client)?;
    let ((), watched) = watch(options_for(&lab)?, |_| {
        for _ in 0..RESTORED {
            let on: libc::c_int = 1;
            let client = Client::connect(&lab.client, lab.server_addr(PORT), |fd| {
                set_option(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, &on)
            })?;
            ensure!(client.seen == ConnectState::Connected, "{:?}", client.seen);
        }
        // One that is real.
        let client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
        client.reset()
    })?;
    let opens = TcpCounters::read(&lab.client)?.since(&before);
    ensure!(opens.get("ActiveOpens") == 1, "ActiveOpens");
    let watched = watched.complete()?;
    let established = watched.count(Role::Client, Outcome::Established);
    ensure!(established == 1, "{established} established");
    Ok(())
}

/// An ICMP error about a segment that the socket never sent: the kernel ignores it (OutOfWindowIcmps).
pub fn icmp_outside_the_window(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    lab.client.set_sysctl("ipv4/tcp_syn_retries", "1")?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, syn(), LossPattern::All, PORT)?;
    let forger = RawSender::open(&lab.server, is_v6(&lab))?;
    let before = TcpCounters::read(&lab.client)?;
    let ((), watched) = watch(options_for(&lab)?, |live| {
        let client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
        live.wait_for(
            "a SYN again",
            PATIENCE,
            |line| matches!(&line.body, Body::Retransmit(r) if r.kind == RetransmitKind::Syn),
        )?;
        let (from, seq) = (net::beyond_server(is_v6(&lab), 6), 0x0bad_5eed);
        let packet = unreachable(from, client.local, client.peer, seq)?;
        forger.packet(&packet, client.local)?;
        live.wait_for("the end of the connect", PATIENCE, |line| {
            match &line.body {
                Body::Handshake(h) => h.connection.role == Role::Client,
                _ => false,
            }
        })
        .map(drop)
    })?;
    let ignored = TcpCounters::read(&lab.client)?.since(&before);
    let ignored = ignored.get("OutOfWindowIcmps");
    ensure!(ignored == 1, "the kernel ignored {ignored} errors");
    let watched = complete(watched)?;
    let all: Vec<_> = watched.handshakes().map(|(_, h)| h).collect();
    let [h] = all[..] else {
        bail!("one handshake: {all:#?}");
    };
    ensure!(h.outcome == Outcome::TimedOut, "{h:#?}");
    ensure!(h.verdict == Some(VerdictKind::Filtered), "{h:#?}");
    Ok(())
}

/// Blind: a SYN in the name of the server that a host calls, at its own port. The kernel takes it for a simultaneous
/// open. It is still the one handshake of that socket, and nothing of it was lost.
pub fn syn_to_a_connecting_socket(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, syn(), LossPattern::All, PORT)?;
    fault.set(1, syn_ack(), LossPattern::All, PORT)?;
    let forger = RawSender::open(&lab.server, is_v6(&lab))?;
    let (local, watched) = watch(options_for(&lab)?, |live| {
        let client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
        forger.syn(server(&lab), client.local, number(&lab))?;
        live.wait_for("a SYN-ACK again, twice", PATIENCE, |line| {
            match &line.body {
                Body::Retransmit(r) => r.kind == RetransmitKind::Synack && r.attempt >= Some(2),
                _ => false,
            }
        })?;
        Ok(client.local)
    })?;
    let lost: Vec<_> = watched.lost().cloned().collect();
    let watched = complete(watched)?;
    let all: Vec<_> = watched.handshakes().map(|(_, h)| h).collect();
    let [h] = all[..] else {
        bail!("one handshake of {local}: {all:#?}");
    };
    ensure!(h.connection.role == Role::Client, "{h:#?}");
    ensure!(h.retransmits >= 2, "{h:#?}");
    ensure!(lost.is_empty(), "nothing was lost: {lost:?}");
    Ok(())
}

/// An ICMP "host unreachable" of `from` about a SYN of `local` to `peer` with a sequence number.
fn unreachable(from: IpAddr, local: SocketAddr, peer: SocketAddr, seq: u32) -> Result<Vec<u8>> {
    let inner = TcpSegment {
        source: local,
        destination: peer,
        seq,
        ack: 0,
        flags: flags::SYN,
        payload_len: 0,
    }
    .to_ip()
    .context("one family")?;
    match (from, local.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
            icmp.extend_from_slice(&inner);
            let sum = checksum(&[&icmp]).to_be_bytes();
            icmp[2..4].copy_from_slice(&sum);
            let mut packet = vec![0x45, 0];
            packet.extend_from_slice(&((20 + icmp.len()) as u16).to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 1, 0, 0]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            packet.extend_from_slice(&icmp);
            Ok(packet)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            // Destination unreachable, address unreachable (RFC 4443 section 3.1).
            let mut icmp = vec![1, 3, 0, 0, 0, 0, 0, 0];
            icmp.extend_from_slice(&inner);
            let length = (icmp.len() as u16).to_be_bytes();
            let ends = [source.octets(), destination.octets()].concat();
            let sum = checksum(&[&ends, &[0, 0, length[0], length[1], 0, 0, 0, 58], &icmp]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 58, 64];
            packet.extend_from_slice(&ends);
            packet.extend_from_slice(&icmp);
            Ok(packet)
        }
        _ => bail!("one family"),
    }
}
