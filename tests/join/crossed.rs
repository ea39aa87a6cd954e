//! Two hosts that call each other at once (simultaneous open, RFC 9293 section 3.5).

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use synprobe_lab::{
    Client, ConnectState, FaultInjector, Lab, LossPattern, Ns, PORT, RawSender, Server,
    SocketFamily,
    capture::{Capture, PacketTrace},
    packet::flags,
    settle, syn, syn_ack,
};
use synprobe_tests::harness::Undecided;

use crate::{
    files::{Lines, clean, joined, pairs},
    two_ends::{Views, end_of_handshake},
};

const HEALTHY: u16 = PORT;
/// From where the client calls.
const OURS: u16 = 30_111;
/// From where the server does.
const THEIRS: u16 = PORT + 3;
/// The connect of the files made by hand.
const ID: u32 = 77;

fn until() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn connected(lab: &Lab, clients: &mut Vec<Client>) -> Result<()> {
    for _ in 0..5 {
        clients.push(Client::connect(
            &lab.client,
            lab.server_addr(HEALTHY),
            |_| Ok(()),
        )?);
        settle(clients.last_mut(), &AtomicBool::new(false), until())?;
    }
    Ok(())
}

/// Waits until both views have the ends of the handshake, and ends them: their lines.
fn ended(views: Views, lab: &Lab, clients: &mut Vec<Client>) -> Result<(String, String)> {
    views
        .client
        .wait_for("the client's end", end_of_handshake(OURS))?;
    views
        .server
        .wait_for("the server's end", end_of_handshake(THEIRS))?;
    connected(lab, clients)?;
    views.end()
}

fn call(lab: &Lab, ns: &Ns) -> Result<Client> {
    let (ours, theirs) = (lab.client_addr(OURS), lab.server_addr(THEIRS));
    match ns.label() == lab.client.label() {
        true => Client::connect_from(ns, ours, theirs),
        false => Client::connect_from(ns, theirs, ours),
    }
}

/// The initial sequence number of what an end called.
fn number(trace: &PacketTrace, from: u16) -> Result<u32> {
    let all = trace.segments.iter();
    let mut syns = all.filter(|s| s.segment.flags == flags::SYN && s.segment.source.port() == from);
    Ok(syns.next().context("a SYN")?.segment.seq)
}

/// The only pair of two active opens, and that no direction is named in any pair.
fn simultaneous(lines: &[Value]) -> Result<&Value> {
    for pair in pairs(lines) {
        let verdict = pair["verdict"].as_str().unwrap_or_default();
        ensure!(!verdict.starts_with("lost"), "{pair:#}");
    }
    let mut found = pairs(lines)
        .into_iter()
        .filter(|p| p["simultaneous"] == true);
    let one = found
        .next()
        .with_context(|| format!("no simultaneous open: {lines:#?}"))?;
    ensure!(found.next().is_none(), "more than one: {lines:#?}");
    ensure!(
        one["lost"]["toward_server"].is_null() && one["lost"]["toward_client"].is_null(),
        "{one:#}"
    );
    Ok(one)
}

