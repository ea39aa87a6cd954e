//! A restart: the next agent finds what is under way.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe_lab::{Client, Lab, PORT, SocketFamily};
use synprobe_tests::{agent::until, binary::netns_path, schema};

use crate::agent::{Agent, sum};

/// Connects that a full accept queue keeps in SYN_SENT, before and after a restart. Their lines say that they began
/// before the run.
pub fn finds_what_is_under_way() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let arguments = ["--netns", &netns_path(&lab.client)];
    let first = Agent::start(&arguments)?;
    let listener = lab.listen(PORT, 0)?;
    let to = |_| Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()));
    let _clients: Vec<Client> = (0..5).map(to).collect::<Result<_>>()?;
    // The queue holds one; another may be between SYN and ACK.
    let stuck = |agent: &Agent| {
        let scrape = agent.scrape()?;
        let port = format!("port=\"{PORT}\"");
        anyhow::Ok(sum(&scrape, "synprobe_syn_sent", &[&port]))
    };
    until("connects that are stuck", || Ok(stuck(&first)? >= 3.0))?;
    let before = stuck(&first)?;
    ensure!(first.stop()?.code == Some(0));
    let second = Agent::start(&arguments)?;
    until("the same connects", || Ok(stuck(&second)? >= before))?;
    drop(listener);
    let ran = second.stop()?;
    let lines: Vec<Value> = schema::check(ran.out.lines())?;
    let found: Vec<&Value> = lines
        .iter()
        .filter(|line| line["type"] == "handshake" && line["role"] == "client")
        .collect();
    ensure!(found.len() as f64 >= before, "{found:?}");
    for line in found {
        let source = line["dwell_source"].as_str().context("a source")?;
        ensure!(source == "sock_diag", "{line}");
    }
    Ok(())
}
