//! Problems over a window: they open, are what `diagnose` names, and close.

use std::{
    io::ErrorKind,
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe_lab::{Client, Lab, PORT, SocketFamily};
use synprobe_tests::{
    agent::Agent as DiagnoseRun,
    binary::{command, ended, netns_path},
    schema,
};

use crate::agent::{Agent, sum};

/// A short window: a problem closes two of them after its last handshake at the latest, and a step more.
const WINDOW: &str = "2s";
/// Processes with one connect each.
const PROCESSES: u64 = 60;

fn verdicts(problems: &Value) -> Vec<&str> {
    let all = problems["problems"].as_array();
    let all = all.map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|p| p["verdict"].as_str()).collect()
}

/// Refused connects: opened, the same id while they go on, closed when they stop, another id when they come
/// again.
pub fn open_and_close() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let agent = Agent::start(&["--window", WINDOW, "--netns", &netns])?;
    let refuse = || {
        let to = lab.server_addr(PORT);
        lab.client.run(|| {
            let refused = TcpStream::connect(to).map_err(|e| e.kind());
            ensure!(refused.err() == Some(ErrorKind::ConnectionRefused));
            Ok(())
        })
    };
    ensure!(agent.until("no problem", |now| Ok(Some(verdicts(now).is_empty())))?);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let until = Instant::now() + Duration::from_secs(5);
        let mut during = Vec::new();
        while Instant::now() < until {
            refuse()?;
            let id = agent.until("the problem", |now| {
                Ok((verdicts(now) == ["refused"]).then(|| now["problems"][0]["id"].clone()))
            })?;
            during.push(id);
            // Nobody reads the lines before the end: of thousands a second some would be lost.
            thread::sleep(Duration::from_millis(20));
        }
        during.dedup();
        ensure!(during.len() == 1, "one problem, and ids {during:?}");
        let scrape = agent.scrape()?;
        let open = sum(
            &scrape,
            "synprobe_problems",
            &["verdict=\"refused\"", "role=\"client\""],
        );
        ensure!(open == 1.0, "{scrape:?}");
        agent.until("its end", |now| Ok(verdicts(now).is_empty().then_some(())))?;
        ids.extend(during);
    }
    ensure!(ids[0] != ids[1], "{ids:?}");
    let ran = agent.stop()?;
    let lines: Vec<Value> = schema::check(ran.out.lines())?;
    let problems: Vec<&Value> = lines
        .iter()
        .filter(|line| line["type"] == "problem")
        .collect();
    for id in &ids {
        let of: Vec<&&Value> = problems.iter().filter(|p| p["id"] == *id).collect();
        let (first, last) = (of.first().context("a line")?, of.last().context("a line")?);
        ensure!(
            first["state"] == "opened" && first["until"].is_null(),
            "{first}"
        );
        ensure!(
            last["state"] == "closed" && last["until"].is_string(),
            "{:?} {:?}",
            of.iter()
                .map(|p| (&p["state"], &p["mono_ns"], &p["confidence"]))
                .collect::<Vec<_>>(),
            lines
                .iter()
                .filter(|l| l["type"] == "lost" || l["type"] == "end")
                .collect::<Vec<_>>()
        );
        ensure!(
            first["since"] == last["since"] && last["since"].as_str() < last["until"].as_str(),
            "{first} {last}"
        );
        let between = &of[1..of.len() - 1];
        ensure!(
            between.iter().all(|p| p["state"] == "updated"),
            "{between:?}"
        );
        ensure!(between.len() <= 12, "{} updates in 5 s", between.len());
    }
    Ok(())
}

