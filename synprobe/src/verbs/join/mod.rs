//! `synprobe join`: two files of two hosts, joined handshake by handshake.

mod fact_stream;
mod line_types;
mod lines;
mod ndjson;
mod page;
mod recorded;
mod source;
mod summary;
mod wall_time;

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use source::JoinSource;

use super::{FAILED, Failure, USAGE};
use crate::{
    cli::{Format, JoinArgs},
    join::{are_swapped, clocks, connects::JoinCounts, joiner::Joiner, survey::SideSurvey},
    sys::{
        journal::{Priority, message},
        process,
    },
};

/// Bytes of output that are written at a time.
const CHUNK: usize = 256 * 1024;

/// A side: its file, and what the first pass found in it.
struct JoinedFile {
    source: JoinSource,
    survey: SideSurvey,
}

pub(super) fn run(args: &JoinArgs) -> Result<(), Failure> {
    if args.client == Path::new("-") && args.server == Path::new("-") {
        let line = "only one of the two can be standard input";
        return Err(Failure(line.to_owned(), USAGE));
    }
    // Facts are made by one thread and freed by another.
    if process::address_space().is_none() {
        process::share_arenas(2);
    }
    let (mut client, mut server) = (
        JoinSource::open(&args.client)?,
        JoinSource::open(&args.server)?,
    );
    let (mut ours, mut theirs) = std::thread::scope(|scope| {
        let other = scope.spawn(|| surveyed(&mut server));
        (
            surveyed(&mut client),
            other.join().unwrap_or_else(|_| Err(panicked())),
        )
    });
    let is_swapped = match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => are_swapped(ours, theirs),
        _ => false,
    };
    if is_swapped {
        message(
            Priority::Info,
            "the first file is the server's and the second the client's: joined the other way round",
        );
        std::mem::swap(&mut client, &mut server);
        std::mem::swap(&mut ours, &mut theirs);
    }
    let client = JoinedFile {
        source: client,
        survey: ours?,
    };
    let server = JoinedFile {
        source: server,
        survey: theirs?,
    };
    for side in [&client, &server] {
        side.warn();
    }
    let printed = print_joined(client, server, args.format, is_swapped);
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure(format!("join: {error}"), FAILED)),
        Ok(()) => Ok(()),
    }
}

impl JoinedFile {
    fn warn(&self) {
        if let Some(damage) = self.source.damage() {
            let name = self.source.name();
            message(Priority::Warning, &format!("{name}: {damage}"));
        }
    }
}

fn surveyed(source: &mut JoinSource) -> Result<SideSurvey, Failure> {
    let (facts, reading) = source.read()?;
    let survey = SideSurvey::of(facts);
    source.take_report(reading.finish()?);
    if survey.facts == 0 || survey.coverage.runs.is_empty() {
        let line = match survey.facts {
            0 => format!("{}: no line of synprobe in it", source.name()),
            _ => format!(
                "{}: no start line: it is no whole output of watch or diagnose",
                source.name()
            ),
        };
        return Err(Failure(line, USAGE));
    }
    Ok(survey)
}

fn print_joined(
    mut client: JoinedFile,
    mut server: JoinedFile,
    format: Format,
    is_swapped: bool,
) -> io::Result<()> {
    let clock = clocks(&client.survey, &server.survey);
    for survey in [&mut client.survey, &mut server.survey] {
        survey.client.clear_sample();
        survey.server.clear_sample();
    }
    let out = BufWriter::with_capacity(CHUNK, io::stdout().lock());
    let mut printer = lines::JoinPrinter::new(out, format);
    let failed = |failure: Failure| io::Error::other(failure.to_string());
    let (ours, reading) = client.source.read().map_err(failed)?;
    let (theirs, other) = server.source.read().map_err(failed)?;
    let counts = Joiner::new(&clock, &client.survey, &server.survey, |pair| {
        printer.pair(&pair)
    })
    .run(ours, theirs);
    reading.finish().map_err(failed)?;
    other.finish().map_err(failed)?;
    let summary = summary(&client, &server, counts, &clock, is_swapped);
    if counts.joined == 0 {
        message(Priority::Warning, &nothing_joined(&client, &server));
    }
    printer.finish(summary)?.flush()
}

fn summary(
    client: &JoinedFile,
    server: &JoinedFile,
    counts: JoinCounts,
    clock: &crate::join::clock::ClockModel,
    is_swapped: bool,
) -> summary::JoinSummary {
    let middle = client
        .survey
        .coverage
        .span()
        .map_or(0, |(from, to)| from + (to - from) / 2);
    let offset = clock.at(middle);
    summary::JoinSummary {
        client: summary::JoinSideSummary::of(client.source.name(), &client.survey),
        server: summary::JoinSideSummary::of(server.source.name(), &server.survey),
        swapped: is_swapped,
        joined: counts.joined,
        client_only: counts.client_only,
        server_only: counts.server_only,
        clock_offset_us: offset.map(|o| o.offset_ns.div_euclid(1000)),
        clock_error_us: offset.map(|o| (o.error_ns + 999) / 1000),
        clock_drift_ppm: clock.drift_ppm().map(|ppm| (ppm * 1e3).round() / 1e3),
    }
}

/// Why the files have no connect in common, as far as it shows.
fn nothing_joined(client: &JoinedFile, server: &JoinedFile) -> String {
    let (Some(ours), Some(theirs)) = (client.survey.coverage.span(), server.survey.coverage.span())
    else {
        return "the two files have no connect in common".to_owned();
    };
    let boots = |file: &JoinedFile| -> Vec<String> {
        let runs = file.survey.coverage.runs.iter();
        runs.filter_map(|run| run.start.boot_id.clone()).collect()
    };
    let theirs_boots = boots(server);
    if boots(client).iter().any(|boot| theirs_boots.contains(boot)) {
        return "the two files have no connect in common: both are of one host".to_owned();
    }
    let time = crate::join::pair::utc;
    if ours.1 < theirs.0 || theirs.1 < ours.0 {
        return format!(
            "the two files have no connect in common; by their own clocks the runs do not overlap: {} to {}, and \
             {} to {}",
            time(ours.0),
            time(ours.1),
            time(theirs.0),
            time(theirs.1),
        );
    }
    let lacks = match (
        client.survey.client.handshakes,
        server.survey.server.handshakes,
    ) {
        (0, 0) => ": neither has a handshake of its role",
        (0, _) => ": the client's has no active open",
        (_, 0) => ": the server's has no half-open",
        _ => "",
    };
    format!("the two files have no connect in common{lacks}")
}

fn panicked() -> Failure {
    Failure("a thread that read a file has failed".to_owned(), FAILED)
}
