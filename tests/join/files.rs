//! Files made by hand: what each join of them must say. No root needed.

use std::{
    fs,
    os::fd::AsRawFd,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use synprobe_tests::{
    binary::{Ran, command, ended},
    schema,
};

const HOUR_US: i64 = 3_600_000_000;
/// 2026-11-29T08:00:00Z
const EIGHT_US: i64 = 1_795_939_200_000_000;

/// A file, deleted at the end.
pub struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        // In the temporary directory.
        let _ = fs::remove_file(&self.0);
    }
}

impl Made {
    pub fn of(name: &str, content: impl AsRef<[u8]>) -> Result<Self> {
        // Both families of a test run at once.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("synprobe-join-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, content)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// The lines of one host; times are microseconds after eight o'clock, on its clock.
#[derive(Clone)]
pub struct Lines {
    text: String,
    clock_us: i64,
}

fn time(us: i64) -> String {
    let (second, micros) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let of_day = second.rem_euclid(86_400);
    let days = second.div_euclid(86_400) - 20_786;
    format!(
        "2026-11-{:02}T{:02}:{:02}:{:02}.{micros:06}Z",
        29 + days,
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

impl Lines {
    pub fn of(clock_us: i64, from_us: i64, more: Value) -> Self {
        let mut lines = Self {
            text: String::new(),
            clock_us,
        };
        let mut start = json!({
            "version": "0.1.0", "kernel": "6.18.0", "features": [], "mode": "exact (fentry)", "mode_why": null,
            "missing": [], "filters": {}, "handshake_lines": "all",
            "host": {"hostname": null, "machine_id": null, "boot_id": null},
        });
        if let (Some(start), Some(more)) = (start.as_object_mut(), more.as_object()) {
            start.extend(more.clone());
        }
        lines.line("start", from_us, start);
        lines
    }

    pub fn line(&mut self, kind: &str, at_us: i64, body: Value) {
        let mono_ns = (at_us + HOUR_US) * 1000;
        let time = time(EIGHT_US + at_us + self.clock_us);
        let body = body.to_string();
        self.text.push_str(&format!(
            "{{\"v\":1,\"type\":\"{kind}\",\"time\":\"{time}\",\"mono_ns\":{mono_ns},{}\n",
            &body[1..]
        ));
    }

    pub fn end(mut self, at_us: i64, listen_drops: u64) -> String {
        self.line("end", at_us, json!({
            "events": 1, "lost": 0, "produced": 1, "handshakes": 1, "syns_refused": 0, "counted": 0, "evicted": 0,
            "listen_drops": listen_drops, "syn_cookies": 0, "peers_unlisted": 0,
            "peers_distinct": {"client": 1, "server": 1}, "peers_distinct_error": {"client": 0.0, "server": 0.0},
            "duration_us": 1, "unexplained": [],
        }));
        self.text
    }

    pub fn handshake(&mut self, at_us: i64, id: u32, more: Value) {
        let mut line = json!({
            "id": id, "family": "ipv4", "netns": 1, "netns_name": null, "pid": null, "comm": null, "cgroup": null,
            "outcome": "established", "open_reason": null, "dwell_us": 100, "dwell_source": "events",
            "dwell_error_us": null, "dwell_at_least_us": null, "retransmits": 0, "retransmits_by_peer": 0,
            "error": null, "verdict": null, "confidence": "insufficient", "evidence": [], "remedy": null,
            "syn_seq": 1_000_000 + id, "syn_ack_seq": 2_000_000 + id, "community_id": null,
        });
        if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
            line.extend(more.clone());
        }
        self.line("handshake", at_us, line);
    }

    /// An active open from 10.0.0.1 to 10.0.0.2 port 80.
    pub fn active(&mut self, at_us: i64, id: u32, more: Value) {
        let mut line = json!({
            "role": "client", "local_addr": "10.0.0.1", "local_port": 30_000 + id, "peer_addr": "10.0.0.2",
            "peer_port": 80,
        });
        if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
            line.extend(more.clone());
        }
        self.handshake(at_us, id, line);
    }

    /// Its half-open.
    pub fn passive(&mut self, at_us: i64, id: u32, more: Value) {
        let mut line = json!({
            "role": "server", "local_addr": "10.0.0.2", "local_port": 80, "peer_addr": "10.0.0.1",
            "peer_port": 30_000 + id,
        });
        if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
            line.extend(more.clone());
        }
        self.handshake(at_us, id, line);
    }
}

/// A connect that sent three SYNs and got no answer: 1 s, 3 s, given up at 7 s.
fn unanswered(lines: &mut Lines, id: u32, from_us: i64) {
    for after_us in [1_000_000, 3_000_000] {
        lines.line(
            "retransmit",
            from_us + after_us,
            json!({"id": id, "kind": "syn"}),
        );
    }
    lines.active(from_us + 7_000_000, id, json!({
        "outcome": "timed_out", "error": "ETIMEDOUT", "dwell_us": 7_000_000, "retransmits": 2, "verdict": "filtered",
        "confidence": "likely", "syn_ack_seq": null,
    }));
}

/// Both hosts with ten clean connects; the server's clock is `ahead_us` ahead, and drifts.
pub fn clean(ahead_us: i64, ppm: i64, server: Value) -> (Lines, Lines) {
    let mut ours = Lines::of(0, 0, json!({}));
    let mut theirs = Lines::of(ahead_us, 0, server);
    for id in 1..=10 {
        let at_us = 1_000_000 + i64::from(id) * 2_000_000;
        ours.active(at_us, id, json!({}));
        theirs.passive(
            at_us + 40 + at_us * ppm / 1_000_000,
            id,
            json!({"dwell_us": 90}),
        );
    }
    (ours, theirs)
}

pub fn join(arguments: &[&str]) -> Result<Ran> {
    ended(command(&[&["join"], arguments].concat())?.spawn()?)
}

pub fn joined(ours: &str, theirs: &str, name: &str) -> Result<(Vec<Value>, String)> {
    keep(ours, theirs, name)?;
    let (ours, theirs) = (
        Made::of(&format!("{name}-client"), ours)?,
        Made::of(&format!("{name}-server"), theirs)?,
    );
    let ran = join(&[ours.path(), theirs.path(), "--format", "json"])?;
    ensure!(ran.code == Some(0), "{:?}: {}", ran.code, ran.err);
    Ok((schema::check(ran.out.lines())?, ran.err))
}

/// Leaves both files behind where SYNPROBE_JOIN_KEEP names a folder: deploy/sql/check joins them in SQL.
fn keep(ours: &str, theirs: &str, name: &str) -> Result<()> {
    if let Some(folder) = std::env::var_os("SYNPROBE_JOIN_KEEP") {
        let folder = PathBuf::from(folder).join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("client.ndjson"), ours)?;
        fs::write(folder.join("server.ndjson"), theirs)?;
    }
    Ok(())
}