/// Processes that a loop starts, each for one refused connect: one problem in `serve` and in `diagnose`, which
/// says how many processes they were.
pub fn of_many_processes() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let agent = Agent::start(&["--netns", &netns, "--format", "none"])?;
    let diagnose = DiagnoseRun::of(command(&[
        "diagnose",
        "--format",
        "json",
        "--duration",
        "60s",
        "--netns",
        &netns,
    ])?)?;
    let to = lab.server_addr(PORT);
    // Each subshell is a process of its own, with the same command.
    let loop_of = format!(
        "for n in {{1..{PROCESSES}}}; do (exec 3<>/dev/tcp/{}/{}) 2>/dev/null && exit 1; done; exit 0",
        to.ip(),
        to.port()
    );
    let refused = lab.client.run(|| {
        let mut bash = Command::new("bash");
        Ok(bash.args(["-c", &loop_of]).status()?.success())
    })?;
    ensure!(refused, "bash did not run, or was accepted");
    let open = agent.until("the problem of all of them", |now| {
        let all = |p: &Value| p["handshakes"] == PROCESSES;
        let found = now["problems"].as_array().context("problems")?;
        Ok(found.iter().any(all).then(|| found.clone()))
    })?;
    ensure!(open.len() == 1, "{open:?}");
    agent.stop()?;
    let lines = diagnose.end()?.lines;
    let named: Vec<&Value> = lines.iter().filter(|l| l["type"] == "problem").collect();
    ensure!(named.len() == 1, "{named:?}");
    let fact = format!("the connects were made by {PROCESSES} processes, such as pid ");
    for p in [&open[0], named[0]] {
        ensure!(
            p["verdict"] == "refused" && p["comm"] == "bash" && p["pid"].is_null(),
            "{p}"
        );
        let evidence = p["evidence"].as_array().context("evidence")?;
        let says = |e: &&Value| e["fact"].as_str().is_some_and(|f| f.starts_with(&fact));
        ensure!(evidence.iter().filter(says).count() == 1, "{p}");
    }
    Ok(())
}

/// A listener whose application does not accept: the problem is the one that `diagnose` names, and the metrics
/// show the queue.
pub fn as_diagnose_names_them() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.server);
    let agent = Agent::start(&["--window", "20s", "--netns", &netns, "--format", "none"])?;
    let diagnose = command(&[
        "diagnose",
        "--format",
        "json",
        "--duration",
        "6s",
        "--netns",
        &netns,
    ])?
    .spawn()?;
    // Not before it watches: the agent has started long ago, and this one takes less than a second.
    let _listener = lab.listen(PORT, 2)?;
    let to = |_| Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()));
    let _clients: Vec<Client> = (0..12).map(to).collect::<Result<_>>()?;
    let found = agent.until("the full queue", |now| {
        let full = verdicts(now).contains(&"accept-queue-full");
        Ok(full.then(|| now["problems"][0].clone()))
    })?;
    let ran = ended(diagnose)?;
    let lines: Vec<Value> = schema::check(ran.out.lines())?;
    let named = lines.iter().find(|line| line["type"] == "problem");
    let named = named.with_context(|| format!("diagnose names nothing: {ran:?}"))?;
    for field in ["verdict", "role", "netns", "local_port", "pid", "comm"] {
        ensure!(named[field] == found[field], "{field}: {named} {found}");
    }
    ensure!(
        named["state"] == "opened" && named["until"].is_null(),
        "{named}"
    );
    let scrape = agent.scrape()?;
    let port = format!("port=\"{PORT}\"");
    let gauge = |name: &str| sum(&scrape, name, &[&port]);
    ensure!(gauge("synprobe_listener_accept_queue") == 3.0, "{scrape:?}");
    ensure!(
        gauge("synprobe_listener_accept_queue_limit") == 2.0,
        "{scrape:?}"
    );
    ensure!(gauge("synprobe_listener_drops_total") >= 1.0, "{scrape:?}");
    ensure!(
        sum(&scrape, "synprobe_listen_overflows_total", &[]) >= 1.0,
        "{scrape:?}"
    );
    ensure!(
        sum(&scrape, "synprobe_tcp_sockets", &["state=\"listen\""]) == 1.0,
        "{scrape:?}"
    );
    agent.stop()?;
    Ok(())
}