/// Both SYNs are under way before either arrives. The link loses both, and later hands over a copy of each. It loses
/// one SYN-ACK: both ends are connected all the same, by the other one, and nothing is retransmitted.
pub fn crossing(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let listener = Server::start(vec![lab.listen(HEALTHY, 128)?])?;
    let views = Views::of(&lab)?;
    let mut clients = Vec::new();
    connected(&lab, &mut clients)?;
    let mut into_server = FaultInjector::attach(&lab.server)?;
    let mut into_client = FaultInjector::attach(&lab.client)?;
    into_server.set(0, syn(), LossPattern::First(1), THEIRS)?;
    into_server.set(1, syn_ack(), LossPattern::First(1), THEIRS)?;
    into_client.set(0, syn(), LossPattern::First(1), THEIRS)?;
    let capture = Capture::start(&lab.client)?;
    let (mut ours, mut theirs) = (call(&lab, &lab.client)?, call(&lab, &lab.server)?);
    let trace = capture.stop()?;
    let capture = Capture::start(&lab.client)?;
    let v6 = family.wire_is_v6();
    let ends = (ours.local, theirs.local);
    RawSender::open(&lab.server, v6)?.syn(ends.1, ends.0, number(&trace, THEIRS)?)?;
    let lost_one = until();
    while into_server.count(1)?.dropped == 0 {
        ensure!(Instant::now() < lost_one, "no SYN-ACK of the client's");
        std::thread::yield_now();
    }
    RawSender::open(&lab.client, v6)?.syn(ends.0, ends.1, number(&trace, OURS)?)?;
    settle([&mut ours, &mut theirs], &AtomicBool::new(false), until())?;
    ensure!(
        (ours.seen, theirs.seen) == (ConnectState::Connected, ConnectState::Connected),
        "{:?} {:?}",
        ours.seen,
        theirs.seen
    );
    let trace = capture.stop()?;
    if ours.retransmits()? + theirs.retransmits()? > 0 {
        // The host was so slow that a SYN was due again.
        return Err(
            Undecided("a SYN was retransmitted before the copies were sent".to_owned()).into(),
        );
    }
    let syn_acks = trace.segments.iter();
    let syn_acks: Vec<u16> = syn_acks
        .filter(|s| s.segment.flags & (flags::SYN | flags::ACK) == flags::SYN | flags::ACK)
        .map(|s| s.segment.source.port())
        .collect();
    ensure!(
        syn_acks == [OURS, THEIRS],
        "each end answers the other's SYN: {syn_acks:?}"
    );
    let (ours_text, theirs_text) = ended(views, &lab, &mut clients)?;
    let name = format!("crossing-{v6}");
    let (lines, _) = joined(&ours_text, &theirs_text, &name)?;
    let pair = simultaneous(&lines)?;
    ensure!(
        pair["key"] == "syn_seq" && pair["verdict"].is_null() && pair["confidence"] == "likely",
        "{pair:#}"
    );
    let (client, server) = (&pair["client"], &pair["server"][0]);
    ensure!(
        client["syn_seq"] == server["syn_ack_seq"] && server["syn_seq"] == client["syn_ack_seq"],
        "{pair:#}"
    );
    ensure!(client["syn_seq"] == number(&trace, OURS)?, "{pair:#}");
    ensure!(pairs(&lines).len() == 11, "{lines:#?}");
    drop((ours, theirs, clients));
    listener.stop()?;
    Ok(())
}

/// The server calls back while the client's SYNs are lost, and cannot be reached at all: the client has its SYN, and
/// all its SYN-ACKs are lost. Neither end may call the other's SYNs lost because that one has no half-open.
pub fn called_back(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let listener = Server::start(vec![lab.listen(HEALTHY, 128)?])?;
    for ns in [&lab.client, &lab.server] {
        ns.set_sysctl("ipv4/tcp_syn_retries", "1")?;
        // The client answers from a full socket.
        ns.set_sysctl("ipv4/tcp_synack_retries", "1")?;
    }
    let views = Views::of(&lab)?;
    let mut clients = Vec::new();
    connected(&lab, &mut clients)?;
    let mut into_server = FaultInjector::attach(&lab.server)?;
    into_server.set(0, syn(), LossPattern::All, THEIRS)?;
    into_server.set(1, syn_ack(), LossPattern::All, THEIRS)?;
    let (mut ours, mut theirs) = (call(&lab, &lab.client)?, call(&lab, &lab.server)?);
    settle([&mut ours, &mut theirs], &AtomicBool::new(false), until())?;
    ensure!(
        ours.seen == ConnectState::Failed(libc::ETIMEDOUT)
            && theirs.seen == ConnectState::Failed(libc::ETIMEDOUT),
        "{:?} {:?}",
        ours.seen,
        theirs.seen
    );
    let (syns, syn_acks) = (into_server.count(0)?, into_server.count(1)?);
    ensure!(
        syns.dropped > 0 && syn_acks.dropped > 0,
        "{syns:?} {syn_acks:?}"
    );
    let (ours_text, theirs_text) = ended(views, &lab, &mut clients)?;
    let v6 = family.wire_is_v6();
    for (first, second, order) in [
        (&ours_text, &theirs_text, "there"),
        (&theirs_text, &ours_text, "back"),
    ] {
        let (lines, _) = joined(first, second, &format!("called-back-{order}-{v6}"))?;
        let pair = simultaneous(&lines)?;
        ensure!(
            pair["key"] == "4-tuple" && pair["verdict"] == "insufficient",
            "{pair:#}"
        );
        // The server's own verdict takes the ACKs of the client's SYN_RECV for those of an old connection.
        ensure!(
            pair["evidence"].to_string().contains("RFC 9293"),
            "{pair:#}"
        );
    }
    drop((ours, theirs, clients));
    listener.stop()?;
    Ok(())
}

