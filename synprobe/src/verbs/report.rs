//! `synprobe report`: one HTML file of a recording or of a run.

use std::{
    fs::{self, File, Metadata},
    io::{self, IsTerminal, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use super::{
    FAILED, Failure, USAGE, failure, interrupted, print_last, raise_priority,
    replay::{Asked, replay},
    summary::{answering_quit, queries},
    terminal, watch_options,
};
use crate::{
    cli::ReportArgs,
    filter::Detail,
    model::Counted,
    pipeline::{self, WatchOptions},
    preflight, recording,
    report::HtmlReport,
    sys::journal::{Priority, message},
    util::format,
    verdict::Mode,
};

/// How long is watched where nothing else is asked for.
const WATCHED: Duration = Duration::from_secs(10);

pub(super) fn run(args: &ReportArgs) -> Result<(), Failure> {
    match &args.replay {
        Some(file) => replayed(args, file),
        None => watched(args),
    }
}

fn replayed(args: &ReportArgs, file: &Path) -> Result<(), Failure> {
    let output = ReportFile::open(&args.output)?;
    if output.is_at(file) {
        let line = "--output and --replay name the same file";
        return Err(Failure(line.to_owned(), USAGE));
    }
    let asked = Asked {
        select: &args.select,
        mode: Mode::AllAtTheEnd,
        duration: args.duration,
        count: None,
    };
    let mut report = HtmlReport::new(terminal::lang(args.language));
    let replayed = replay(file, &asked, &mut report)?;
    if let Some(damage) = replayed.damage {
        report.add_blind_spot(damage);
    }
    output.write(&report, &replayed.socket_states.unwrap_or_default())
}

fn watched(args: &ReportArgs) -> Result<(), Failure> {
    let duration = args.duration.unwrap_or(WATCHED);
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    // With all privileges: the run gives up those that its folder may need.
    let output = ReportFile::open(&args.output)?;
    let detail = match args.quiet {
        true => Detail::Quiet { slow: args.slow },
        false => Detail::Handshakes,
    };
    let options = WatchOptions {
        duration: Some(duration),
        record: None,
        enters_dropping: false,
        count_sockets: true,
        ..watch_options(&args.select, &args.tuning, detail, Mode::AllAtTheEnd)?
    };
    if io::stderr().is_terminal() {
        let shown = format::duration(duration.as_micros() as u64);
        let line = format!("watching for {shown}; Ctrl-C ends early and writes the report");
        message(Priority::Info, &line);
    }
    raise_priority(detail);
    let (requests, served) = queries();
    let watched = pipeline::watch_asked(
        &host,
        options,
        HtmlReport::new(terminal::lang(args.language)),
        answering_quit(interrupted(), requests),
        Box::new(|| ()),
        Some(served),
    )
    .map_err(failure)?;
    let report = watched
        .view
        .ok_or_else(|| Failure("the report stopped reading".to_owned(), FAILED))?;
    output.write(&report, &watched.socket_states.unwrap_or_default())
}

/// The file of a report: opened before the run, written after it.
struct ReportFile<'p> {
    path: &'p Path,
    file: File,
    /// It was not there before: a run that fails leaves none.
    is_new: bool,
    is_written: bool,
}

impl<'p> ReportFile<'p> {
    /// Opens or creates it. An existing file keeps its content until the report is there.
    fn open(path: &'p Path) -> Result<Self, Failure> {
        let is_new = fs::symlink_metadata(path).is_err();
        let file = recording::create_or_open(path)
            .map_err(|error| Failure(format!("the report: {error}"), FAILED))?;
        Ok(Self {
            path,
            file,
            is_new,
            is_written: false,
        })
    }

    /// Whether it is that file too.
    fn is_at(&self, other: &Path) -> bool {
        let same =
            |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        match (self.file.metadata(), fs::metadata(other)) {
            (Ok(one), Ok(other)) => same(&one, &other),
            _ => false,
        }
    }

    fn write(mut self, report: &HtmlReport, states: &Counted) -> Result<(), Failure> {
        let html = report.html(states);
        let written = self.replace(html.as_bytes());
        written.map_err(|error| cannot(self.path, &error))?;
        self.is_written = true;
        let line = format!(
            "{} Report: {} ({} KiB)",
            report.conclusion(),
            format::safe(&self.path.to_string_lossy()),
            html.len().div_ceil(1024),
        );
        print_last(&format!("{}\n", report.lang().say(&line)))
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(bytes)?;
        self.file.flush()
    }
}

impl Drop for ReportFile<'_> {
    fn drop(&mut self) {
        if self.is_new && !self.is_written {
            // An empty file is no report. If it stays, it is seen to be empty.
            let _ = fs::remove_file(self.path);
        }
    }
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    let path = path.to_string_lossy();
    Failure(format!("the report: {path}: {error}"), FAILED)
}
