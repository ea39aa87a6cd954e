//! The SYN queue limit differs between kernels and between their stable releases. The limit that synprobe
//! reports is compared with the actual one.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use synprobe_lab::{Lab, PORT, RawSender, SocketFamily, spoofed};
use synprobe_tests::{
    binary::{netns_path, run},
    harness::figure,
    schema,
};

/// SYNs beyond the backlog.
const TOO_MANY: u16 = 8;
const BACKLOGS: [u16; 3] = [1, 5, 64];

/// `syn_queue_max` is one less than what the kernel lets in, on every kernel and whatever it does with
/// the rest.
pub fn syn_queue_limit(cookies: u32) -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let turned_away = match cookies {
        0 => "TCPReqQFullDrop",
        _ => "TCPReqQFullDoCookies",
    };
    lab.server
        .set_sysctl("ipv4/tcp_syncookies", &cookies.to_string())?;
    lab.server.set_sysctl("ipv4/tcp_max_syn_backlog", "4096")?;
    let sender = RawSender::open(&lab.client, false)?;
    for (n, backlog) in BACKLOGS.into_iter().enumerate() {
        let port = PORT + u16::try_from(n)?;
        let _listener = lab.listen(port, backlog.into())?;
        let before = lab.counters()?.server;
        let server = SocketAddr::new(lab.server_ip(), port);
        for n in 0..backlog + TOO_MANY {
            sender.syn(SocketAddr::new(spoofed(false, n), 40_000), server, 7)?;
        }
        let turned_away = lab.counters()?.server.since(&before).get(turned_away);
        let fit = lab.half_opens(port)?;
        ensure!(
            fit as u64 + turned_away == u64::from(backlog + TOO_MANY),
            "{fit} let in and {turned_away} turned away, of {} SYNs",
            backlog + TOO_MANY
        );
        let ports = port.to_string();
        let netns = netns_path(&lab.server);
        let ran = run(&[
            "listeners",
            "--format",
            "json",
            "--netns",
            &netns,
            "--port",
            &ports,
        ])?;
        let lines = schema::check(ran.out.lines())?;
        let line = lines.first().with_context(|| format!("{ran:?}"))?;
        ensure!(
            line["syn_queue"] == fit && line["syn_queue_max"] == fit - 1,
            "{fit} fit where the backlog is {backlog}: {line}"
        );
        figure(format!("backlog {backlog}: {fit} half-opens fit"));
    }
    Ok(())
}
