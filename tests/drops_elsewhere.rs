//! Packets that are dropped in another namespace than the selected one. The kernel tests run these alone: their drops
//! would be records of every other run.

use std::{
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use synprobe::{
    filter::Selection,
    model::{Body, Confidence, Line, Role, VerdictKind},
};
use synprobe_lab::{
    Client, FaultInjector, Lab, LossPattern, PORT, Server, SocketFamily, settle, syn,
};
use synprobe_tests::{
    harness::{self, Case, Undecided},
    kernel::Capabilities,
    pipeline_run::{self, watch},
};

fn main() -> ExitCode {
    let mut cases = Vec::new();
    // Before Linux 5.17 dropped packets have no reason.
    if harness::host().is_ok_and(|host| Capabilities::of(host).drops) {
        for family in SocketFamily::ALL {
            cases.push(Case::for_family("dropped-elsewhere", family, dropped));
            cases.push(Case::for_family("refused-elsewhere", family, refused));
            cases.push(Case::for_family(
                "refused-at-the-server",
                family,
                refused_here,
            ));
        }
    }
    harness::main(cases)
}

/// One namespace and one role are selected. Another namespace drops the client's first SYN, and is found.
fn dropped(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let mut options = pipeline_run::options(Selection {
        netns: Some([lab.client.inode(); 2]),
        role: Some(Role::Client),
        peer_ports: PORT.to_string().parse()?,
        ..Selection::default()
    });
    options.namespaces = vec![lab.client.netns()];
    let server = Server::start(vec![lab.listen(PORT, 64)?])?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.drop_here(0, syn(), LossPattern::First(1), PORT)?;
    let (_, watched) = watch(options, |_| {
        let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
        let until = Instant::now() + Duration::from_secs(20);
        settle([&mut client], &AtomicBool::new(false), until)?;
        Ok(client)
    })?;
    server.stop()?;
    ensure!(fault.count(0)?.dropped == 1, "one SYN was dropped");
    let all: Vec<_> = watched.handshakes().collect();
    let [(_, h)] = all[..] else {
        bail!("one handshake is due: {all:#?}");
    };
    if watched.end.lost > 0 {
        bail!(Undecided(format!("{} records were lost", watched.end.lost)));
    }
    // By its name, or by its inode where that was not looked up.
    let there = lab.server.inode().to_string();
    ensure!(
        h.verdict == Some(VerdictKind::DroppedHere)
            && h.confidence == Confidence::Certain
            && h.evidence.iter().any(|e| e.fact.contains(&there)),
        "{h:#?}"
    );
    Ok(())
}

const CLIENTS: u64 = 3;

/// Clients call a port of the server's on which nothing listens, one after the other.
fn call_in_vain(lab: &Lab) -> Result<()> {
    for _ in 0..CLIENTS {
        let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
        let until = Instant::now() + Duration::from_secs(20);
        settle([&mut client], &AtomicBool::new(false), until)?;
    }
    Ok(())
}

/// The client's namespace is selected. That its SYNs found no socket is seen in the server's.
fn refused(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let mut options = pipeline_run::options(Selection {
        netns: Some([lab.client.inode(); 2]),
        ..Selection::default()
    });
    options.namespaces = vec![lab.client.netns()];
    let (_, watched) = watch(options, |_| call_in_vain(&lab))?;
    let watched = watched.complete()?;
    let all: Vec<_> = watched.handshakes().collect();
    ensure!(all.len() as u64 == CLIENTS, "{all:#?}");
    let there = lab.server.inode().to_string();
    for (_, h) in all {
        let told = |fact: &str| fact.contains(&there) && fact.contains("NO_SOCKET");
        ensure!(
            h.verdict == Some(VerdictKind::Refused)
                && h.confidence == Confidence::Certain
                && h.evidence.iter().any(|e| e.supports && told(&e.fact)),
            "{h:#?}"
        );
    }
    let of_server = |line: &&Line| matches!(line.body, Body::SynRefused(_));
    ensure!(
        watched.lines.iter().find(of_server).is_none(),
        "not selected"
    );
    Ok(())
}

/// The server's namespace is selected: its lines account for each RST that it sent.
fn refused_here(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let mut options = pipeline_run::options(Selection {
        netns: Some([lab.server.inode(); 2]),
        ..Selection::default()
    });
    options.namespaces = vec![lab.server.netns()];
    let before = lab.counters()?;
    let (_, watched) = watch(options, |_| call_in_vain(&lab))?;
    let watched = watched.complete()?;
    let sent = lab.counters()?.since(&before).server.get("OutRsts");
    let last = watched
        .lines
        .iter()
        .rev()
        .find_map(|line| match &line.body {
            Body::SynRefused(refused) => Some(refused),
            _ => None,
        });
    let refused = last.context("no line")?;
    ensure!(
        refused.reason.as_deref() == Some("NO_SOCKET")
            && refused.local_port == Some(PORT)
            && (refused.count, sent) == (CLIENTS, CLIENTS),
        "{sent} RSTs: {refused:#?}"
    );
    ensure!(watched.end.syns_refused == CLIENTS, "{:#?}", watched.end);
    Ok(())
}