/// The state line that tells of the other host's SYN.
fn met(lines: &mut Lines, at_us: i64) {
    let body = json!({
        "id": ID, "role": "client", "family": "ipv4", "netns": 1, "old": "SYN_SENT", "new": "SYN_RECV", "dwell_us": 1,
        "local_addr": "10.0.0.1", "local_port": 1, "peer_addr": "10.0.0.2", "peer_port": 2,
    });
    lines.line("state", at_us, body);
}

/// The server's active open from port 80 to the client's port.
fn calls(lines: &mut Lines, at_us: i64, more: Value) {
    let mut line = json!({
        "role": "client", "local_addr": "10.0.0.2", "local_port": 80, "peer_addr": "10.0.0.1",
        "peer_port": 30_000 + ID, "syn_seq": 2_000_000 + ID, "syn_ack_seq": 1_000_000 + ID,
    });
    if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
        line.extend(more.clone());
    }
    lines.handshake(at_us, ID, line);
}

fn both(
    name: &str,
    ours_more: &Value,
    theirs_more: &Value,
    (we_met, they_met): (bool, bool),
    apart_us: i64,
) -> Result<Vec<Value>> {
    let (mut ours, mut theirs) = clean(5_000_000, 0, json!({}));
    for (side, is_met) in [(&mut ours, we_met), (&mut theirs, they_met)] {
        if is_met {
            met(side, 30_000_000);
        }
    }
    ours.active(30_000_100, ID, ours_more.clone());
    calls(&mut theirs, 30_000_120 + apart_us, theirs_more.clone());
    let end_us = 60_000_000 + apart_us;
    Ok(joined(&ours.end(end_us, 0), &theirs.end(end_us, 0), name)?.0)
}

/// Which two active opens are one connection, and the verdict on them.
pub fn called_at_once() -> Result<()> {
    let none = json!({});
    for (name, met) in [("at-once", (true, true)), ("at-once-2", (true, true))] {
        let lines = both(name, &none, &none, met, 0)?;
        let pair = simultaneous(&lines)?;
        ensure!(
            pair["key"] == "syn_seq" && pair["verdict"].is_null() && pair["confidence"] == "likely",
            "{pair:#}"
        );
    }
    // One has not seen the other's SYN: it may be lost, or came before that one called.
    for met in [(true, false), (false, true)] {
        let lines = both("one-met", &none, &none, met, 0)?;
        let pair = simultaneous(&lines)?;
        ensure!(pair["verdict"] == "insufficient", "{pair:#}");
    }
    // Behind NAT only the numbers are the same. Without either host's SYN, two connects are two.
    let nat = json!({"peer_addr": "192.0.2.9", "peer_port": 555});
    let pair_of = |lines: &[Value]| simultaneous(lines).map(|pair| pair["key"].clone());
    let lines = both("crossed-nat", &none, &nat, (true, true), 0)?;
    ensure!(pair_of(&lines)? == "syn_seq", "{lines:#?}");
    for (name, theirs, met, apart_us) in [
        ("neither-met", none.clone(), (false, false), 0),
        ("other-number", json!({"syn_seq": 5}), (true, true), 0),
        ("an-hour-later", none.clone(), (true, true), 3_600_000_000),
        (
            "other-ends",
            json!({"syn_seq": null, "syn_ack_seq": null, "peer_port": 9}),
            (true, true),
            0,
        ),
    ] {
        let lines = both(name, &none, &theirs, met, apart_us)?;
        ensure!(
            pairs(&lines).iter().all(|p| p["simultaneous"] == false),
            "{name}: {lines:#?}"
        );
    }
    Ok(())
}

