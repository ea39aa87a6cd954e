//! Two agents, each with one namespace's view. The server's clock is shifted, by hours and by a drift.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe::join::pair::utc;
use synprobe_lab::{
    Client, FaultInjector, Lab, LossPattern, PORT, Server, SocketFamily, bare_ack,
    nft::{NftRule, install},
    settle, syn, syn_ack,
};
use synprobe_tests::{agent::Agent, binary::netns_path, harness::Undecided};

use crate::files::{Made, join, joined, pairs};

/// How far the server's clock is ahead, microseconds.
const AHEAD_US: i64 = 5_400_000_000;
/// How fast it gains.
const PPM: i64 = 120;

const HEALTHY: u16 = PORT;
const SYN_LOST: u16 = PORT + 1;
const SYN_ACK_LOST: u16 = PORT + 2;
const NO_SYN_ACK: u16 = PORT + 3;
const NO_SYN: u16 = PORT + 4;
const ACK_LOST: u16 = PORT + 5;
const TRANSLATED: u16 = PORT + 6;
/// Only the destination is translated: called at the second `CALLED`.
const DESTINATION: u16 = PORT + 7;
/// Only the source is translated.
const SOURCED: u16 = PORT + 8;
const CALLED: [u16; 2] = [9000, 9001];
const SOURCE: [u16; 2] = [55_555, 55_556];

pub struct Views {
    pub client: Agent,
    pub server: Agent,
}

impl Views {
    pub fn of(lab: &Lab) -> Result<Self> {
        Ok(Self {
            client: Agent::watch(&["--netns", &netns_path(&lab.client)])?,
            server: Agent::watch(&["--netns", &netns_path(&lab.server)])?,
        })
    }

    /// Both files as text, the server's with its clock shifted.
    pub fn end(self) -> Result<(String, String)> {
        let client = self.client.end()?.complete()?.lines;
        let server = self.server.end()?.complete()?.lines;
        Ok((text(&client), text(&shifted(&server, &client[0])?)))
    }
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Microseconds since 1970.
fn micros(line: &Value) -> Result<i64> {
    let time = line["time"].as_str().context("a time")?;
    let number = |at: std::ops::Range<usize>| -> Result<i64> { Ok(time[at].parse()?) };
    let (year, month) = (number(0..4)?, number(5..7)?);
    // Years that begin in March, of the Gregorian calendar.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
    let days = days + number(8..10)? - 1 - 719_468;
    let seconds = ((days * 24 + number(11..13)?) * 60 + number(14..16)?) * 60 + number(17..19)?;
    Ok(seconds * 1_000_000 + number(20..26)?)
}

fn shifted(lines: &[Value], first: &Value) -> Result<Vec<Value>> {
    let began_us = micros(first)?;
    let mut all = Vec::new();
    for line in lines {
        let mut line = line.clone();
        let us = micros(&line)?;
        let us = us + AHEAD_US + (us - began_us) * PPM / 1_000_000;
        line["time"] = utc(us * 1000).into();
        ensure!(micros(&line)? == us, "{line}");
        all.push(line);
    }
    Ok(all)
}

pub fn end_of_handshake(lab_port: u16) -> impl Fn(&Value) -> bool {
    move |line| {
        line["type"] == "handshake"
            && (line["local_port"] == lab_port || line["peer_port"] == lab_port)
    }
}

/// The pairs by the server's port; by the called one where the server has none.
pub fn by_port(lines: &[Value]) -> BTreeMap<u64, Vec<&Value>> {
    let mut all: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for pair in pairs(lines) {
        let port = pair["server"][0]["local_port"].as_u64();
        let port = port.or(pair["client"]["peer_port"].as_u64());
        all.entry(port.unwrap_or(0)).or_default().push(pair);
    }
    all
}

/// The only pair of a port.
pub fn one_of<'a>(all: &BTreeMap<u64, Vec<&'a Value>>, port: u16) -> Result<&'a Value> {
    match all.get(&port.into()).map(Vec::as_slice) {
        Some([one]) => Ok(one),
        _ => anyhow::bail!("not one pair at port {port}: {all:#?}"),
    }
}

