//! A rolling recording under load: bounds, rights, a restart, one recorder at a time, cuts while it runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{Lab, SocketFamily};
use synprobe_tests::{
    binary::{command, ended, netns_path, run, signal},
    harness::Case,
    recorded::Scratch,
    schema,
};

use crate::damaged::traffic;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const MAX_SIZE: u64 = 256 << 10;
const KEEP: &str = "30s";

pub fn cases() -> Vec<Case> {
    vec![Case::new("rolling", rolling)]
}

fn start(folder: &Scratch, netns: &str) -> Result<Child> {
    let size = MAX_SIZE.to_string();
    let recorder = command(&[
        "record",
        "--rolling",
        folder.text(),
        "--keep",
        KEEP,
        "--max-size",
        &size,
        "--netns",
        netns,
    ])?
    .spawn()?;
    let until = Instant::now() + Duration::from_secs(20);
    while !folder.0.join("lock").exists() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    // It is attached before it locks the folder.
    thread::sleep(Duration::from_secs(1));
    Ok(recorder)
}

fn segments(folder: &Path) -> Result<Vec<(String, u64)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // It may be gone by now.
        if let (true, Ok(meta)) = (name.ends_with(".synrec"), entry.metadata()) {
            ensure!(
                meta.permissions().mode() & 0o777 == 0o600,
                "{name}: {meta:?}"
            );
            segments.push((name, meta.len().next_multiple_of(4096)));
        }
    }
    segments.sort();
    Ok(segments)
}

fn within_bounds(folder: &Path) -> Result<usize> {
    let segments = segments(folder)?;
    let bytes: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
    ensure!(bytes <= MAX_SIZE, "{bytes} bytes: {segments:?}");
    Ok(segments.len())
}

fn cut(folder: &Scratch, last: Option<&str>) -> Result<usize> {
    let output = Scratch::new();
    let mut arguments = vec!["record", "--cut", output.text(), "--from", folder.text()];
    if let Some(last) = last {
        arguments.extend(["--last", last]);
    }
    let ran = run(&arguments)?;
    ensure!(ran.code == Some(0) && ran.err.is_empty(), "{ran:?}");
    let mode = fs::metadata(&output.0)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    let replay = run(&["watch", "--format", "json", "--replay", output.text()])?;
    ensure!(replay.code == Some(0), "{replay:?}");
    ensure!(!replay.err.contains("damaged"), "{}", replay.err);
    let lines = schema::check(replay.out.lines())?;
    let handshakes = lines.iter().filter(|line| line["type"] == "handshake");
    Ok(handshakes.count())
}

fn rolling() -> Result<()> {
    let folder = Scratch::new();
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let recorder = start(&folder, &netns)?;
    let mode = fs::metadata(&folder.0)?.permissions().mode() & 0o777;
    ensure!(mode == 0o700, "the folder: {mode:o}");

    traffic(&lab, 50)?;
    thread::sleep(Duration::from_millis(2500));
    ensure!(cut(&folder, None)? >= 100, "a cut while it runs");

    // SIGUSR1 closes the segment; the next input begins another.
    let before = segments(&folder.0)?.len();
    signal(&recorder, libc::SIGUSR1)?;
    thread::sleep(Duration::from_millis(300));
    traffic(&lab, 20)?;
    thread::sleep(Duration::from_millis(2500));
    let after = segments(&folder.0)?.len();
    ensure!(after == before + 1, "{before} segments, then {after}");
    ensure!(cut(&folder, None)? >= 140, "a cut of two segments");

    let second = run(&["record", "--rolling", folder.text(), "--netns", &netns])?;
    ensure!(matches!(second.code, Some(FAILED | USAGE)), "{second:?}");
    ensure!(second.one_line()?.contains("record"), "{second:?}");

    // Under load the oldest goes.
    let until = Instant::now() + Duration::from_secs(12);
    let mut most = 0;
    while Instant::now() < until {
        traffic(&lab, 100)?;
        most = most.max(within_bounds(&folder.0)?);
    }
    ensure!(most > 1, "{most} segments");
    ensure!(cut(&folder, Some("2s"))? > 0, "the last two seconds");

    // Killed, and started anew: what was there stays readable.
    signal(&recorder, libc::SIGKILL)?;
    ended(recorder).context("killed")?;
    let recorder = start(&folder, &netns)?;
    traffic(&lab, 50)?;
    thread::sleep(Duration::from_millis(2500));
    within_bounds(&folder.0)?;
    let output = Scratch::new();
    let ran = run(&["record", "--cut", output.text(), "--from", folder.text()])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let replay = run(&["diagnose", "--replay", output.text()])?;
    ensure!(replay.code == Some(0), "{replay:?}");
    signal(&recorder, libc::SIGINT)?;
    let ran = ended(recorder)?;
    ensure!(
        ran.code == Some(0) && ran.out.contains("nothing lost"),
        "{ran:?}"
    );
    within_bounds(&folder.0).map(drop)
}
