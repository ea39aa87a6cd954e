//! Two agents at the same time: each sees the same handshakes, and neither affects the other.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
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
