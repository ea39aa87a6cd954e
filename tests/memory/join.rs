//! `synprobe join` keeps to its bounds: two files whose handshakes are all in trouble, and have nothing in common.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};
use synprobe_tests::binary::command;

use crate::{
    fill::FilledEngine,
    two_ends::{Fates, TwoEnds},
};

/// What a join may take, bytes, however large its files are.
const MOST: u64 = 300 << 20;
/// Connects of each kind in each recording. More than what waits for its other end.
const CONNECTS: usize = 20_000;
/// More connects, for measurements by hand: tests need not wait for them.
const MORE: &str = "SYNPROBE_TEST_JOIN_CONNECTS";
/// Connects in the shorter recordings of two hosts: more than the sample of the clocks has room for, in as long as
/// one waits for its other end.
const SHORTER: usize = 40_000;
/// So many times as long are the longer ones.
const LONGER: usize = 3;
/// What length may change, bytes: 100 for each connect. One that is kept takes more.
const GROWS: u64 = 8 << 20;
/// Half-opens of a dump: more than a replay's table has room for.
const ROWS: usize = 100_000;
/// Lines in each file of lines.
const LINES: u32 = 20_000;

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // In the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("synprobe-memory-{}-{name}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

/// Recordings.
pub fn recordings() -> Result<()> {
    let folder = Folder::new("recordings")?;
    let connects = more()?.unwrap_or(CONNECTS);
    let (client, server) = (
        folder.0.join("client.synrec"),
        folder.0.join("server.synrec"),
    );
    let mut run = FilledEngine::recorded(&client, 0)?;
    for _ in 0..4 {
        run.refused(connects / 2);
        run.unanswered(connects / 4);
    }
    run.ends()?;
    let mut run = FilledEngine::recorded(&server, 0)?;
    for _ in 0..4 {
        run.repeated(connects / 2);
        run.never_completed(connects / 4);
    }
    run.ends()?;
    keeps_to(&client, &server)
}

/// How many connects are wished for, if that is said.
fn more() -> Result<Option<usize>> {
    match env::var(MORE) {
        Ok(more) => Ok(Some(more.parse().context(MORE)?)),
        Err(_) => Ok(None),
    }
}

/// Recordings of two hosts that belong together: what they take does not grow with their length, and each connect
/// has its other end.
pub fn longer() -> Result<()> {
    let lengths = match more()? {
        Some(connects) => vec![connects],
        None => vec![SHORTER, LONGER * SHORTER],
    };
    let took: Vec<u64> = lengths
        .into_iter()
        .map(of_two_ends)
        .collect::<Result<_>>()?;
    let [shorter, longer] = took[..] else {
        return Ok(());
    };
    ensure!(longer <= shorter + GROWS, "{shorter} bytes, then {longer}");
    Ok(())
}

fn of_two_ends(connects: usize) -> Result<u64> {
    let folder = Folder::new(&format!("two-ends-{connects}"))?;
    let (client, server) = (
        folder.0.join("client.synrec"),
        folder.0.join("server.synrec"),
    );
    let fates = TwoEnds::record(&client, &server, connects)?;
    let took = joined(&client, &server)?;
    let (got, due) = (took.fates, fates);
    ensure!(got == due, "{got:?} in place of {due:?}");
    Ok(took.most)
}

/// Recordings of hosts under a flood: each look at the socket tables shows other half-opens, and those of the last
/// one are gone.
pub fn floods() -> Result<()> {
    let folder = Folder::new("floods")?;
    let files = [
        folder.0.join("client.synrec"),
        folder.0.join("server.synrec"),
    ];
    for file in &files {
        let mut run = FilledEngine::recorded(file, 0)?;
        for _ in 0..2 {
            run.dump(ROWS);
        }
        run.ends()?;
    }
    let took = joined(&files[0], &files[1])?;
    ensure!(took.server_only == 2 * ROWS as u64, "{took:?}");
    Ok(())
}

/// JSON lines with facts that are longer than any of synprobe's.
pub fn lines() -> Result<()> {
    let folder = Folder::new("lines")?;
    let (client, server) = (
        folder.0.join("client.ndjson"),
        folder.0.join("server.ndjson"),
    );
    write_lines(&client, "client", "not-sent")?;
    write_lines(&server, "server", "accept-queue-full")?;
    keeps_to(&client, &server)
}

