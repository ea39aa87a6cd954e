//! OTLP against a collector of these tests: what arrives, and what a collector that is down, slow or refuses
//! costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::LogRecord,
    metrics::v1::{metric::Data, number_data_point::Value as Number},
};
use serde_json::Value;
use synprobe_lab::{Lab, PORT, Server, SocketFamily};
use synprobe_tests::{
    binary::{command, ended, netns_path, run, status_kib},
    collector::{Answer, Collector, TAKEN, records_of},
    harness::Undecided,
    schema,
};

use crate::agent::{Agent, sum};

const LOGS: &str = "/v1/logs";
const METRICS: &str = "/v1/metrics";
const USAGE: Option<i32> = Some(2);

fn agent(lab: &Lab, url: &str, more: &[&str]) -> Result<Agent> {
    let netns = netns_path(&lab.client);
    let arguments = ["--netns", &netns, "--otlp", url, "--otlp-interval", "1s"];
    Agent::start(&[&arguments[..], more].concat())
}

/// Connects to a port where nobody listens.
fn refused(lab: &Lab, times: usize) -> Result<()> {
    let to = lab.server_addr(PORT + 2);
    lab.client.run(|| {
        for _ in 0..times {
            let refused = TcpStream::connect(to).map_err(|e| e.kind());
            ensure!(refused.err() == Some(ErrorKind::ConnectionRefused));
        }
        Ok(())
    })
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    let found = attributes.iter().find(|a| a.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

/// An attribute as JSON has it.
fn json(value: &AnyValue) -> Value {
    match &value.value {
        None => Value::Null,
        Some(Any::StringValue(text)) => text.as_str().into(),
        Some(Any::BoolValue(value)) => (*value).into(),
        Some(Any::IntValue(number)) => (*number).into(),
        Some(Any::DoubleValue(number)) => (*number).into(),
        Some(Any::ArrayValue(list)) => list.values.iter().map(json).collect(),
        Some(Any::KvlistValue(list)) => Value::Object(fields(&list.values)),
        Some(other) => format!("{other:?}").into(),
    }
}

fn fields(attributes: &[KeyValue]) -> serde_json::Map<String, Value> {
    let all = attributes.iter();
    all.map(|a| (a.key.clone(), a.value.as_ref().map_or(Value::Null, json)))
        .collect()
}

/// Without what is null, at any depth.
fn without_null(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_null(value)))
                .collect(),
        ),
        Value::Array(values) => values.into_iter().map(without_null).collect(),
        other => other,
    }
}

/// The sum of the data points of a metric whose attributes have these values.
fn total(request: &ExportMetricsServiceRequest, name: &str, wanted: &[(&str, Option<Any>)]) -> i64 {
    let metrics = request
        .resource_metrics
        .iter()
        .flat_map(|of| &of.scope_metrics);
    let metrics = metrics.flat_map(|scope| &scope.metrics);
    let mut total = 0;
    for metric in metrics.filter(|metric| metric.name == name) {
        let points = match &metric.data {
            Some(Data::Sum(sum)) => &sum.data_points,
            Some(Data::Gauge(gauge)) => &gauge.data_points,
            Some(Data::Histogram(histogram)) => {
                let all = histogram.data_points.iter();
                total += all.map(|point| point.count as i64).sum::<i64>();
                continue;
            }
            _ => continue,
        };
        for point in points {
            let fits = wanted
                .iter()
                .all(|(key, value)| attribute(&point.attributes, key) == value.as_ref());
            if let (true, Some(Number::AsInt(n))) = (fits, point.value) {
                total += n;
            }
        }
    }
    total
}

/// The lines that are sent as log records.
fn exported(out: &str) -> Result<Vec<Value>> {
    let lines: Vec<Value> = schema::check(out.lines())?;
    let sent = ["handshake", "problem", "lost"];
    let of_kind = |line: &Value| sent.iter().any(|kind| line["type"] == *kind);
    Ok(lines.into_iter().filter(of_kind).collect())
}

