//! A narrower replay: the handshakes that were asked for, as the whole replay has them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe::{
    filter::{Selection, parse_cidr},
    model::Role,
    verdict::Mode,
};
use synprobe_tests::recorded::replay;

/// What of a handshake no narrower selection changes.
const KEPT: [&str; 10] = [
    "role",
    "local_addr",
    "local_port",
    "peer_addr",
    "peer_port",
    "netns",
    "outcome",
    "dwell_us",
    "retransmits",
    "error",
];

/// Holds the narrower replays of a recording against the lines of the run.
pub fn holds(file: &Path, json: &str) -> Result<()> {
    let lines: Vec<Value> = json
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let handshakes = || lines.iter().filter(|line| line["type"] == "handshake");
    let first = handshakes().next().context("a handshake")?;
    let text = |field: &str| first[field].as_str().unwrap_or_default().to_owned();
    let server_port = match text("role") == "client" {
        true => &first["peer_port"],
        false => &first["local_port"],
    };
    let ports = server_port.to_string();
    let port = server_port.clone();
    let by_port = Selection {
        ports: ports.parse()?,
        ..Selection::default()
    };
    check(file, "port", by_port, None, handshakes(), |h| {
        h["local_port"] == port || h["peer_port"] == port
    })?;
    for (role, name) in [(Role::Client, "client"), (Role::Server, "server")] {
        let by_role = Selection {
            role: Some(role),
            ..Selection::default()
        };
        check(file, name, by_role, None, handshakes(), |h| {
            h["role"] == name
        })?;
    }
    let by_peer = Selection {
        peers: vec![parse_cidr(&text("peer_addr"))?],
        ..Selection::default()
    };
    check(file, "peer", by_peer, None, handshakes(), |h| {
        h["peer_addr"] == first["peer_addr"]
    })?;
    let netns = first["netns"].to_string();
    check(
        file,
        "netns",
        Selection::default(),
        Some(netns),
        handshakes(),
        |h| h["netns"] == first["netns"],
    )
}

fn check<'l>(
    file: &Path,
    what: &str,
    selection: Selection,
    netns: Option<String>,
    all: impl Iterator<Item = &'l Value>,
    is_wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    let (shown, _) = replay(file, Mode::AtOnce, selection, netns)?;
    let mut narrowed = Vec::new();
    for line in shown.json.lines() {
        let line: Value = serde_json::from_str(line)?;
        if line["type"] == "handshake" {
            narrowed.push(kept(&line));
        }
    }
    let mut wanted: Vec<String> = all.filter(|h| is_wanted(h)).map(kept).collect();
    narrowed.sort_unstable();
    wanted.sort_unstable();
    let more: Vec<_> = narrowed.iter().filter(|h| !wanted.contains(h)).collect();
    let less: Vec<_> = wanted.iter().filter(|h| !narrowed.contains(h)).collect();
    ensure!(
        narrowed == wanted,
        "by {what}: {} handshakes, wanted {}; only narrower: {:#?}; only whole: {:#?}",
        narrowed.len(),
        wanted.len(),
        &more[..more.len().min(3)],
        &less[..less.len().min(3)]
    );
    Ok(())
}

fn kept(h: &Value) -> String {
    KEPT.map(|field| format!("{field} {}", h[field])).join(", ")
}
