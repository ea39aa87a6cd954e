//! `synprobe diagnose`: watch for a while, then list the problems.

use std::{
    io::{self, IsTerminal},
    path::Path,
    time::Duration,
};

use super::{
    DONE, Failure, PROBLEMS,
    countdown::Countdown,
    failure, interrupted, print_last, raise_priority,
    record::report_recording,
    replay::{Asked, replay},
    summary::{answering_quit, queries},
    terminal, view, watch_options,
};
use crate::{
    cli::{DiagnoseArgs, Format},
    filter::Detail,
    model::{Counted, Line, RunProgress},
    pipeline::{self, OnReady, RecordTo, WatchOptions},
    preflight,
    sys::journal::{Priority, message},
    util::format,
    verdict::Mode,
    view::{Page, PageCounts, Style, View, WallClock},
};

/// How long is watched where nothing else is asked for.
const WATCHED: Duration = Duration::from_secs(10);

pub(super) fn run(args: &DiagnoseArgs) -> Result<u8, Failure> {
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
    let is_text = args.format == Format::Text;
    let (requests, served) = queries();
    let mut stop = answering_quit(interrupted(), requests.clone());
    let mut countdown = None;
    let mut ready: OnReady = Box::new(|| ());
    match is_text
        .then(|| Countdown::new(duration, requests))
        .flatten()
    {
        Some((begun, ending)) => {
            (stop, countdown) = ending.with(stop);
            // A thread that begins now has what privileges are left.
            ready = Box::new(move || begun.begin());
        }
        None if is_text && io::stderr().is_terminal() => {
            let shown = format::duration(duration.as_micros() as u64);
            let text = format!("watching for {shown}; Ctrl-C ends early and prints the page");
            message(Priority::Info, &text);
        }
        None => (),
    }
    if is_text {
        raise_priority(detail);
    }
    let diagnosis = Diagnosis::new(args.format);
    let watched = pipeline::watch_asked(&host, options, diagnosis, stop, ready, Some(served));
    drop(countdown);
    let watched = watched.map_err(failure)?;
    report_recording(args.recording.record.as_deref(), watched.recorded.as_ref());
    let diagnosis = watched.view.unwrap_or_default();
    finish(
        args,
        &diagnosis.page,
        watched.socket_states,
        &watched.progress,
    )
}

fn replayed(args: &DiagnoseArgs, file: &Path) -> Result<u8, Failure> {
    let asked = Asked {
        select: &args.select,
        mode: Mode::AtTheEnd,
        duration: args.duration,
        count: None,
    };
    let mut diagnosis = Diagnosis::new(args.format);
    let replayed = replay(file, &asked, &mut diagnosis)?;
    finish(
        args,
        &diagnosis.page,
        replayed.socket_states,
        &replayed.progress,
    )
}

/// Prints the page, unless its lines are printed. Returns the exit code.
fn finish(
    args: &DiagnoseArgs,
    page: &Page,
    socket_states: Option<Counted>,
    progress: &RunProgress,
) -> Result<u8, Failure> {
    if args.format == Format::Text {
        let counts = PageCounts {
            at_start: progress.socket_states.as_ref(),
            at_end: &socket_states.unwrap_or_default(),
            in_progress: progress.in_progress,
        };
        let style = Style {
            lang: terminal::lang(args.language),
            ..terminal::page_style()
        };
        print_last(&page.text(&counts, style))?;
    }
    Ok(match args.exit_code && page.is_wrong() {
        true => PROBLEMS,
        false => DONE,
    })
}

/// The page, and with `--format json` every line as it comes.
#[derive(Default)]
struct Diagnosis {
    page: Page,
    lines: Option<Box<dyn View + Send>>,
}

impl Diagnosis {
    fn new(format: Format) -> Self {
        Self {
            page: Page::default(),
            lines: (format == Format::Json).then(|| view(format, true)),
        }
    }
}

impl View for Diagnosis {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        self.page.show(lines, clock)?;
        match &mut self.lines {
            Some(json) => json.show(lines, clock),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.lines {
            Some(json) => json.flush(),
            None => Ok(()),
        }
    }
}