/// Metrics are those of /metrics and of the kernel; each line in trouble is a log record with all its fields.
pub fn what_arrives() -> Result<()> {
    const ACCEPTED: usize = 200;
    const REFUSED: usize = 40;
    let lab = Lab::new(SocketFamily::V4)?;
    let collector = Collector::start(|_, _| Some(TAKEN))?;
    let agent = agent(&lab, &collector.url(), &[])?;
    let running = Server::start(vec![lab.listen(PORT, 64)?])?;
    let before = lab.counters()?;
    let to = lab.server_addr(PORT);
    lab.client.run(|| {
        for _ in 0..ACCEPTED {
            drop(TcpStream::connect(to)?);
        }
        Ok(())
    })?;
    refused(&lab, REFUSED)?;
    let counted = lab.counters()?.since(&before).client;
    let (opens, failures) = (counted.get("ActiveOpens"), counted.get("AttemptFails"));
    ensure!(opens == (ACCEPTED + REFUSED) as u64 && failures == REFUSED as u64);
    let moment = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let scrape = agent.scrape_since(moment)?;
    let ended = |outcome: &str| sum(&scrape, "synprobe_handshakes_total", &[outcome]) as u64;
    let seen = (ended("established"), ended("refused"));
    if seen != (opens - failures, failures) {
        // The agent's own counting has tests of its own (sums).
        return Err(Undecided(format!("{seen:?} of {counted:?}: hidden from the agent")).into());
    }
    // While the run goes on: not only what the end sends.
    collector.until("the records", |exports| {
        let records = exports.iter().filter(|e| e.path == LOGS && e.taken);
        let records: Vec<_> = records
            .filter_map(|e| records_of(e).ok())
            .flatten()
            .collect();
        let of = |kind: &str| records.iter().filter(|r| r.event_name == kind).count();
        (of("handshake") >= REFUSED && of("problem") > 0).then_some(())
    })?;
    ensure!(sum(&scrape, "synprobe_lost_records_total", &["kind=\"otlp\""]) == 0.0);
    let ran = agent.stop()?;
    running.stop()?;
    ensure!(ran.code == Some(0) && ran.err.is_empty(), "{ran:?}");

    let metrics = collector.metrics()?;
    ensure!(
        metrics.len() >= 2,
        "{} requests with metrics",
        metrics.len()
    );
    let last = metrics.last().context("metrics")?;
    let of_role = |role: &str, error: Option<&str>| {
        let error = ("error.type", error.map(text));
        let role = ("network.tcp.handshake.role", Some(text(role)));
        total(last, "system.network.tcp.connections", &[role, error]) as u64
    };
    let established = of_role("client", None);
    ensure!(
        (established, of_role("client", Some("refused"))) == (opens - failures, failures),
        "{established} established: {counted:?}"
    );
    let of_scrape = |name: &str| sum(&scrape, name, &[]) as i64;
    let pairs = [
        (
            "system.network.tcp.connections",
            "synprobe_handshakes_total",
        ),
        (
            "system.network.tcp.handshake.duration",
            "synprobe_handshake_duration_seconds_count",
        ),
        (
            "synprobe.handshake.verdicts",
            "synprobe_handshake_verdicts_total",
        ),
        (
            "system.network.tcp.retransmits",
            "synprobe_retransmits_total",
        ),
    ];
    for (instrument, name) in pairs {
        let (sent, scraped) = (total(last, instrument, &[]), of_scrape(name));
        ensure!(sent == scraped, "{instrument}: {sent}, {name}: {scraped}");
    }
    // The window is longer than the run: none has closed.
    let lines = exported(&ran.out)?;
    let problems = lines.iter().filter(|line| line["type"] == "problem");
    let opened: BTreeSet<&str> = problems.filter_map(|line| line["id"].as_str()).collect();
    let open = total(last, "synprobe.problems", &[]);
    ensure!(
        !opened.is_empty() && open == opened.len() as i64,
        "{open}: {opened:?}"
    );
    let resource = last.resource_metrics[0]
        .resource
        .as_ref()
        .context("a resource")?;
    for (key, path) in [
        ("host.name", "/proc/sys/kernel/hostname"),
        ("host.id", "/etc/machine-id"),
    ] {
        let wanted = fs::read_to_string(path).ok().map(|id| text(id.trim()));
        ensure!(
            attribute(&resource.attributes, key) == wanted.as_ref(),
            "{resource:?}"
        );
    }
    ensure!(attribute(&resource.attributes, "service.name") == Some(&text("synprobe")));
    same_records(&collector.records()?, &lines)
}

/// Each line is one record, and each record one line.
fn same_records(records: &[LogRecord], lines: &[Value]) -> Result<()> {
    ensure!(
        records.len() == lines.len(),
        "{} records for {} lines",
        records.len(),
        lines.len()
    );
    for (record, line) in records.iter().zip(lines) {
        let mut sent = fields(&record.attributes);
        let event = sent.remove("event.name");
        ensure!(event.as_ref() == Some(&line["type"]), "{record:?}");
        ensure!(line["type"] == record.event_name.as_str(), "{record:?}");
        let wanted = without_null(line.clone());
        ensure!(Value::Object(sent.clone()) == wanted, "{sent:?}\n{wanted}");
        let micros = record.time_unix_nano / 1000 % 1_000_000;
        let time = line["time"].as_str().unwrap_or_default();
        ensure!(
            time.ends_with(&format!(".{micros:06}Z")),
            "{time} {record:?}"
        );
    }
    Ok(())
}

