//! `synprobe watch`: every handshake as it happens.

use std::io::{self, IsTerminal};

use jiff::tz::TimeZone;

use super::{
    Failure, failure, interrupted, notify_manager, raise_priority,
    record::report_recording,
    replay::{Asked, replay},
    summary::{answering_quit, queries},
    terminal, view_of, watch_options,
};
use crate::{
    cli::{States, WatchArgs},
    filter::Detail,
    pipeline::{self, RecordTo, WatchOptions},
    preflight,
    verdict::Mode,
    view::{FirstHandshakes, TextOptions, View},
};

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
    let (requests, served) = queries();
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

fn watched(args: &WatchArgs) -> Detail {
    match (args.quiet, args.states) {
        (true, _) => Detail::Quiet { slow: args.slow },
        (false, States::All) => Detail::AllStates,
        (false, States::Handshake) => Detail::Handshakes,
    }
}