/// Losses of SYN, SYN-ACK and ACK, each in its direction, also behind NAT.
pub fn both_ends(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let mut listeners = Vec::new();
    for port in PORT..=SOURCED {
        listeners.push(lab.listen(port, 128)?);
    }
    let server = Server::start(listeners)?;
    lab.server.set_sysctl("ipv4/tcp_synack_retries", "2")?;
    lab.client.set_sysctl("ipv4/tcp_syn_retries", "2")?;
    let views = Views::of(&lab)?;
    install(
        &lab.server,
        family.wire_is_v6(),
        &[(CALLED[0], TRANSLATED), (CALLED[1], DESTINATION)]
            .map(|(called, to)| NftRule::dnat(lab.server_addr(called), lab.server_addr(to))),
    )?;
    let sources = [(CALLED[0], SOURCE[0]), (SOURCED, SOURCE[1])].map(|(port, source)| NftRule {
        snat_port: Some(source),
        ..NftRule::snat(port, lab.client_ip())
    });
    install(&lab.client, family.wire_is_v6(), &sources)?;
    let mut into_server = FaultInjector::attach(&lab.server)?;
    let mut into_client = FaultInjector::attach(&lab.client)?;
    into_server.set(0, syn(), LossPattern::First(2), SYN_LOST)?;
    into_server.set(1, syn(), LossPattern::All, NO_SYN)?;
    into_server.set(2, bare_ack(), LossPattern::First(1), ACK_LOST)?;
    for (slot, port) in [(3, CALLED[0]), (4, CALLED[1]), (5, SOURCED)] {
        into_server.set(slot, syn(), LossPattern::First(1), port)?;
    }
    into_client.set(0, syn_ack(), LossPattern::First(1), SYN_ACK_LOST)?;
    into_client.set(1, syn_ack(), LossPattern::All, NO_SYN_ACK)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let connect = |port| Client::connect(&lab.client, lab.server_addr(port), |_| Ok(()));
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(connect(HEALTHY)?);
        settle(clients.last_mut(), &stop, until)?;
    }
    let called = [
        SYN_LOST,
        SYN_ACK_LOST,
        NO_SYN_ACK,
        NO_SYN,
        ACK_LOST,
        CALLED[0],
        CALLED[1],
        SOURCED,
    ];
    for port in called {
        clients.push(connect(port)?);
    }
    settle(clients.iter_mut(), &stop, until)?;
    for port in called {
        views
            .client
            .wait_for("the client's end", end_of_handshake(port))?;
    }
    for port in [
        SYN_LOST,
        SYN_ACK_LOST,
        NO_SYN_ACK,
        ACK_LOST,
        TRANSLATED,
        DESTINATION,
        SOURCED,
    ] {
        views
            .server
            .wait_for("the server's end", end_of_handshake(port))?;
    }
    // Connects at the end: the clocks are followed.
    for _ in 0..20 {
        let mut client = connect(HEALTHY)?;
        settle([&mut client], &stop, until)?;
        clients.push(client);
    }
    let (ours, theirs) = views.end()?;
    let (lines, _) = joined(&ours, &theirs, &format!("both-{}", family.wire_is_v6()))?;
    check_ends(&lines).map_err(|e| {
        e.context(format!(
            "client:\n{ours}\nserver:\n{theirs}\njoined: {lines:#?}"
        ))
    })?;
    drop(clients);
    server.stop()?;
    Ok(())
}

fn check_ends(lines: &[Value]) -> Result<()> {
    let pairs = by_port(lines);
    let healthy = &pairs[&HEALTHY.into()];
    ensure!(healthy.len() == 40, "{} healthy", healthy.len());
    let summary = lines.last().context("a line")?;
    let began = micros(&serde_json::json!({ "time": summary["client"]["since"] }))?;
    for pair in healthy {
        ensure!(
            pair["verdict"].is_null() && pair["key"] == "syn_seq",
            "{pair:#}"
        );
        let truth = AHEAD_US + (micros(pair)? - began) * PPM / 1_000_000;
        let (offset, error) = (
            pair["clock_offset_us"].as_i64(),
            pair["clock_error_us"].as_i64(),
        );
        let (offset, error) = (offset.context("an offset")?, error.context("an error")?);
        ensure!(
            (offset - truth).abs() <= error,
            "{offset} ± {error}, not {truth}"
        );
    }
    for (port, verdict, toward_server, toward_client) in [
        (SYN_LOST, "lost-toward-server", 2, 0),
        (SYN_ACK_LOST, "lost-toward-client", 0, 1),
        (NO_SYN_ACK, "lost-toward-client", 0, 3),
        (ACK_LOST, "lost-toward-server", 1, 0),
        (TRANSLATED, "lost-toward-server", 1, 0),
        (DESTINATION, "lost-toward-server", 1, 0),
        (SOURCED, "lost-toward-server", 1, 0),
    ] {
        let [pair] = &*pairs[&port.into()] else {
            anyhow::bail!("not one pair at port {port}");
        };
        if pair["verdict"] == "insufficient" && pair["evidence"].to_string().contains("lost") {
            return Err(Undecided(format!("{pair}")).into());
        }
        ensure!(pair["verdict"] == verdict, "port {port}: {pair:#}");
        ensure!(
            pair["lost"]["toward_server"] == toward_server,
            "port {port}: {pair:#}"
        );
        // Repetitions of the server's timer come on top.
        let back = pair["lost"]["toward_client"].as_u64().unwrap_or(0);
        ensure!(
            back == toward_client || toward_client > 0 && back > toward_client,
            "port {port}: {pair:#}"
        );
    }
    // The SYN that never arrived: the server was watching, and its address is known by the others.
    let [pair] = &*pairs[&NO_SYN.into()] else {
        anyhow::bail!("not one pair without a SYN");
    };
    let sent = pair["client"]["retransmits"].as_u64().map(|n| n + 1);
    ensure!(
        pair["verdict"] == "lost-toward-server" && pair["lost"]["toward_server"].as_u64() == sent,
        "{pair:#}"
    );
    Ok(())
}