/// A collector that says 503 for a while: what it did not take is sent again, once, and not before it wants.
pub fn sent_again() -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(2);
    let lab = Lab::new(SocketFamily::V4)?;
    let collector = Collector::start(|_, before| {
        Some(match before {
            0 => Answer {
                status: "503 Service Unavailable",
                headers: "Retry-After: 2\r\n",
            },
            1 => Answer {
                status: "429 Too Many Requests",
                headers: "Connection: close\r\n",
            },
            _ => TAKEN,
        })
    })?;
    let agent = agent(&lab, &collector.url(), &[])?;
    refused(&lab, 20)?;
    collector.until("the third request", |exports| {
        exports
            .iter()
            .any(|e| e.path == LOGS && e.taken)
            .then_some(())
    })?;
    let scrape = agent.scrape()?;
    let ran = agent.stop()?;
    ensure!(ran.code == Some(0), "{ran:?}");
    for path in [LOGS, METRICS] {
        let all: Vec<_> = collector
            .exports()
            .into_iter()
            .filter(|e| e.path == path)
            .collect();
        ensure!(
            all[0].body == all[1].body && all[1].body == all[2].body,
            "{path}"
        );
        let pauses = [all[1].when - all[0].when, all[2].when - all[1].when];
        ensure!(
            pauses[0] >= PAUSE && pauses[1] >= Duration::from_millis(200),
            "{path}: {pauses:?}"
        );
    }
    same_records(&collector.records()?, &exported(&ran.out)?)?;
    ensure!(
        sum(&scrape, "synprobe_lost_records_total", &["otlp"]) == 0.0,
        "{scrape:?}"
    );
    // One line for each of the two kinds, and none for the second failure.
    let failed = ran.err.lines().filter(|line| line.contains("503")).count();
    ensure!(failed == 2 && !ran.err.contains("429"), "{ran:?}");
    Ok(())
}

/// What a collector refuses is counted, and one line says so.
pub fn counted_where_refused() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let collector = Collector::start(|path, _| {
        Some(match path {
            LOGS => Answer {
                status: "400 Bad Request",
                headers: "",
            },
            _ => TAKEN,
        })
    })?;
    let agent = agent(&lab, &collector.url(), &[])?;
    for round in 1..=3 {
        refused(&lab, 10)?;
        collector.until("a refused batch", |exports| {
            (exports.iter().filter(|e| e.path == LOGS).count() >= round).then_some(())
        })?;
    }
    let ran = agent.stop()?;
    let lines = exported(&ran.out)?.len() as i64;
    let sent: usize = collector
        .exports()
        .iter()
        .filter(|e| e.path == LOGS)
        .map(|e| records_of(e).map_or(0, |records| records.len()))
        .sum();
    ensure!(sent as i64 == lines, "{sent} records for {lines} lines");
    // The last export of the metrics may be under way when the last records are refused.
    let metrics = collector.metrics()?;
    let lost = |request: &ExportMetricsServiceRequest, kind: &str| {
        let kind = ("synprobe.lost.kind", Some(text(kind)));
        total(request, "synprobe.lost_records", &[kind])
    };
    let last = metrics.last().context("metrics")?;
    ensure!(lost(last, "otlp") >= 30, "{}", lost(last, "otlp"));
    ensure!(lost(last, "otlp") <= lines && lost(last, "otlp_points") == 0);
    let refusals = ran
        .err
        .lines()
        .filter(|line| line.contains("HTTP 400"))
        .count();
    ensure!(ran.code == Some(0) && refusals == 1, "{ran:?}");
    Ok(())
}

