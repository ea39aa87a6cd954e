//! SIGQUIT: the summary so far on standard error. The run goes on.

use std::thread;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::countdown::so_far;
use crate::{
    pipeline::Stop,
    status::{RunStatus, Served, StatusQueries, StatusRequest},
    sys::journal::lines,
    util::format,
};

/// Peers that a summary has.
const PEERS: usize = 20;

/// Requests for the status of a run, and the run's end of them.
pub(super) fn queries() -> (mpsc::Sender<StatusRequest>, Served) {
    let (requests, asked) = mpsc::channel(1);
    let queries = StatusQueries {
        requests: asked,
        most_open: Some(0),
        record_into: None,
    };
    let served = Served {
        queries,
        outputs: Vec::new(),
    };
    (requests, served)
}

/// Ends with `stop`. SIGQUIT prints the summary on standard error, and the run goes on.
pub(super) fn answering_quit(mut stop: Stop, requests: mpsc::Sender<StatusRequest>) -> Stop {
    Box::pin(async move {
        let Ok(mut quit) = signal(SignalKind::quit()) else {
            return stop.await;
        };
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = quit.recv() => (),
            }
            let (request, answer) = StatusRequest::new();
            tokio::select! {
                () = &mut stop => return,
                sent = requests.send(request) => if sent.is_err() { continue },
            }
            tokio::select! {
                () = &mut stop => return,
                answer = answer => {
                    let Ok(status) = answer else { continue };
                    // The terminal may be slow, and the run does not wait for it.
                    let printing = thread::Builder::new().name("summary".into());
                    let _ = printing.spawn(move || lines(&summary(&status)));
                }
            }
        }
    })
}

/// The totals, the causes, and the peers with most problems.
fn summary(status: &RunStatus) -> String {
    let snapshot = &status.snapshot;
    let totals = &snapshot.totals;
    let mut text = format!(
        "synprobe: {} handshakes ended, {} in progress; {} kernel records, {} lost, {} handshakes evicted\n",
        totals.handshakes, snapshot.open_total, totals.events, totals.lost, totals.evicted
    );
    for p in snapshot.peers.iter().take(PEERS) {
        text.push_str(&format!(
            "  {} {}: {} attempts, {} ok, {} failed, {} open, p50 {}, p99 {}\n",
            p.peer_addr,
            p.role.name(),
            p.attempts,
            p.established,
            p.failed,
            p.open,
            format::maybe(p.dwell_p50_us),
            format::maybe(p.dwell_p99_us),
        ));
    }
    if let more @ 1.. = snapshot.peers.len().saturating_sub(PEERS) {
        text.push_str(&format!("  and {more} more peers\n"));
    }
    text.push_str(&format!("{}\n", so_far(snapshot)));
    text
}