/// The client's SYN came, and the server's answers were lost. The client timed out and has never heard of it.
pub fn in_vain() -> Result<()> {
    let late = |more: Value| {
        let mut line = json!({
            "outcome": "timed_out", "error": "ETIMEDOUT", "retransmits": 2, "verdict": "filtered",
            "dwell_us": 7_000_000, "confidence": "likely", "syn_ack_seq": null,
        });
        if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
            line.extend(more.clone());
        }
        line
    };
    let lines = both(
        "in-vain",
        &late(json!({})),
        &late(json!({})),
        (false, true),
        0,
    )?;
    let pair = simultaneous(&lines)?;
    ensure!(
        pair["key"] == "4-tuple" && pair["verdict"] == "insufficient",
        "{pair:#}"
    );
    // Behind NAT nothing tells which connect it is: but that host called from the port that was called.
    let nat = late(json!({"peer_addr": "192.0.2.9", "peer_port": 555}));
    let lines = both("in-vain-nat", &late(json!({})), &nat, (false, true), 0)?;
    let in_trouble: Vec<_> = pairs(&lines)
        .into_iter()
        .filter(|p| !p["verdict"].is_null())
        .collect();
    let [pair] = in_trouble[..] else {
        anyhow::bail!("{lines:#?}");
    };
    ensure!(
        pair["verdict"] == "insufficient"
            && pair["evidence"].to_string().contains("had called too"),
        "{pair:#}"
    );
    // What one end did itself it says.
    let own = late(
        json!({"verdict": "dropped-here", "confidence": "certain", "evidence": [
        {"fact": "this host dropped 3 of its own", "for": true}]}),
    );
    let lines = both("own-drop", &late(json!({})), &own, (false, true), 0)?;
    let pair = simultaneous(&lines)?;
    ensure!(
        pair["verdict"] == "dropped-here"
            && pair["evidence"]
                .to_string()
                .contains("the server: this host dropped 3"),
        "{pair:#}"
    );
    Ok(())
}

/// A SYN in the server's name, by somebody who guessed the port: the client goes on with SYN-ACKs. They are no SYNs
/// that the server has not got.
pub fn forged() -> Result<()> {
    let (mut ours, mut theirs) = clean(0, 0, json!({}));
    met(&mut ours, 30_000_000);
    for after_us in [1_000_000, 3_000_000] {
        let again = json!({"id": ID, "kind": "synack", "trigger": "timer"});
        ours.line("retransmit", 30_000_000 + after_us, again);
    }
    let more = json!({
        "outcome": "timed_out", "error": "ETIMEDOUT", "dwell_us": 7_000_000, "retransmits": 2, "verdict": null,
        "syn_ack_seq": null,
    });
    ours.active(37_000_000, ID, more);
    theirs.passive(
        33_000_000,
        ID,
        json!({"outcome": "expired", "dwell_us": 3_000_000}),
    );
    let (lines, _) = joined(
        &ours.end(60_000_000, 0),
        &theirs.end(60_000_000, 0),
        "forged",
    )?;
    let troubled: Vec<_> = pairs(&lines)
        .into_iter()
        .filter(|p| !p["verdict"].is_null())
        .collect();
    let [pair] = troubled[..] else {
        anyhow::bail!("{lines:#?}");
    };
    ensure!(
        pair["verdict"] == "insufficient" && pair["lost"]["toward_server"].is_null(),
        "{pair:#}"
    );
    Ok(())
}
