//! `synprobe diagnose`: watch for a while, then list the problems.

use std::{
    io::{self, IsTerminal},
    path::Path,
    time::Duration,
};

use super::{
    Failure, failure, in_colour, interrupted, print, raise_priority,
    record::report_recording,
    replay::{Asked, replay},
    view, watch_options,
};
use crate::{
    cli::{DiagnoseArgs, Format},
    filter::Detail,
    pipeline::{self, RecordTo, WatchOptions},
    preflight,
    sys::journal::{Priority, message},
    util::format,
    verdict::Mode,
    view::Page,
};

/// How long is watched where nothing else is asked for.
const WATCHED: Duration = Duration::from_secs(10);

pub(super) fn run(args: &DiagnoseArgs) -> Result<(), Failure> {
    if let Some(file) = &args.recording.replay {
        return replayed(args, file);
    }
    let duration = args.duration.unwrap_or(WATCHED);
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let detail = match args.every {
        true => Detail::Handshakes,
        false => Detail::Quiet { slow: args.slow },
    };
    let options = WatchOptions {
        duration: Some(duration),
        record: args.recording.record.clone().map(RecordTo::File),
        enters_dropping: false,
        count_sockets: args.format == Format::Text,
        ..watch_options(&args.select, &args.tuning, detail, Mode::AtTheEnd)?
    };
    if args.format == Format::Json {
        let view = view(args.format, true);
        let watched = pipeline::watch(&host, options, view, interrupted(), Box::new(|| ()))
            .map_err(failure)?;
        report_recording(args.recording.record.as_deref(), watched.recorded.as_ref());
        return Ok(());
    }
    if io::stderr().is_terminal() {
        let shown = format::duration(duration.as_micros() as u64);
        let text = format!("watching for {shown}; Ctrl-C ends early and prints the page");
        message(Priority::Info, &text);
    }
    raise_priority(detail);
    let watched = pipeline::watch(
        &host,
        options,
        Page::default(),
        interrupted(),
        Box::new(|| ()),
    )
    .map_err(failure)?;
    report_recording(args.recording.record.as_deref(), watched.recorded.as_ref());
    let counted = watched.socket_states.unwrap_or_default();
    let page = watched.view.unwrap_or_default();
    print(&page.text(&counted, in_colour()))
}

fn replayed(args: &DiagnoseArgs, file: &Path) -> Result<(), Failure> {
    let asked = Asked {
        select: &args.select,
        mode: Mode::AtTheEnd,
        duration: args.duration,
        count: None,
    };
    if args.format == Format::Json {
        let mut view = view(args.format, true);
        return replay(file, &asked, &mut *view).map(drop);
    }
    let mut page = Page::default();
    let replayed = replay(file, &asked, &mut page)?;
    let counted = replayed.socket_states.unwrap_or_default();
    print(&page.text(&counted, in_colour()))
}
