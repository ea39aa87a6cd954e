//! Recordings that are not whole, by the binary: what is readable is replayed, one line says what is not.

use std::{
    fs,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{Client, Lab, PORT, Server, SocketFamily, settle};
use synprobe_tests::{
    binary::{self, command, ended, netns_path, run, signal},
    harness::Case,
    recorded::Scratch,
    schema,
};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
/// Cuts, and as many flips.
const PLACES: u64 = 20;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("damaged", damaged),
        Case::new("notes", notes),
        Case::new("full-disk", full_disk),
    ]
}

/// Records some handshakes, healthy and refused, with the binary.
fn record(extra: &[&str], file: &Scratch) -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let mut arguments = vec!["record", "--output", file.text(), "--netns", &netns];
    arguments.extend_from_slice(extra);
    let recorder = command(&arguments)?.spawn()?;
    thread::sleep(Duration::from_secs(2));
    traffic(&lab, 30)?;
    signal(&recorder, libc::SIGINT)?;
    let ran = ended(recorder)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    ensure!(ran.out.contains("nothing lost"), "{ran:?}");
    Ok(())
}

/// Connects to a server, and to a port that nobody has.
pub fn traffic(lab: &Lab, connects: usize) -> Result<()> {
    let listener = lab.listen(PORT, 128)?;
    let server = Server::start(vec![listener])?;
    let connect = |port| Client::connect(&lab.client, lab.server_addr(port), |_| Ok(()));
    for _ in 0..connects {
        let mut clients = [connect(PORT)?, connect(PORT + 1)?];
        let until = Instant::now() + Duration::from_secs(5);
        settle(&mut clients, &AtomicBool::new(false), until)?;
    }
    drop(server);
    Ok(())
}

/// Numbers that look random, and are the same each time.
fn random(number: u64) -> u64 {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 32
}

/// A recording of which something is missing: exit code 0 and one line, or 2 where nothing is readable.
fn damaged() -> Result<()> {
    let file = Scratch::new();
    record(&[], &file)?;
    let whole = run(&["watch", "--format", "json", "--replay", file.text()])?;
    ensure!(
        whole.code == Some(0) && whole.err.lines().count() <= 1,
        "{whole:?}"
    );
    schema::check(whole.out.lines())?;
    let bytes = fs::read(&file.0)?;
    for place in 0..2 * PLACES {
        let mut part = bytes.clone();
        let at = random(place) as usize % bytes.len();
        let what = match place % 2 {
            0 => {
                part.truncate(at);
                format!("cut at {at} of {}", bytes.len())
            }
            _ => {
                for bit in 0..4 {
                    let at = random(1000 * place + bit) as usize % (8 * part.len());
                    part[at / 8] ^= 1 << (at % 8);
                }
                format!("flipped, seed {place}")
            }
        };
        let damaged = Scratch::new();
        fs::write(&damaged.0, part)?;
        for verb in ["watch", "diagnose"] {
            let ran = run(&[verb, "--format", "json", "--replay", damaged.text()])?;
            let line = ran
                .err
                .lines()
                .filter(|l| !l.contains("this was recorded with"));
            ensure!(line.count() == 1, "{what}: not one line: {ran:?}");
            match ran.code {
                Some(0) => schema::check(ran.out.lines())
                    .map(drop)
                    .context(what.clone())?,
                code => ensure!(code == Some(USAGE) && ran.out.is_empty(), "{what}: {ran:?}"),
            }
        }
    }
    // No recording, none at all, and one of a later major version.
    fs::write(&file.0, "no recording")?;
    let no_recording = run(&["watch", "--replay", file.text()])?;
    ensure!(no_recording.code == Some(USAGE), "{no_recording:?}");
    no_recording.one_line()?;
    let mut later = bytes;
    for at in 0..later.len() - 10 {
        if later[at..].starts_with(b"\x93SYNREC\n") {
            later[at + 8] = 2;
        }
    }
    fs::write(&file.0, later)?;
    let later = run(&["watch", "--replay", file.text()])?;
    ensure!(later.code == Some(USAGE), "{later:?}");
    ensure!(later.one_line()?.contains("version"), "{later:?}");
    let nothing = run(&["watch", "--replay", "/nonexistent"])?;
    ensure!(nothing.code == Some(USAGE), "{nothing:?}");
    nothing.one_line().map(drop)
}

/// What a recording cannot give is one line.
fn notes() -> Result<()> {
    let file = Scratch::new();
    record(
        &["--quiet", "--role", "client", "--port", "8080-8081"],
        &file,
    )?;
    let ran = run(&["diagnose", "--replay", file.text()])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let line = ran.one_line()?;
    for words in [
        "quiet mode",
        "--role client",
        "--port 8080-8081",
        "nothing else",
    ] {
        ensure!(line.contains(words), "{words}: {line}");
    }
    let ran = run(&[
        "watch",
        "--format",
        "json",
        "--replay",
        file.text(),
        "--port",
        "8081",
    ])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let of = |port: &str| {
        let port = format!("\"peer_port\":{port}");
        let handshakes = ran
            .out
            .lines()
            .filter(|l| l.contains("\"type\":\"handshake\""));
        handshakes.filter(|l| l.contains(&port)).count()
    };
    ensure!(of("8081") == 30 && of("8080") == 0, "{ran:?}");
    let other = run(&["watch", "--replay", file.text(), "--role", "server"])?;
    ensure!(other.code == Some(USAGE), "{other:?}");
    ensure!(other.err.contains("--role client"), "{other:?}");
    Ok(())
}

/// On a disk that is full the run ends well, and says what was lost.
fn full_disk() -> Result<()> {
    let folder = Scratch::new();
    fs::create_dir(&folder.0)?;
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let file = format!("{}/full.synrec", folder.text());
    // A namespace of its own: the mount goes with the process.
    let script = "mount -t tmpfs -o size=16k none \"$1\" && shift && exec \"$@\"";
    let binary = binary::path()?.to_str().context("a path")?;
    let recorder = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", folder.text()])
        .args([binary, "record", "--output", &file, "--netns", &netns])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .context("unshare")?;
    thread::sleep(Duration::from_secs(2));
    for _ in 0..5 {
        traffic(&lab, 200)?;
        thread::sleep(Duration::from_millis(500));
    }
    let left = fs::read(format!("/proc/{}/root{file}", recorder.id()));
    signal(&recorder, libc::SIGINT)?;
    let ran = ended(recorder)?;
    ensure!(ran.code == Some(FAILED), "{ran:?}");
    ensure!(
        ran.err.contains("not complete") && ran.err.contains("No space left"),
        "{ran:?}"
    );
    ensure!(ran.out.contains("inputs not recorded"), "{ran:?}");
    // What was written until then is readable.
    let part = Scratch::new();
    fs::write(&part.0, left.context("the recording so far")?)?;
    let replay = run(&["diagnose", "--replay", part.text()])?;
    ensure!(
        replay.code == Some(0) && replay.err.contains("damaged"),
        "{replay:?}"
    );
    Ok(())
}
