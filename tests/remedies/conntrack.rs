//! A full table of connection tracking.

use std::{fmt::Write as _, fs, sync::Mutex};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{SocketFamily, beyond_server};
use synprobe_tests::{agent::until, harness::figure};

use super::stage::{Stage, tool};

/// The limit of the whole host. The test fills a table up to it, and never lowers it.
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// A larger table is not filled: each entry takes 320 bytes of the kernel.
const FILLED: usize = 300_000;

/// Sets the limit back, whatever happens.
struct Limit(String);

impl Drop for Limit {
    fn drop(&mut self) {
        if let Err(error) = fs::write(MAX, &self.0) {
            eprintln!("{MAX}: {error}");
        }
    }
}

/// The table of the server's namespace is full of connections that are in use, and none may make room.
pub fn full(family: SocketFamily) -> Result<()> {
    /// One family at a time: the limit is one.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let stage = Stage::new("dropped-here, the conntrack table is full", family)?;
    let server = &stage.lab.server;
    // A rule that needs connection tracking switches it on.
    for command in [
        "nft add table inet lab".to_owned(),
        "nft add chain inet lab input '{ type filter hook input priority 0; }'".to_owned(),
        "nft add rule inet lab input ct state established accept".to_owned(),
    ] {
        if !tool(&stage.name, &(stage.enter(server) + &command))? {
            return Ok(());
        }
    }
    let Ok(text) = fs::read_to_string(MAX) else {
        figure(format!("{}: not run: {MAX} is not there", stage.name));
        return Ok(());
    };
    let limit: usize = text.trim().parse()?;
    if limit > FILLED || fs::write(MAX, text.trim()).is_err() {
        figure(format!(
            "{}: not run: the limit is {limit}, or cannot be set here",
            stage.name
        ));
        return Ok(());
    }
    let _limit = Limit(text.trim().to_owned());
    let _listener = stage.lab.listen(stage.port, 128)?;
    let v6 = family.wire_is_v6();
    let (from, to) = (beyond_server(v6, 0), beyond_server(v6, 1));
    let mut entries = String::new();
    for n in 0..limit + 64 {
        let (sport, dport) = (1 + n % 60_000, 1 + n / 60_000);
        writeln!(
            entries,
            "-I -p tcp -s {from} -d {to} --sport {sport} --dport {dport} --state ESTABLISHED -u \
             ASSURED,SEEN_REPLY -t 600"
        )?;
    }
    let file = std::env::temp_dir().join(format!("synprobe-conntrack-{}", stage.port));
    fs::write(&file, entries)?;
    // The last ones find the table full.
    let fill = format!("conntrack -R {} || true", file.display());
    let filled = tool(&stage.name, &(stage.enter(server) + &fill));
    fs::remove_file(&file).context("the list of entries")?;
    if !filled? {
        return Ok(());
    }
    let remedies = stage.told("dropped-here", || {
        let clients = [stage.fails()?, stage.fails()?, stage.fails()?];
        until("SYNs are sent again", || Ok(clients[2].retransmits()? > 0))
    })?;
    let raise = format!("sysctl -w net.netfilter.nf_conntrack_max={}", 2 * limit);
    ensure!(
        remedies.iter().any(|r| r.contains(&raise)),
        "{raise}: {remedies:?}"
    );
    stage.mended(&remedies, &[], None, || stage.connects().map(drop))
}
