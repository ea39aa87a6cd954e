//! Several agents at the same time: each sees the same handshakes, and none affects the others.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe_lab::{Client, FaultInjector, Lab, LossPattern, PORT, SocketFamily, syn_ack};
use synprobe_tests::{
    agent::Agent,
    binary::{command, ended},
    harness::Undecided,
    schema,
};

/// What both must say alike.
fn gist(lines: &[Value], namespaces: &[u64]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let of_the_lab = |line: &&Value| {
        let netns = line["netns"].as_u64();
        netns.is_some_and(|netns| namespaces.contains(&netns))
    };
    for line in lines.iter().filter(of_the_lab) {
        let fields: &[&str] = match line["type"].as_str() {
            Some("handshake") => &["role", "peer_port", "local_port", "outcome", "retransmits"],
            Some("retransmit") => &[
                "role",
                "peer_port",
                "local_port",
                "kind",
                "trigger",
                "attempt",
            ],
            _ => continue,
        };
        let told: Vec<String> = fields.iter().map(|f| line[f].to_string()).collect();
        *all.entry(told.join(" ")).or_default() += 1;
    }
    all
}

/// The other one makes its namespaces when this one has given its privileges up: it enters them, or it
/// would not see how half-opens end there.
pub fn undisturbed() -> Result<()> {
    let agent = Agent::watch(&[])?;
    let lab = ended(command(&["lab", "peer-silent", "--format", "json"])?.spawn()?)?;
    let lines = schema::check(lab.out.lines())?;
    let namespaces: Vec<u64> = lines
        .iter()
        .filter(|l| l["type"] == "handshake")
        .filter_map(|l| l["netns"].as_u64())
        .collect();
    let ours = lines.last().context("a line")?;
    if ours["lost"] != 0 {
        return Err(Undecided(format!("the lab's own: {ours}")).into());
    }
    ensure!(lab.code == Some(0), "{}", lab.err);
    // What is over there is over here, at the next look.
    let due = gist(&lines, &namespaces);
    let expired = due.keys().filter(|told| told.contains("expired")).count();
    ensure!(expired == 5, "five half-opens expire: {due:#?}");
    let ended = agent.end()?;
    let told = gist(&ended.lines, &namespaces);
    if told != due {
        // It watches the whole host, and something of that may have passed it by; or the last of them
        // ended between two looks.
        ended.complete()?;
        let open = told.keys().any(|told| told.contains("\"open\""));
        ensure!(open, "{told:#?} where {due:#?} is due");
        return Err(Undecided("not over yet at its last look".into()).into());
    }
    Ok(())
}

/// Retransmissions of a run in these namespaces: what was retransmitted when, and with which number.
fn retransmits(lines: &[Value], namespaces: [u32; 2]) -> Vec<(u64, String)> {
    let fields = [
        "role",
        "peer_port",
        "local_port",
        "kind",
        "trigger",
        "attempt",
    ];
    lines
        .iter()
        .filter(|line| line["type"] == "retransmit" && is_of(line, namespaces))
        .filter_map(|line| {
            let facts: Vec<String> = fields.iter().map(|f| line[f].to_string()).collect();
            Some((line["mono_ns"].as_u64()?, facts.join(" ")))
        })
        .collect()
}

fn is_of(line: &Value, namespaces: [u32; 2]) -> bool {
    let netns = line["netns"]
        .as_u64()
        .and_then(|netns| u32::try_from(netns).ok());
    netns.is_some_and(|netns| namespaces.contains(&netns))
}

/// Verdicts of a run in these namespaces, by role and ports.
fn verdicts(lines: &[Value], namespaces: [u32; 2]) -> BTreeMap<String, String> {
    lines
        .iter()
        .filter(|line| line["type"] == "handshake" && is_of(line, namespaces))
        .map(|line| {
            let fields = ["role", "peer_port", "local_port"].map(|f| line[f].to_string());
            (fields.join(" "), line["verdict"].to_string())
        })
        .collect()
}

/// Three agents over the same packets, two of them begun in the middle: attempt numbers and causes agree.
pub fn three_over_the_same_packets() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let namespaces = [lab.client.inode(), lab.server.inode()];
    let _listener = lab.listen(PORT, 128)?;
    let mut fault = FaultInjector::attach(&lab.client)?;
    fault.set(0, syn_ack(), LossPattern::All, PORT)?;
    let first = Agent::watch(&[])?;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connect(&lab.client, lab.server_addr(PORT), |_| {
            Ok(())
        })?);
    }
    let again = |line: &Value, attempt: u64| {
        let is_late = line["attempt"].as_u64().is_some_and(|n| n >= attempt);
        line["type"] == "retransmit" && is_of(line, namespaces) && is_late
    };
    first.wait_for("a first repetition", |line| again(line, 1))?;
    let others = [Agent::watch(&[])?, Agent::watch(&["--quiet"])?];
    for agent in others.iter().chain([&first]) {
        agent.wait_for("a third repetition", |line| again(line, 3))?;
    }
    let first = first.end()?.complete()?;
    let all = retransmits(&first.lines, namespaces);
    for other in others {
        let other = other.end()?.complete()?;
        let began = other
            .lines
            .first()
            .and_then(|start| start["mono_ns"].as_u64());
        let began = began.context("a start line")?;
        let seen = retransmits(&other.lines, namespaces);
        ensure!(!seen.is_empty(), "{seen:?}");
        // The same packet: each program reads the clock within the same call of the tracepoint.
        let is_same =
            |a: &(u64, String), b: &(u64, String)| a.1 == b.1 && a.0.abs_diff(b.0) < 1_000_000;
        // The first agent ends first.
        let last = all.iter().map(|(at_ns, _)| *at_ns).max().unwrap_or(0);
        for one in seen.iter().filter(|(at_ns, _)| *at_ns <= last) {
            ensure!(
                all.iter().any(|a| is_same(a, one)),
                "{one:?} is not in {all:#?}"
            );
        }
        let until = seen.iter().map(|(at_ns, _)| *at_ns).max().unwrap_or(0);
        for due in all
            .iter()
            .filter(|(at_ns, _)| *at_ns > began && *at_ns <= until)
        {
            ensure!(
                seen.iter().any(|s| is_same(due, s)),
                "{due:?} is not in {seen:#?}"
            );
        }
        let causes = verdicts(&first.lines, namespaces);
        ensure!(
            causes.len() >= 6,
            "three connections, both ends: {causes:?}"
        );
        for (whose, cause) in verdicts(&other.lines, namespaces) {
            let same = causes.get(&whose) == Some(&cause);
            ensure!(
                same || cause == "\"insufficient\"",
                "{whose}: {cause}, not {causes:?}"
            );
        }
    }
    Ok(())
}
