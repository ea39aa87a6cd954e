//! `synprobe watch`: every handshake as it happens.

use std::{
    io::{self, IsTerminal},
    thread,
};

use jiff::tz::TimeZone;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    Failure, failure, interrupted, notify_manager, raise_priority,
    record::report_recording,
    replay::{Asked, replay},
    terminal, view_of, watch_options,
};
use crate::{
    cli::{States, WatchArgs},
    filter::Detail,
    pipeline::{self, RecordTo, Stop, WatchOptions},
    preflight,
    status::{RunStatus, Served, StatusQueries, StatusRequest},
    util::format,
    verdict::Mode,
    view::{FirstHandshakes, TextOptions, View},
};

/// Peers that the summary of a run that goes on has.
const PEERS: usize = 20;

pub(super) fn run(args: &WatchArgs) -> Result<(), Failure> {
    if let Some(file) = &args.recording.replay {
        let mut view = view(args);
        let asked = Asked {
            select: &args.select,
            mode: Mode::AtOnce,
            duration: args.duration,
            count: args.count,
        };
        return replay(file, &asked, &mut view).map(drop);
    }
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let detail = watched(args);
    let options = WatchOptions {
        duration: args.duration,
        count: args.count,
        record: args.recording.record.clone().map(RecordTo::File),
        ..watch_options(&args.select, &args.tuning, detail, Mode::AtOnce)?
    };
    raise_priority(detail);
    let (requests, asked) = mpsc::channel(1);
    let served = Served {
        queries: StatusQueries {
            requests: asked,
            most_open: Some(0),
            record_into: None,
        },
        outputs: Vec::new(),
    };
    let stop = answering_quit(interrupted(), requests);
    let ready = Box::new(notify_manager);
    let watched = pipeline::watch_asked(&host, options, view(args), stop, ready, Some(served))
        .map_err(failure)?;
    report_recording(args.recording.record.as_deref(), watched.recorded.as_ref());
    Ok(())
}

fn view(args: &WatchArgs) -> FirstHandshakes<Box<dyn View + Send>> {
    let text = TextOptions {
        style: terminal::style(),
        namespaces: args.select.netns.is_none(),
        fold: !args.no_fold && io::stdout().is_terminal(),
        zone: match args.local_time {
            true => TimeZone::system(),
            false => TimeZone::UTC,
        },
    };
    FirstHandshakes::new(view_of(args.format, text), args.count)
}

/// Ends with `stop`. SIGQUIT prints the summary on standard error, and the run goes on.
fn answering_quit(mut stop: Stop, requests: mpsc::Sender<StatusRequest>) -> Stop {
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
            if requests.try_send(request).is_err() {
                continue;
            }
            tokio::select! {
                () = &mut stop => return,
                answer = answer => {
                    let Ok(status) = answer else { continue };
                    // The terminal may be slow, and the run does not wait for it.
                    let printing = thread::Builder::new().name("summary".into());
                    let _ = printing.spawn(move || eprint!("{}", summary(&status)));
                }
            }
        }
    })
}

/// The totals and the peers with most problems.
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
    text
}

fn watched(args: &WatchArgs) -> Detail {
    match (args.quiet, args.states) {
        (true, _) => Detail::Quiet { slow: args.slow },
        (false, States::All) => Detail::AllStates,
        (false, States::Handshake) => Detail::Handshakes,
    }
}