pub fn pairs(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|l| l["type"] == "pair").collect()
}

fn in_trouble(lines: &[Value]) -> Result<&Value> {
    let mut found = pairs(lines).into_iter().filter(|p| !p["verdict"].is_null());
    let one = found.next().context("a pair in trouble")?;
    ensure!(found.next().is_none(), "more than one");
    Ok(one)
}

fn says(pair: &Value, words: &str) -> Result<()> {
    let evidence = pair["evidence"].to_string();
    ensure!(evidence.contains(words), "not \"{words}\": {pair:#}");
    Ok(())
}

/// Hours apart, and drifting: the offset is found, and every connect is joined.
pub fn clocks_hours_apart() -> Result<()> {
    for (ahead_us, ppm) in [(0, 0), (7 * HOUR_US, 100), (-5 * HOUR_US, -80)] {
        let (ours, theirs) = clean(ahead_us, ppm, json!({}));
        let (lines, _) = joined(
            &ours.end(30_000_000, 0),
            &theirs.end(30_000_000, 0),
            "clocks",
        )?;
        let all = pairs(&lines);
        ensure!(all.len() == 10, "{} pairs", all.len());
        for pair in all {
            ensure!(
                pair["verdict"].is_null() && pair["key"] == "syn_seq",
                "{pair:#}"
            );
            let at_us = pair["mono_ns"].as_i64().context("a time")? / 1000 - HOUR_US;
            let truth = ahead_us + at_us * ppm / 1_000_000;
            let offset = pair["clock_offset_us"].as_i64().context("an offset")?;
            let error = pair["clock_error_us"].as_i64().context("its error")?;
            ensure!(
                (offset - truth).abs() <= error && error < 1000,
                "{offset} ± {error}, not {truth}"
            );
        }
    }
    Ok(())
}