fn write_lines(to: &Path, role: &str, verdict: &str) -> Result<()> {
    let mut out = BufWriter::new(File::create(to)?);
    let time = |i: u32| {
        format!(
            "2026-11-29T08:{:02}:{:02}.{:06}Z",
            i / 60_000,
            i / 1000 % 60,
            i % 1000 * 1000
        )
    };
    let begin = |kind: &str, i: u32| {
        let time = time(i);
        format!(
            r#"{{"v":1,"type":"{kind}","time":"{time}","mono_ns":{}"#,
            1_000_000_000 + u64::from(i) * 1_000_000
        )
    };
    let host = r#""host":{"hostname":null,"machine_id":null,"boot_id":null}"#;
    writeln!(
        out,
        r#"{},{host},"filters":{{}},"handshake_lines":"all"}}"#,
        begin("start", 0)
    )?;
    let fact = format!(r#"{{"fact":"{}","for":true}}"#, "x".repeat(3000));
    let (ours, theirs) = match role {
        "client" => ("local", "peer"),
        _ => ("peer", "local"),
    };
    for i in 0..LINES {
        let [_, a, b, c] = i.to_be_bytes();
        writeln!(
            out,
            r#"{},"id":{i},"role":"{role}","{ours}_addr":"11.{a}.{b}.{c}","{ours}_port":{},"{theirs}_addr":"10.0.0.1","{theirs}_port":{},"outcome":"timed_out","dwell_us":100,"retransmits":3,"verdict":"{verdict}","confidence":"certain","evidence":[{fact},{fact},{fact},{fact}],"remedy":"look","syn_seq":{},"syn_ack_seq":null}}"#,
            begin("handshake", i),
            1024 + i % 50_000,
            1 + i % 3000,
            i * 2 + u32::from(role == "client"),
        )?;
    }
    writeln!(
        out,
        r#"{},"listen_drops":0,"syn_cookies":0}}"#,
        begin("end", LINES)
    )?;
    out.flush()?;
    Ok(())
}

/// Joins two files that have nothing in common.
fn keeps_to(client: &Path, server: &Path) -> Result<()> {
    let took = joined(client, server)?;
    ensure!(took.fates.joined == 0, "{took:?}");
    let least = u64::from(LINES).min(CONNECTS as u64);
    ensure!(
        took.fates.client_only >= least && took.server_only >= least,
        "{took:?}"
    );
    Ok(())
}

/// What a join said, and what it took.
#[derive(Debug)]
struct Took {
    /// Bytes.
    most: u64,
    fates: Fates,
    server_only: u64,
}

/// Joins two files, and looks at what that took.
fn joined(client: &Path, server: &Path) -> Result<Took> {
    let files = [client, server].map(|file| file.to_str().unwrap_or_default());
    let mut child = command(&["join", files[0], files[1], "--format", "json"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("an output")?);
    let (mut fates, mut line, mut last) = (Fates::default(), String::new(), String::new());
    while out.read_line(&mut line)? > 0 {
        if line.contains(r#""type":"pair""#) {
            fates.says(&line);
        }
        std::mem::swap(&mut line, &mut last);
        line.clear();
    }
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: all bytes zero are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both outlive the call. Nobody else waits for this child.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid, "wait4: {}", std::io::Error::last_os_error());
    let status = ExitStatus::from_raw(status);
    ensure!(status.success(), "{status}");
    let most = u64::try_from(usage.ru_maxrss)? << 10;
    let bytes = fs::metadata(client)?.len() + fs::metadata(server)?.len();
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    println!(
        "figure: {} MiB of files, at most {} MiB of memory, {:.1} CPU seconds; {last}",
        bytes >> 20,
        most >> 20,
        seconds(usage.ru_utime) + seconds(usage.ru_stime)
    );
    let summary: serde_json::Value = serde_json::from_str(&last)?;
    let count = |name: &str| summary[name].as_u64().unwrap_or(0);
    (fates.joined, fates.client_only) = (count("joined"), count("client_only"));
    ensure!(most < MOST, "{most} bytes, and {MOST} are allowed");
    Ok(Took {
        most,
        fates,
        server_only: count("server_only"),
    })
}
