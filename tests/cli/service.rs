//! Under a service manager: `Type=notify`, and a journal that reads standard error.

use std::{
    fs::File,
    io::Read,
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::{
            fs::MetadataExt,
            net::{UnixDatagram, UnixStream},
        },
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{Lab, PORT, SocketFamily};
use synprobe_tests::binary::{command, ended, netns_path, signal};

use super::{DONE, USAGE};

/// Told once everything is attached, and not sooner: what happens from then on has its line. One that does
/// not begin says nothing.
pub fn ready_when_attached() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let path = std::env::temp_dir().join(format!("synprobe-notify-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path)?;
    let heard = told(&lab, &path, &manager);
    std::fs::remove_file(&path)?;
    heard
}

fn told(lab: &Lab, path: &std::path::Path, manager: &UnixDatagram) -> Result<()> {
    let netns = netns_path(&lab.client);
    let arguments = ["watch", "--quiet", "--format", "json", "--netns"];
    let start = |netns: &str| -> Result<_> {
        let mut agent = command(&[&arguments[..], &[netns]].concat())?;
        Ok(agent.env("NOTIFY_SOCKET", path).spawn()?)
    };
    ensure!(ended(start("no-such-namespace")?)?.code == Some(USAGE));

    let agent = start(&netns)?;
    manager.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut told = [0; 64];
    let length = manager.recv(&mut told).context("it never said so")?;
    ensure!(&told[..length] == b"READY=1\n", "{:?}", told.as_slice());
    let refused = lab
        .client
        .run(|| Ok(TcpStream::connect(lab.server_addr(PORT))))?;
    ensure!(refused.is_err(), "nobody listens there");
    signal(&agent, libc::SIGTERM)?;
    let ran = ended(agent)?;
    ensure!(ran.code == Some(DONE), "{ran:?}");
    ensure!(ran.out.contains("\"outcome\":\"refused\""), "{ran:?}");
    manager.set_nonblocking(true)?;
    ensure!(manager.recv(&mut told).is_err(), "it said more");
    Ok(())
}

/// Where standard error is the journal's stream (JOURNAL_STREAM), each line begins with its priority.
/// Where it was redirected, the inherited variable changes nothing.
pub fn issue19_priorities() -> Result<()> {
    let wrong = ["watch", "--no-such-option"];
    for line in journal_of(&wrong, 0)? {
        ensure!(line.starts_with("<3>synprobe: "), "{line}");
    }
    let refused = ["watch", "--netns", "no-such-namespace"];
    let [line] = &journal_of(&refused, 0)?[..] else {
        anyhow::bail!("not one line");
    };
    ensure!(line.starts_with("<3>synprobe: "), "{line}");
    let redirected = journal_of(&refused, 1)?;
    ensure!(redirected[0].starts_with("synprobe: "), "{redirected:?}");

    // A message of its own, and one of the log: nothing listens at NOTIFY_SOCKET.
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let run = [
        "watch",
        "--duration",
        "100ms",
        "--ring-size",
        "100000",
        "--netns",
    ];
    let lines = journal_of(&[&run[..], &[&netns]].concat(), 0)?;
    for begin in [
        "<6>synprobe: ring size 100000 ",
        "<4>[WARN  synprobe::verbs] cannot notify",
    ] {
        let found = lines.iter().any(|line| line.starts_with(begin));
        ensure!(found, "no {begin} in {lines:?}");
    }
    ensure!(lines.iter().all(|line| line.starts_with('<')), "{lines:?}");
    Ok(())
}

/// The lines on standard error of a run whose standard error is a socket. JOURNAL_STREAM names that socket, with
/// `other` added to its inode.
fn journal_of(arguments: &[&str], other: u64) -> Result<Vec<String>> {
    let (mut journal, stderr) = UnixStream::pair()?;
    let stderr = OwnedFd::from(stderr);
    let file = File::from(stderr.try_clone()?).metadata()?;
    let mut agent = command(arguments)?;
    agent
        .env(
            "JOURNAL_STREAM",
            format!("{}:{}", file.dev(), file.ino() + other),
        )
        .env("NOTIFY_SOCKET", "/nonexistent/notify")
        .stderr(stderr);
    let child = agent.spawn()?;
    // It holds the other end.
    drop(agent);
    let ran = ended(child)?;
    ensure!(ran.code.is_some(), "{ran:?}");
    let mut text = String::new();
    journal.read_to_string(&mut text)?;
    Ok(text.lines().map(str::to_owned).collect())
}