/// The server saw nothing of three SYNs: whether that is testimony.
pub fn silence() -> Result<()> {
    type Change = fn(Lines) -> String;
    let whole: Change = |lines| lines.end(60_000_000, 0);
    let cases: [(&str, Value, Change, &str); 7] = [
        ("whole", json!({}), whole, ""),
        (
            "quiet",
            json!({"handshake_lines": "trouble"}),
            whole,
            "only handshakes in trouble",
        ),
        (
            "older",
            json!({"handshake_lines": null}),
            whole,
            "its version does not tell",
        ),
        (
            "filter",
            json!({"filters": {"peer": "10.9.0.0/16"}}),
            whole,
            "--peer 10.9.0.0/16",
        ),
        (
            "ended",
            json!({}),
            |lines| lines.end(33_000_000, 0),
            "its run ended meanwhile",
        ),
        (
            "refused",
            json!({}),
            |lines| lines.end(60_000_000, 3),
            "ListenDrops rose by 3",
        ),
        (
            "lost",
            json!({}),
            |mut lines| {
                lines.line(
                    "lost",
                    34_000_000,
                    json!({"events": 4, "reason": "state records: the ring was full"}),
                );
                lines.end(60_000_000, 0)
            },
            "it lost 4 records",
        ),
    ];
    for (name, start, change, why) in cases {
        let (mut ours, mut theirs) = clean(HOUR_US, 0, start);
        unanswered(&mut ours, 77, 30_000_000);
        if name == "ended" {
            theirs.passive(32_000_000, 78, json!({}));
        }
        let (lines, _) = joined(&ours.end(60_000_000, 0), &change(theirs), name)?;
        let pair = in_trouble(&lines)?;
        if why.is_empty() {
            ensure!(pair["verdict"] == "lost-toward-server", "{pair:#}");
            ensure!(pair["lost"]["toward_server"] == 3, "{pair:#}");
        } else {
            ensure!(pair["verdict"] == "insufficient", "{name}: {pair:#}");
            ensure!(pair["lost"]["toward_server"].is_null(), "{name}: {pair:#}");
            says(pair, why)?;
        }
    }
    Ok(())
}

/// Three SYNs, all arrived; every SYN-ACK was sent in vain.
pub fn the_way_back() -> Result<()> {
    let (mut ours, mut theirs) = clean(-HOUR_US, 20, json!({}));
    unanswered(&mut ours, 77, 30_000_000);
    for (at_us, trigger) in [
        (31_000_050, "peer"),
        (33_000_050, "peer"),
        (36_000_050, "timer"),
        (45_000_050, "timer"),
    ] {
        theirs.line(
            "retransmit",
            at_us,
            json!({"id": 77, "kind": "synack", "trigger": trigger}),
        );
    }
    theirs.passive(93_000_050, 77, json!({
        "outcome": "expired", "dwell_us": 63_000_000, "retransmits": 4, "retransmits_by_peer": 2,
        "verdict": "synack-lost", "confidence": "certain",
    }));
    let (ours, theirs) = (ours.end(200_000_000, 0), theirs.end(200_000_000, 0));
    fits_eighty_columns(&ours, &theirs)?;
    let (lines, _) = joined(&ours, &theirs, "back")?;
    let pair = in_trouble(&lines)?;
    ensure!(
        pair["verdict"] == "lost-toward-client" && pair["confidence"] == "certain",
        "{pair:#}"
    );
    ensure!(pair["lost"]["toward_server"] == 0, "{pair:#}");
    // The last one was sent when the client had given up.
    ensure!(pair["lost"]["toward_client"] == 4, "{pair:#}");
    says(pair, "3 SYNs sent, 3 arrived")
}

/// In 80 columns no line of the page is longer, and its commands can be copied.
fn fits_eighty_columns(ours: &str, theirs: &str) -> Result<()> {
    let (client, server) = (Made::of("80-c", ours)?, Made::of("80-s", theirs)?);
    let mut narrow = command(&["join", client.path(), server.path()])?;
    let narrow = ended(narrow.env("COLUMNS", "80").spawn()?)?;
    for line in narrow.out.lines() {
        ensure!(line.chars().count() <= 80, "{line:?}: {}", narrow.out);
    }
    for words in [
        "1. lost-toward-client, certain",
        "SYN-ACK  client ← server  never arrived",
        "\n  do ",
    ] {
        ensure!(narrow.out.contains(words), "not {words}: {}", narrow.out);
    }
    Ok(())
}

