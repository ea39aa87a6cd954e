//! Quiet mode, scenario by scenario. Completed handshakes are counted exactly; every other handshake has a
//! line. Compared with the kernel's counters and with the ground truth.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe::{
    filter::Detail, model::Outcome, pipeline::Setup, util::table_bounds::TableBounds, verbs::lab,
    verdict::Mode, view::JsonView,
};
use synprobe_lab::{Lab, LabRun, Scenario, SocketFamily};
use synprobe_tests::{
    harness::{self, Case, Undecided},
    schema,
};

const SLOW: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut scenarios: Vec<_> = synprobe_lab::all()
        .iter()
        .filter(|s| !s.is_incident())
        .collect();
    // The longest first: the others run beside it.
    scenarios.sort_by_key(|s| std::cmp::Reverse(s.nominal_seconds()));
    let mut cases = Vec::new();
    for scenario in scenarios {
        for family in [SocketFamily::V4, SocketFamily::V6]
            .into_iter()
            .filter(|f| scenario.supports(*f))
        {
            cases.push(Case::for_family(scenario.name(), family, |family| {
                run(*scenario, family)
            }));
        }
    }
    harness::main_with(cases, 12)
}

fn run(scenario: &'static dyn Scenario, family: SocketFamily) -> Result<()> {
    let setup = Setup {
        ring_bytes: 8 << 20,
        tables: TableBounds::default(),
        log_level: 0,
        detail: Detail::Quiet { slow: SLOW },
        mode: Mode::AtOnce,
        requested_mode: synprobe::probe::half_open_source::RequestedMode::default(),
    };
    let never = Box::pin(std::future::pending());
    let host = harness::host()?;
    let view = JsonView::new(Vec::new());
    let (run, view) = lab::watched(host, scenario, Lab::new(family)?, &setup, view, never)?;
    let text = String::from_utf8(view.into_inner()).context("the lines are UTF-8")?;
    let lines = schema::check(text.lines())?;
    if run.end.lost > 0 {
        let lost: Vec<_> = of(&lines, "lost").map(|line| &line["reason"]).collect();
        return Err(Undecided(format!("{} records lost: {lost:?}", run.end.lost)).into());
    }
    counted_exactly(&lines, &run)
        .and_then(|()| trouble_has_its_line(&lines, &run))
        .and_then(|()| nothing_else_has(&lines))
        .map_err(|error| harness::after_lines(&text, error))
}

fn of<'l>(lines: &'l [Value], kind: &'static str) -> impl Iterator<Item = &'l Value> {
    lines.iter().filter(move |line| line["type"] == kind)
}

fn sum<'l>(lines: impl Iterator<Item = &'l Value>, field: &str) -> u64 {
    lines.filter_map(|line| line[field].as_u64()).sum()
}

/// The histograms' sums are the kernel's own counts of opens that were not in vain.
fn counted_exactly(lines: &[Value], run: &LabRun) -> Result<()> {
    let completed = |role: &str| {
        sum(
            of(lines, "completed").filter(|c| c["role"] == role),
            "handshakes",
        )
    };
    let [client, server] = [&run.counters.client, &run.counters.server];
    let in_vain = of(lines, "handshake").filter(|h| {
        h["role"] == "client" && h["outcome"] != "established" && h["error"] != "EADDRNOTAVAIL"
    });
    let in_vain = in_vain.count() as u64;
    let (opened, accepted) = (completed("client"), completed("server"));
    ensure!(
        opened + in_vain == client.get("ActiveOpens"),
        "{opened} completed and {in_vain} did not: ActiveOpens {}",
        client.get("ActiveOpens")
    );
    ensure!(
        accepted == server.get("PassiveOpens"),
        "{accepted} accepted: PassiveOpens {}",
        server.get("PassiveOpens")
    );
    for line in of(lines, "completed") {
        let buckets = line["buckets"].as_array().context("buckets")?;
        let timed = sum(buckets.iter(), "handshakes");
        ensure!(
            line["handshakes"].as_u64() == Some(timed + line["untimed"].as_u64().unwrap_or(0)),
            "the buckets do not add up: {line}"
        );
    }
    let end = of(lines, "end").next().context("an end line")?;
    let told = of(lines, "handshake").filter(|h| h["outcome"] == "established");
    ensure!(
        end["counted"].as_u64() == Some(opened + accepted - told.count() as u64),
        "counted is what completed without a line: {end}"
    );
    let again = of(lines, "retransmit").filter(|r| r["failed"] == false);
    let again = again.filter(|r| r["kind"] == "syn" || r["kind"] == "synack");
    let sent = |c: &synprobe_lab::TcpCounters| c.get("TCPSynRetrans") - c.get("TCPRetransFail");
    let (again, sent) = (again.count() as u64, sent(client) + sent(server));
    ensure!(again == sent, "{again} sent again: TCPSynRetrans {sent}");
    Ok(())
}

/// What came to nothing: end by end, as the applications know it.
fn trouble_has_its_line(lines: &[Value], run: &LabRun) -> Result<()> {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let in_trouble = of(lines, "handshake").filter(|h| h["outcome"] != "established");
    for h in in_trouble {
        let key = format!(
            "{} {}:{} {}:{} {}",
            h["role"],
            h["local_addr"],
            h["local_port"],
            h["peer_addr"],
            h["peer_port"],
            h["outcome"]
        );
        *seen.entry(key).or_default() += 1;
    }
    let made = run.truth.handshakes.iter();
    for made in made.filter(|made| made.outcome != Outcome::Established) {
        let port = |port: Option<u16>| port.map_or("null".to_owned(), |p| p.to_string());
        let key = format!(
            "\"{}\" \"{}\":{} \"{}\":{} \"{}\"",
            made.role.name(),
            made.local_addr,
            port(made.local_port),
            made.peer_addr,
            port(made.peer_port),
            made.outcome.name()
        );
        let count = seen.remove(&key).unwrap_or(0);
        let wanted = match made.outcome {
            // Half-opens whose SYN-ACK cannot be sent are gone within the second, without an event:
            // younger than what the quiet mode takes up.
            Outcome::Dropped => 0..=*made.count.end(),
            _ => made.count.clone(),
        };
        ensure!(
            wanted.contains(&count),
            "made {wanted:?} of {key}, seen {count}; {seen:?}"
        );
    }
    ensure!(seen.is_empty(), "seen, but not made: {seen:?}");
    Ok(())
}

/// One that completed has a line only if it deserves it, or if its time is not known for sure.
fn nothing_else_has(lines: &[Value]) -> Result<()> {
    for h in of(lines, "handshake").filter(|h| h["outcome"] == "established") {
        let dwell = h["dwell_us"].as_u64();
        let worth_it = h["retransmits"].as_u64() > Some(0)
            || dwell.is_none_or(|us| us >= SLOW.as_micros() as u64)
            || h["role"] == "server" && dwell.is_some_and(|us| us.is_multiple_of(1000));
        ensure!(worth_it, "it went well: {h}");
    }
    Ok(())
}