/// The server's agent began late: it cannot testify about what was before.
pub fn late(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let server = Server::start(vec![lab.listen(HEALTHY, 128)?, lab.listen(NO_SYN, 128)?])?;
    lab.client.set_sysctl("ipv4/tcp_syn_retries", "1")?;
    let client = Agent::watch(&["--netns", &netns_path(&lab.client)])?;
    let mut into_server = FaultInjector::attach(&lab.server)?;
    into_server.set(0, syn(), LossPattern::All, NO_SYN)?;
    let _lost = Client::connect(&lab.client, lab.server_addr(NO_SYN), |_| Ok(()))?;
    client.wait_for("the client's end", end_of_handshake(NO_SYN))?;
    let late = Agent::watch(&["--netns", &netns_path(&lab.server)])?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&lab.client, lab.server_addr(HEALTHY), |_| Ok(()))?;
        settle([&mut client], &stop, until)?;
        clients.push(client);
    }
    let (ours, theirs) = Views {
        client,
        server: late,
    }
    .end()?;
    let (lines, _) = joined(&ours, &theirs, &format!("late-{}", family.wire_is_v6()))?;
    let pairs = by_port(&lines);
    ensure!(pairs[&HEALTHY.into()].len() == 5, "{lines:#?}");
    let [pair] = &*pairs[&NO_SYN.into()] else {
        anyhow::bail!("not one pair without a SYN");
    };
    ensure!(
        pair["verdict"] == "insufficient" && pair["lost"]["toward_server"].is_null(),
        "{pair:#}"
    );
    ensure!(
        pair["evidence"].to_string().contains("its run began"),
        "{pair:#}"
    );
    drop(clients);
    server.stop()?;
    Ok(())
}

/// Each host's own filter drops: that end knows, and explains the other.
pub fn own_filters(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let ports = [HEALTHY, SYN_LOST, NO_SYN_ACK];
    let mut listeners = Vec::new();
    for port in ports {
        listeners.push(lab.listen(port, 128)?);
    }
    let server = Server::start(listeners)?;
    lab.client.set_sysctl("ipv4/tcp_syn_retries", "2")?;
    lab.server.set_sysctl("ipv4/tcp_synack_retries", "1")?;
    let views = Views::of(&lab)?;
    let mut into_server = FaultInjector::attach(&lab.server)?;
    let mut into_client = FaultInjector::attach(&lab.client)?;
    into_server.drop_here(0, syn(), LossPattern::All, SYN_LOST)?;
    into_client.drop_here(0, syn_ack(), LossPattern::All, NO_SYN_ACK)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut clients = Vec::new();
    for port in [HEALTHY, HEALTHY, HEALTHY, SYN_LOST, NO_SYN_ACK] {
        clients.push(Client::connect(&lab.client, lab.server_addr(port), |_| {
            Ok(())
        })?);
    }
    settle(clients.iter_mut(), &stop, until)?;
    for port in [SYN_LOST, NO_SYN_ACK] {
        views
            .client
            .wait_for("the client's end", end_of_handshake(port))?;
    }
    views
        .server
        .wait_for("the server's end", end_of_handshake(NO_SYN_ACK))?;
    let (ours, theirs) = views.end()?;
    let (lines, _) = joined(&ours, &theirs, &format!("own-{}", family.wire_is_v6()))?;
    let pairs = by_port(&lines);
    // Both ends are on this host: each file has the drops of both.
    for port in [SYN_LOST, NO_SYN_ACK] {
        let words = "the client: this host dropped";
        let [pair] = &*pairs[&port.into()] else {
            anyhow::bail!("not one pair at port {port}: {lines:#?}");
        };
        ensure!(pair["verdict"] == "dropped-here", "port {port}: {pair:#}");
        ensure!(
            pair["evidence"].to_string().contains(words),
            "port {port}: {pair:#}"
        );
    }
    let (client, server_file) = (
        Made::of("own-text-c", &ours)?,
        Made::of("own-text-s", &theirs)?,
    );
    let page = join(&[client.path(), server_file.path()])?;
    ensure!(
        page.code == Some(0) && page.out.contains("dropped-here"),
        "{} {}",
        page.out,
        page.err
    );
    drop(clients);
    server.stop()?;
    Ok(())
}