/// The client recorded late: of a half-open in trouble from before, no direction is named.
pub fn client_began_late() -> Result<()> {
    let (_, mut theirs) = clean(0, 0, json!({}));
    let mut ours = Lines::of(0, 40_000_000, json!({}));
    theirs.passive(33_000_000, 77, json!({
        "outcome": "expired", "dwell_us": 3_000_000, "retransmits": 1, "verdict": "synack-lost", "confidence": "certain",
        "syn_ack_seq": null,
    }));
    // So that both files have a connect, and the clocks are known.
    for id in 90..95 {
        let at_us = 41_000_000 + i64::from(id) * 1000;
        ours.active(at_us, id, json!({}));
        theirs.passive(at_us + 40, id, json!({"dwell_us": 90}));
    }
    let (lines, _) = joined(
        &ours.end(60_000_000, 0),
        &theirs.end(60_000_000, 0),
        "client-late",
    )?;
    let pair = in_trouble(&lines)?;
    ensure!(
        pair["verdict"] == "insufficient" && pair["lost"]["toward_client"].is_null(),
        "{pair:#}"
    );
    says(pair, "its run began later")
}

/// Two of three SYNs are missing, and listeners have refused some without an event: no direction is named.
pub fn refused_without_an_event() -> Result<()> {
    for (listen_drops, verdict) in [(0, "lost-toward-server"), (2, "insufficient")] {
        let (mut ours, mut theirs) = clean(0, 0, json!({}));
        for at_us in [31_000_000, 33_000_000] {
            ours.line("retransmit", at_us, json!({"id": 77, "kind": "syn"}));
        }
        ours.active(
            33_000_100,
            77,
            json!({
                "dwell_us": 3_000_100, "retransmits": 2, "verdict": "syn-lost-then-ok", "confidence": "likely",
            }),
        );
        theirs.passive(33_000_140, 77, json!({"dwell_us": 90}));
        let theirs = theirs.end(60_000_000, listen_drops);
        let (lines, _) = joined(&ours.end(60_000_000, 0), &theirs, "drops")?;
        let pair = in_trouble(&lines)?;
        ensure!(pair["verdict"] == verdict, "{listen_drops}: {pair:#}");
        let lost = &pair["lost"]["toward_server"];
        ensure!(
            *lost
                == if listen_drops == 0 {
                    json!(2)
                } else {
                    Value::Null
                },
            "{pair:#}"
        );
    }
    Ok(())
}

/// No handshake bounds the offset of the clocks from both sides, and one half-open has no number.
pub fn unknown_clocks() -> Result<()> {
    let mut ours = Lines::of(0, 0, json!({}));
    let mut theirs = Lines::of(HOUR_US, 0, json!({}));
    unanswered(&mut ours, 77, 30_000_000);
    let half = json!({
        "outcome": "expired", "dwell_us": 2_500_000, "retransmits": 1, "retransmits_by_peer": 1,
        "verdict": "synack-lost", "confidence": "certain", "syn_ack_seq": null,
    });
    theirs.line(
        "retransmit",
        31_000_050,
        json!({"id": 77, "kind": "synack", "trigger": "peer"}),
    );
    theirs.passive(32_500_050, 77, half.clone());
    let mut second = half;
    second["syn_seq"] = Value::Null;
    second["retransmits"] = json!(0);
    second["retransmits_by_peer"] = json!(0);
    theirs.handshake(
        35_500_050,
        78,
        merged(
            second,
            json!({
                "role": "server", "local_addr": "10.0.0.2", "local_port": 80, "peer_addr": "10.0.0.1",
                "peer_port": 30_077,
            }),
        ),
    );
    let (lines, _) = joined(
        &ours.clone().end(200_000_000, 0),
        &theirs.clone().end(200_000_000, 0),
        "unknown",
    )?;
    let pair = pairs(&lines)
        .into_iter()
        .find(|p| p["client"]["id"] == 77)
        .context("the connect")?;
    // It is joined by its ends, for the upper bound of the offset is known.
    ensure!(pair["clock_offset_us"].is_null(), "{pair:#}");
    ensure!(
        pair["verdict"] == "lost-toward-client" && pair["lost"]["toward_server"] == 0,
        "{pair:#}"
    );
    // Without it a SYN is missing, and a half-open without its number may have been lost with it.
    let mut alone = Lines::of(HOUR_US, 0, json!({}));
    alone.text = theirs
        .text
        .lines()
        .filter(|l| !l.contains("\"id\":78,"))
        .map(|l| format!("{l}\n"))
        .collect();
    let (lines, _) = joined(
        &ours.end(200_000_000, 0),
        &alone.end(200_000_000, 0),
        "unknown-alone",
    )?;
    let pair = in_trouble(&lines)?;
    ensure!(
        pair["verdict"] == "insufficient" && pair["lost"]["toward_server"].is_null(),
        "{pair:#}"
    );
    says(pair, "a half-open without its number")
}

