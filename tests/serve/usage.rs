//! Options, the environment, bad input, and what is printed.

use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe_lab::{Lab, PORT, SocketFamily};
use synprobe_tests::{
    binary::{command, ended, netns_path, run},
    schema,
};

use crate::agent::Agent;

const FAILED: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(2);

/// One line, and the exit code that other commands have.
pub fn bad_usage() -> Result<()> {
    let file = std::env::temp_dir().join(format!("synprobe-no-folder-{}", std::process::id()));
    std::fs::write(&file, "")?;
    let below = format!("unix:{}/socket", file.display());
    let folder = file.display().to_string();
    let holds = TcpListener::bind("127.0.0.1:0")?;
    let held = holds.local_addr()?.to_string();
    let cases: [(&[&str], Option<i32>, &str); 5] = [
        (&["serve", "--listen", &held], FAILED, "in use"),
        (
            &["serve", "--listen", "192.0.2.1:9823"],
            FAILED,
            "192.0.2.1",
        ),
        (&["serve", "--listen", &below], FAILED, "cannot listen"),
        (
            &["serve", "--listen", "127.0.0.1:0", "--rolling", &folder],
            FAILED,
            &folder,
        ),
        (
            &[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--netns",
                "no-such-namespace",
            ],
            USAGE,
            "no-such-namespace",
        ),
    ];
    for (arguments, code, word) in cases {
        let ran = run(arguments)?;
        ensure!(
            ran.code == code && ran.out.is_empty(),
            "{arguments:?}: {ran:?}"
        );
        ensure!(ran.one_line()?.contains(word), "{arguments:?}: {ran:?}");
    }
    for (arguments, word) in [
        (&["serve", "--listen", "9823"][..], "127.0.0.1:9823"),
        (&["serve", "--window", "10ms"], "between 1s and 1h"),
        (&["serve", "--keep", "1m"], "--rolling"),
    ] {
        let ran = run(arguments)?;
        ensure!(
            ran.code == USAGE && ran.err.contains(word),
            "{arguments:?}: {ran:?}"
        );
    }
    std::fs::remove_file(&file)?;
    Ok(())
}

/// Each option can come from the environment. The command line comes first.
pub fn environment() -> Result<()> {
    for (variable, value, word) in [
        ("SYNPROBE_LISTEN", "nowhere", "unix:PATH"),
        ("SYNPROBE_WINDOW", "soon", "is not a time"),
        ("SYNPROBE_SLOW", "1ns", "between 1ms and 1h"),
        ("SYNPROBE_FORMAT", "xml", "json, none"),
        ("SYNPROBE_PORT", "443,http", "give the port as a number"),
        ("SYNPROBE_MAX_PEERS", "many", "whole number of 1 or more"),
        ("SYNPROBE_MODE", "wrong", "tracepoints"),
    ] {
        let mut child = command(&["serve", "--netns", "no-such-namespace"])?;
        let ran = ended(child.env(variable, value).spawn()?)?;
        ensure!(
            ran.code == USAGE && ran.out.is_empty(),
            "{variable}: {ran:?}"
        );
        let line = ran.one_line()?;
        ensure!(line.contains(variable) && line.contains(word), "{line}");
    }
    // On the command line it is the option's fault.
    let mut child = command(&["serve", "--window", "soon"])?;
    let ran = ended(child.env("SYNPROBE_WINDOW", "5s").spawn()?)?;
    ensure!(
        ran.err.contains("--window") && !ran.err.contains("SYNPROBE"),
        "{ran:?}"
    );
    // Other commands do not read it.
    let mut child = command(&["explain", "filtered"])?;
    let ran = ended(child.env("SYNPROBE_WINDOW", "soon").spawn()?)?;
    ensure!(ran.code == Some(0), "{ran:?}");

    let lab = Lab::new(SocketFamily::V4)?;
    let mut child = command(&["serve"])?;
    child
        .env("SYNPROBE_LISTEN", "127.0.0.1:0")
        .env("SYNPROBE_NETNS", netns_path(&lab.client))
        .env("SYNPROBE_FORMAT", "none");
    let agent = Agent::spawned(child.spawn()?)?;
    ensure!(agent.get("/healthz", "")?.status == 200);
    let ran = agent.stop()?;
    ensure!(ran.code == Some(0) && ran.out.is_empty(), "{ran:?}");
    Ok(())
}

/// Events are NDJSON on standard output, as those of `watch --quiet`.
pub fn events() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let agent = Agent::start(&["--netns", &netns_path(&lab.client)])?;
    let to = lab.server_addr(PORT);
    let refused = lab.client.run(|| Ok(TcpStream::connect(to).is_err()))?;
    ensure!(refused, "nobody listens there");
    let ran = agent.stop()?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let lines: Vec<Value> = schema::check(ran.out.lines())?;
    let handshake = lines.iter().find(|line| line["type"] == "handshake");
    let handshake = handshake.context("a handshake line")?;
    ensure!(handshake["verdict"] == "refused", "{handshake}");
    ensure!(
        lines[0]["type"] == "start" && lines[lines.len() - 1]["type"] == "end",
        "{ran:?}"
    );
    Ok(())
}
