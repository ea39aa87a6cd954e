//! Packets that are dropped in another namespace than the selected one. The kernel tests run these alone: their drops
//! would be records of every other run.

use std::{
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use synprobe::{
    filter::Selection,
    model::{Confidence, Role, VerdictKind},
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
