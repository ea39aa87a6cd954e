//! How pairs are printed: as JSON lines, or as text.

use std::io::{self, Write};

use serde::Serialize;
use synprobe_engine::line_json;

use super::{
    super::terminal::{columns, page_style},
    page,
    summary::JoinSummary,
};
use crate::{
    cli::Format,
    join::{
        pair::{Pair, utc},
        problems::{PairProblem, PairProblems},
    },
};

/// Pairs of the text form that have a line of their own.
const LINES: u64 = 200;

/// A problem as a `problem` line has it. It is found when all pairs are judged, and does not change.
#[derive(Serialize)]
struct JoinedProblem<'a> {
    #[serde(flatten)]
    problem: &'a PairProblem,
    id: String,
    state: &'static str,
    since: String,
    until: Option<()>,
}

/// Prints pairs as they come, then the problems.
pub(super) struct JoinPrinter<W> {
    out: W,
    format: Format,
    problems: PairProblems,
    shown: u64,
    troubled: u64,
    last: Option<(i64, u64)>,
    /// The line under way, after what each begins with.
    body: Vec<u8>,
    failed: io::Result<()>,
}

impl<W: Write> JoinPrinter<W> {
    pub(super) fn new(out: W, format: Format) -> Self {
        Self {
            out,
            format,
            problems: PairProblems::default(),
            shown: 0,
            troubled: 0,
            last: None,
            body: Vec::new(),
            failed: Ok(()),
        }
    }

    /// Prints one. After an error nothing more.
    pub(super) fn pair(&mut self, pair: &Pair) {
        if self.failed.is_ok() {
            self.failed = self.print(pair);
        }
    }

    fn print(&mut self, pair: &Pair) -> io::Result<()> {
        self.problems.add(pair);
        let (at_ns, mono_ns) = pair.main_end().map_or((0, 0), |h| (h.at_ns, h.mono_ns));
        self.last = self.last.max(Some((at_ns, mono_ns)));
        match self.format {
            Format::Json => self.line("pair", (at_ns, mono_ns), pair),
            Format::Text if pair.verdict.is_none() => Ok(()),
            Format::Text => {
                self.troubled += 1;
                if self.shown == LINES {
                    return Ok(());
                }
                self.shown += 1;
                self.out
                    .write_all(page::pair_line(pair, columns()).as_bytes())
            }
        }
    }

    /// Prints the problems and the summary.
    pub(super) fn finish(mut self, summary: JoinSummary) -> io::Result<W> {
        std::mem::replace(&mut self.failed, Ok(()))?;
        let at = self.last.unwrap_or((0, 0));
        let problems = std::mem::take(&mut self.problems).ranked();
        match self.format {
            Format::Json => {
                for problem in &problems {
                    let line = JoinedProblem {
                        problem,
                        id: format!("{:x}-{}", at.0, problem.rank),
                        state: "opened",
                        since: utc(at.0),
                        until: None,
                    };
                    self.line("problem", at, &line)?;
                }
                self.line("join", at, &summary)?;
            }
            Format::Text => {
                let more = self.troubled - self.shown;
                let text = page::page(&problems, &summary, more, page_style());
                self.out.write_all(text.as_bytes())?;
            }
        }
        Ok(self.out)
    }

    fn line(
        &mut self,
        kind: &str,
        (at_ns, mono_ns): (i64, u64),
        body: &impl Serialize,
    ) -> io::Result<()> {
        self.body.clear();
        line_json::write(&mut self.body, body)?;
        let time = utc(at_ns);
        write!(
            self.out,
            "{{\"v\":1,\"type\":\"{kind}\",\"time\":\"{time}\",\"mono_ns\":{mono_ns},"
        )?;
        let members = self.body.strip_prefix(b"{").unwrap_or(&self.body);
        self.out.write_all(members)?;
        self.out.write_all(b"\n")
    }
}