fn merged(mut line: Value, more: Value) -> Value {
    if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
        line.extend(more.clone());
    }
    line
}

/// One connect, and of its two half-opens only the first one has its number: both are its, in whatever order the lines
/// come.
pub fn half_open_without_its_number() -> Result<()> {
    for (client_ends_us, name) in [(34_500_000, "before"), (37_000_000, "after")] {
        let (mut ours, mut theirs) = clean(HOUR_US, 0, json!({}));
        for at_us in [31_000_000, 33_000_000] {
            ours.line("retransmit", at_us, json!({"id": 77, "kind": "syn"}));
        }
        ours.active(client_ends_us, 77, json!({
            "outcome": "timed_out", "error": "ETIMEDOUT", "dwell_us": client_ends_us - 30_000_000, "retransmits": 2,
            "verdict": "filtered", "confidence": "likely", "syn_ack_seq": null,
        }));
        let expired = json!({
            "outcome": "expired", "verdict": "synack-lost", "confidence": "certain", "syn_ack_seq": null,
            "dwell_us": 2_500_000, "retransmits": 1, "retransmits_by_peer": 1,
        });
        theirs.line(
            "retransmit",
            31_000_050,
            json!({"id": 77, "kind": "synack", "trigger": "peer"}),
        );
        theirs.passive(32_500_050, 77, expired.clone());
        let ends = json!({
            "role": "server", "local_addr": "10.0.0.2", "local_port": 80, "peer_addr": "10.0.0.1", "peer_port": 30_077,
            "syn_seq": null, "retransmits": 0, "retransmits_by_peer": 0,
        });
        theirs.handshake(35_500_050, 78, merged(expired, ends));
        let (lines, _) = joined(
            &ours.end(400_000_000, 0),
            &theirs.end(400_000_000, 0),
            &format!("number-{name}"),
        )?;
        let pair = in_trouble(&lines)?;
        ensure!(
            pair["verdict"] == "lost-toward-client" && pair["lost"]["toward_server"] == 0,
            "{name}: {pair:#}"
        );
        ensure!(
            pair["key"] == "syn_seq" && pair["server"].as_array().map(Vec::len) == Some(2),
            "{name}: {pair:#}"
        );
    }
    Ok(())
}

/// A file that is still being written: a half-open may be in it only later, so its silence tells nothing yet.
pub fn without_an_end() -> Result<()> {
    let (mut ours, mut theirs) = clean(HOUR_US, 0, json!({}));
    unanswered(&mut ours, 77, 30_000_000);
    // The server's run goes on.
    theirs.passive(100_000_000, 99, json!({}));
    let ours = ours.end(400_000_000, 0);
    for (theirs, name, verdict) in [
        (
            theirs.clone().end(100_000_000, 0),
            "with-end",
            "lost-toward-server",
        ),
        (theirs.text, "no-end", "insufficient"),
    ] {
        let (lines, _) = joined(&ours, &theirs, name)?;
        let pair = pairs(&lines)
            .into_iter()
            .find(|p| p["client"]["id"] == 77)
            .context("the connect")?;
        ensure!(pair["verdict"] == verdict, "{name}: {pair:#}");
    }
    Ok(())
}

/// Behind NAT, source and destination translated, only the sequence number tells.
pub fn nat() -> Result<()> {
    let mut ours = Lines::of(0, 0, json!({}));
    let mut theirs = Lines::of(3_000_000, 0, json!({}));
    for id in 1..=10 {
        let at_us = 1_000_000 + i64::from(id) * 500_000;
        ours.active(
            at_us,
            id,
            json!({"peer_addr": "203.0.113.9", "peer_port": 443}),
        );
        theirs.passive(
            at_us + 40,
            id,
            json!({"dwell_us": 90, "peer_addr": "192.0.2.7", "peer_port": 5_000 + id}),
        );
    }
    ours.active(9_000_000, 78, json!({"peer_addr": "203.0.113.9", "peer_port": 443, "outcome": "timed_out",
        "dwell_us": 7_000_000, "retransmits": 2, "verdict": "filtered", "confidence": "likely", "syn_ack_seq": null}));
    let (lines, _) = joined(&ours.end(60_000_000, 0), &theirs.end(60_000_000, 0), "nat")?;
    let summary = lines.last().context("a line")?;
    ensure!(
        summary["joined"] == 10 && summary["client_only"] == 1,
        "{summary:#}"
    );
    let pair = in_trouble(&lines)?;
    ensure!(
        pair["verdict"] == "insufficient" && pair["client"]["id"] == 78,
        "{pair:#}"
    );
    says(pair, "is translated on its way")
}