/// Nobody listens: memory is bounded, everything is counted, and the run is what it would be.
pub fn bounded_where_down() -> Result<()> {
    const REFUSED: usize = 14_000;
    let lab = Lab::new(SocketFamily::V4)?;
    let free = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", free.local_addr()?);
    drop(free);
    // They end within half a second: the ring has room for all.
    let agent = agent(&lab, &url, &["--format", "none", "--ring-size", "8M"])?;
    // What the run itself takes.
    refused(&lab, 2000)?;
    let before = status_kib(agent.pid(), "VmRSS")?;
    refused(&lab, REFUSED - 2000)?;
    let (ended, lost) = until_some_are_lost(&agent, REFUSED)?;
    let after = status_kib(agent.pid(), "VmRSS")?;
    ensure!(after < before + (48 << 10), "from {before} to {after} KiB");
    let stopped = Instant::now();
    let ran = agent.stop()?;
    ensure!(ran.code == Some(0), "{ran:?}");
    ensure!(
        stopped.elapsed() < Duration::from_secs(10),
        "{:?}",
        stopped.elapsed()
    );
    let end = ran.err.lines().last().unwrap_or_default();
    let left = end
        .split("at the end: ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let left: f64 = left.with_context(|| ran.err.clone())?.parse()?;
    // The handshakes, and a few problems, of which some come after the scrape.
    let all = lost + left - ended;
    ensure!((-20.0..=50.0).contains(&all), "{lost} + {left}");
    let failing = ran
        .err
        .lines()
        .filter(|line| line.contains("refused"))
        .count();
    ensure!(failing <= 4, "one line for each change: {}", ran.err);
    Ok(())
}

/// Waits until the handshakes have ended, and those beyond the queue's bound are lost: how many of both. The host
/// may have hidden some from the agent.
fn until_some_are_lost(agent: &Agent, handshakes: usize) -> Result<(f64, f64)> {
    let until = Instant::now() + Duration::from_secs(60);
    let mut before = (0.0, 0.0);
    loop {
        let scrape = agent.scrape()?;
        let ended = sum(&scrape, "synprobe_handshakes_total", &["refused"]);
        let lost = sum(&scrape, "synprobe_lost_records_total", &["kind=\"otlp\""]);
        let now = (ended, lost);
        if ended > 0.9 * handshakes as f64 && lost > 0.0 && now == before {
            return Ok(now);
        }
        if Instant::now() > until {
            return Err(Undecided(format!("{ended} ended, {lost} lost")).into());
        }
        before = now;
        // A status is used again for a second.
        std::thread::sleep(Duration::from_millis(1500));
    }
}

/// A collector that takes the connection and never answers does not hold up the end.
pub fn slow_collector() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let collector = Collector::start(|_, _| None)?;
    let agent = agent(&lab, &collector.url(), &[])?;
    refused(&lab, 5)?;
    collector.until("a request", |exports| (exports.len() >= 2).then_some(()))?;
    ensure!(agent.get("/healthz", "")?.status == 200);
    let stopped = Instant::now();
    let ran = agent.stop()?;
    let took = stopped.elapsed();
    ensure!(
        ran.code == Some(0) && took < Duration::from_secs(9),
        "{took:?} {ran:?}"
    );
    let left = exported(&ran.out)?.len();
    let line = ran.one_line()?;
    ensure!(
        line.contains(&format!("{left} log records")),
        "{left}: {line}"
    );
    Ok(())
}

/// Its own connections are what they are: refused, by this very program.
pub fn own_connections() -> Result<()> {
    let free = TcpListener::bind("127.0.0.1:0")?;
    let port = free.local_addr()?.port();
    drop(free);
    let url = format!("http://127.0.0.1:{port}");
    let agent = Agent::start(&[
        "--role",
        "client",
        "--port",
        &port.to_string(),
        "--otlp",
        &url,
    ])?;
    let pid = agent.pid();
    agent.until("the problem", |now| {
        let found = now["problems"]
            .as_array()
            .is_some_and(|all| !all.is_empty());
        Ok(found.then_some(()))
    })?;
    let ran = agent.stop()?;
    let lines = exported(&ran.out)?;
    let mut kinds = BTreeMap::new();
    for line in lines.iter().filter(|line| line["type"] != "lost") {
        ensure!(line["verdict"] == "refused", "{line}");
        if line["type"] == "handshake" {
            ensure!(line["pid"] == pid && line["outcome"] == "refused", "{line}");
            ensure!(line["comm"] == "synprobe-otlp", "{line}");
        }
        *kinds.entry(line["type"].to_string()).or_insert(0) += 1;
    }
    ensure!(kinds.len() == 2, "{kinds:?}");
    Ok(())
}

/// One line, and exit code 2.
pub fn bad_urls() -> Result<()> {
    for (url, word) in [
        ("collector:4318", "http://127.0.0.1:4318"),
        ("http://", "is not a URL"),
        ("https://collector:4318", "on this host"),
        ("http://c/?x", "query"),
    ] {
        let ran = run(&["serve", "--otlp", url])?;
        ensure!(ran.code == USAGE && ran.out.is_empty(), "{ran:?}");
        let line = ran.one_line()?;
        ensure!(line.contains("--otlp") && line.contains(word), "{line}");
        let mut child = command(&["serve"])?;
        let ran = ended(child.env("SYNPROBE_OTLP", url).spawn()?)?;
        let line = ran.one_line()?;
        ensure!(
            ran.code == USAGE && line.contains("SYNPROBE_OTLP") && line.contains(word),
            "{line}"
        );
    }
    let ran = run(&[
        "serve",
        "--otlp",
        "http://c:4318",
        "--otlp-interval",
        "0.5s",
    ])?;
    ensure!(
        ran.code == USAGE && ran.err.contains("--otlp-interval"),
        "{ran:?}"
    );
    Ok(())
}
