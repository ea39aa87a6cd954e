//! Under a service manager (`Type=notify`).

use std::{net::TcpStream, os::unix::net::UnixDatagram, time::Duration};

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
