//! When a problem opens, its recording is cut to a file that can be replayed.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::TcpStream,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe_lab::{Lab, PORT, SocketFamily};
use synprobe_tests::{
    binary::{netns_path, run},
    schema,
};

use crate::agent::Agent;

const MAX_SIZE: u64 = 1 << 20;

/// The recordings of problems in a folder.
fn cut_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.starts_with("problem-")) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Local ports of the handshakes that were refused.
fn refused(lines: &[Value]) -> BTreeSet<u64> {
    let refused = lines
        .iter()
        .filter(|line| line["type"] == "handshake" && line["verdict"] == "refused");
    refused
        .filter_map(|line| line["local_port"].as_u64())
        .collect()
}

/// Ids of the problems that opened.
fn ids(lines: &[Value]) -> Vec<String> {
    let opened = lines
        .iter()
        .filter(|line| line["type"] == "problem" && line["state"] == "opened");
    opened
        .filter_map(|line| line["id"].as_str().map(str::to_owned))
        .collect()
}

/// Two problems, one after the other: each has a file that replays what was before it, and the newest one stays.
pub fn cut_when_it_opens() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let folder = std::env::temp_dir().join(format!("synprobe-problems-{}", std::process::id()));
    let path = folder.to_string_lossy().into_owned();
    let mut agent = Agent::start(&[
        "--netns",
        &netns,
        "--window",
        "2s",
        "--rolling",
        &path,
        "--max-size",
        "1M",
        "--keep-problems",
        "1",
    ])?;
    let (mut replays, mut opened) = (Vec::new(), Vec::new());
    for port in [PORT, PORT + 1] {
        let to = lab.server_addr(port);
        lab.client.run(|| {
            for _ in 0..5 {
                let refused = TcpStream::connect(to).map_err(|e| e.kind());
                ensure!(refused.err() == Some(ErrorKind::ConnectionRefused));
            }
            Ok(())
        })?;
        let line = agent.error_line()?;
        let file = line.strip_prefix("synprobe: problem refused: recorded in ");
        let file = PathBuf::from(file.with_context(|| line.clone())?);
        ensure!(cut_files(&folder)? == [file.clone()], "{line}");
        let file = file.to_string_lossy().into_owned();
        let ran = run(&["watch", "--format", "json", "--replay", &file])?;
        // It says what it is, and of nothing that is missing.
        let said = ran.one_line()?;
        ensure!(
            ran.code == Some(0) && said.contains("in quiet mode"),
            "{said}"
        );
        let replayed = schema::check(ran.out.lines())?;
        opened.push(ids(&replayed));
        replays.push(refused(&replayed));
        let of_sizes = fs::read_dir(&folder)?.map(|entry| Ok(entry?.metadata()?.len()));
        let size: u64 = of_sizes.sum::<Result<u64>>()?;
        ensure!(size <= MAX_SIZE, "{size} bytes");
        agent.until("its end", |now| {
            Ok((now["problems"] == serde_json::json!([])).then_some(()))
        })?;
    }
    let ran = agent.stop()?;
    ensure!(ran.code == Some(0) && ran.err.is_empty(), "{ran:?}");
    fs::remove_dir_all(&folder)?;
    let live = schema::check(ran.out.lines())?;
    ensure!(
        opened[0].len() == 1 && opened[1] == ids(&live),
        "{opened:?}"
    );
    let lines = refused(&live);
    ensure!(replays[0].len() == 5, "{replays:?}");
    // The second one goes back to before the first.
    ensure!(
        replays[1] == lines && replays[0].is_subset(&lines),
        "{replays:?} {lines:?}"
    );
    Ok(())
}
