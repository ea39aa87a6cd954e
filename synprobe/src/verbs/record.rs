//! `synprobe record`: a run into a file, or into a folder of which only the last part stays.

use std::path::Path;

use super::{
    FAILED, Failure, USAGE, failure, interrupted, notify_manager, print, print_last,
    raise_priority,
    summary::{answering_quit, queries},
    watch_options,
};
use crate::{
    cli::RecordArgs,
    filter::Detail,
    model::{End, WallClock},
    pipeline::{self, RecordTo, WatchOptions},
    preflight, recording,
    status::RecordSummary,
    sys::{
        journal::{Priority, message},
        privileges,
    },
    util::format,
    verdict::Mode,
    view::{Discarded, rfc3339},
};

pub(super) fn run(args: &RecordArgs) -> Result<(), Failure> {
    if let (Some(output), Some(from)) = (&args.cut, &args.from) {
        return cut(args, from, output);
    }
    let to = match (&args.output, &args.rolling) {
        (Some(file), _) => RecordTo::File(file.clone()),
        (_, Some(folder)) => RecordTo::Rolling {
            folder: folder.clone(),
            keep: args.keep,
            max_size: args.max_size,
            problems: 0,
        },
        _ => {
            return Err(Failure(
                "give --output FILE or --rolling DIR".to_owned(),
                USAGE,
            ));
        }
    };
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let detail = match args.quiet {
        true => Detail::Quiet { slow: args.slow },
        false => Detail::Handshakes,
    };
    let options = WatchOptions {
        duration: args.duration,
        record: Some(to),
        enters_dropping: false,
        count_sockets: true,
        ..watch_options(&args.select, &args.tuning, detail, Mode::AtOnce)?
    };
    raise_priority(detail);
    let ready = Box::new(notify_manager);
    let (requests, served) = queries();
    let stop = answering_quit(interrupted(), requests);
    let watched = pipeline::watch_asked(&host, options, Discarded, stop, ready, Some(served))
        .map_err(failure)?;
    let recorded = watched.recorded.unwrap_or_default();
    let place = args.output.as_ref().or(args.rolling.as_ref());
    let place = place.map(|path| path.to_string_lossy().into_owned());
    print_last(&summary(
        &place.unwrap_or_default(),
        &watched.end,
        &recorded,
    ))?;
    match recorded.error {
        Some(error) => Err(Failure(
            format!("the recording is not complete: {error}"),
            FAILED,
        )),
        None => Ok(()),
    }
}

/// `recorded 60.0 s into incident.synrec: 4210 handshakes, 18,233 inputs, 1.2 MiB; 0 lost`
fn summary(place: &str, end: &End, recorded: &RecordSummary) -> String {
    let lost = match (end.lost, recorded.lost) {
        (0, 0) => "nothing lost".to_owned(),
        (records, 0) => format!("{records} kernel records lost"),
        (records, inputs) => {
            format!("{records} kernel records lost, {inputs} inputs not recorded")
        }
    };
    format!(
        "recorded {} into {}: {} handshakes, {} inputs, {}; {lost}\n",
        format::duration(end.duration_us),
        format::safe(place),
        end.handshakes + end.counted,
        recorded.frames,
        format::bytes(recorded.bytes),
    )
}

/// One line on standard error about a recording beside the output.
pub(super) fn report_recording(file: Option<&Path>, recorded: Option<&RecordSummary>) {
    let (Some(file), Some(recorded)) = (file, recorded) else {
        return;
    };
    let place = file.to_string_lossy();
    let (priority, text) = match (&recorded.error, recorded.lost) {
        (Some(error), lost) => (
            Priority::Warning,
            format!("{place} is not complete: {error}; {lost} inputs are not in it"),
        ),
        (None, 0) => (
            Priority::Info,
            format!("recorded into {place}, {}", format::bytes(recorded.bytes)),
        ),
        (None, lost) => (
            Priority::Warning,
            format!("{place} is not complete: {lost} inputs are not in it"),
        ),
    };
    message(priority, &text);
}

fn cut(args: &RecordArgs, from: &Path, output: &Path) -> Result<(), Failure> {
    let cut = privileges::as_the_caller(|| recording::cut(from, args.last, output));
    let cut = cut.map_err(|error| Failure(format!("a thread: {error}"), FAILED))?;
    let report = cut.map_err(|error| {
        let code = match error {
            recording::CutError::Write { .. } | recording::CutError::Create(_) => FAILED,
            _ => USAGE,
        };
        Failure(error.to_string(), code)
    })?;
    let time = |ns: Option<i64>| {
        ns.map_or_else(
            || "an unknown time".to_owned(),
            |ns| rfc3339(WallClock::from_offset(ns.into()), 0),
        )
    };
    print(&format!(
        "cut {} into {}: {} to {}, {} inputs, {}\n",
        format::safe(&from.to_string_lossy()),
        format::safe(&output.to_string_lossy()),
        time(report.first_realtime_ns),
        time(report.last_realtime_ns),
        report.frames,
        format::bytes(report.bytes),
    ))?;
    if report.damaged_segments > 0 {
        let text = format!(
            "{} segments are damaged: {} bytes are left out",
            report.damaged_segments, report.skipped_bytes
        );
        message(Priority::Warning, &text);
    }
    Ok(())
}