/// Bad and odd input: one clear line, or a correct result.
pub fn odd_files() -> Result<()> {
    let (ours, theirs) = clean(HOUR_US, 0, json!({}));
    let (ours, theirs) = (ours.end(30_000_000, 0), theirs.end(30_000_000, 0));
    let (client, server) = (Made::of("odd-c", &ours)?, Made::of("odd-s", &theirs)?);
    let (lines, err) = joined(&theirs, &ours, "swapped")?;
    ensure!(
        pairs(&lines).len() == 10 && err.contains("joined the other way round"),
        "{err}"
    );
    ensure!(
        lines.last().context("a line")?["swapped"] == true,
        "it is said"
    );
    let (lines, err) = joined(&ours, &ours, "twice")?;
    ensure!(
        pairs(&lines).is_empty() && err.contains("no connect in common"),
        "{err}"
    );
    let boot = json!({"host": {"hostname": "a", "machine_id": null, "boot_id": "b-1"}});
    let mut of_one_host = [Lines::of(0, 0, boot.clone()), Lines::of(0, 0, boot)];
    of_one_host[0].active(5_000_000, 1, json!({}));
    of_one_host[1].active(5_000_000, 2, json!({}));
    let [first, second] = of_one_host.map(|lines| lines.end(30_000_000, 0));
    let (_, err) = joined(&first, &second, "one-host")?;
    ensure!(err.contains("both are of one host"), "{err}");
    let one = Lines::of(-20 * HOUR_US, 0, json!({}));
    let (_, err) = joined(&ours, &one.end(1_000_000, 0), "hours")?;
    ensure!(err.contains("the runs do not overlap"), "{err}");
    let cut = &theirs[..theirs.len() * 2 / 3];
    let (lines, err) = joined(&ours, cut, "cut")?;
    ensure!(
        !pairs(&lines).is_empty() && err.contains("1 line of"),
        "{err}"
    );
    let text = join(&[client.path(), server.path()])?;
    ensure!(
        text.out.contains("10 connects in both files"),
        "{}",
        text.out
    );
    for (content, words) in [
        ("", "the file is empty"),
        ("\n", "the file is empty"),
        ("nothing of the kind", "not a recording"),
        (
            "{\"v\":2,\"type\":\"start\"}\n",
            "version 2 of the contract",
        ),
        ("{\"some\":\"thing\"}\n", "no line of synprobe"),
    ] {
        let bad = Made::of("odd-bad", content)?;
        let ran = join(&[client.path(), bad.path()])?;
        ensure!(ran.code == Some(2), "{content}: {:?} {}", ran.code, ran.err);
        ensure!(
            ran.err.lines().count() == 1 && ran.err.contains(words),
            "{content}: {}",
            ran.err
        );
    }
    let ran = join(&["-", "-"])?;
    ensure!(
        ran.code == Some(2) && ran.err.contains("only one of the two"),
        "{}",
        ran.err
    );
    pipes(client.path(), server.path())
}

/// A pipe can be read once, and a join reads twice.
fn pipes(client: &str, server: &str) -> Result<()> {
    let all = |ran: Ran, what: &str| {
        ensure!(
            ran.out.contains("10 connects in both files") && ran.err.is_empty(),
            "{what}: {} {}",
            ran.out,
            ran.err
        );
        Ok(())
    };
    let stdin = fs::File::open(client)?;
    let child = command(&["join", "-", server])?.stdin(stdin).spawn()?;
    all(ended(child)?, "standard input")?;
    // As `<(ssh …)` is one.
    let mut cat = std::process::Command::new("cat")
        .arg(client)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let output = cat.stdout.take().context("a pipe")?;
    let pipe = format!("/proc/{}/fd/{}", std::process::id(), output.as_raw_fd());
    let child = command(&["join", &pipe, server])?.spawn()?;
    let ran = ended(child);
    drop(output);
    cat.wait()?;
    all(ran?, "a pipe")
}
