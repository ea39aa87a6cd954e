//! Text: a heading, one row an event, then the peers, those with most problems first.

mod events;
mod fold;
mod row;
mod summary;

use std::{
    collections::HashSet,
    io::{self, Write},
};

use jiff::{Timestamp, tz::TimeZone};

use super::{Style, View, WallClock};
use crate::{
    model::{Body, Line, TcpState},
    util::{fill::fill, format},
};
use fold::Fold;
use row::{Columns, EventRow};

#[derive(Clone, Copy, Debug)]
enum Colour {
    Plain,
    Dim,
    Green,
    Yellow,
    Red,
}

/// How lines are printed as text.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Width and colours.
    pub style: Style,
    /// Whether the namespace of each line is printed, unless it is the host's own.
    pub namespaces: bool,
    /// Whether rows of one kind, listener and second become one.
    pub fold: bool,
    /// The time zone of the rows' times.
    pub zone: TimeZone,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            style: Style::default(),
            namespaces: true,
            fold: false,
            zone: TimeZone::UTC,
        }
    }
}

/// Prints lines as text.
pub struct TextView<W> {
    out: W,
    style: Style,
    columns: Columns,
    namespaces: bool,
    zone: TimeZone,
    fold: Option<Fold>,
    clock: WallClock,
    /// The date of the last row.
    date: Option<String>,
    peers: usize,
    /// The mode and what is not seen in it, for the end.
    mode: Option<String>,
}

impl<W: Write> TextView<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W, options: TextOptions) -> Self {
        Self {
            out,
            style: options.style,
            columns: Columns::of(options.style.width),
            namespaces: options.namespaces,
            zone: options.zone,
            fold: options.fold.then(Fold::default),
            clock: WallClock::default(),
            date: None,
            peers: 0,
            mode: None,
        }
    }

    /// Returns the output.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Plain => "",
            Colour::Dim => "2",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
        };
        self.style.paint(code, text)
    }

    /// Text in lines that fit.
    fn filled(&mut self, colour: Colour, text: &str) -> io::Result<()> {
        for line in fill("", "  ", text, self.style.width) {
            writeln!(self.out, "{}", self.paint(colour, &line))?;
        }
        Ok(())
    }

    /// `2026-01-02`, `03:04:05.678`
    fn date_and_time(&self, mono_ns: u64) -> (String, String) {
        let ns = self.clock.realtime_ns(mono_ns);
        let at = Timestamp::from_nanosecond(ns).unwrap_or_default();
        let at = at.to_zoned(self.zone.clone());
        let time = at.strftime("%H:%M:%S%.3f").to_string();
        (at.strftime("%Y-%m-%d").to_string(), time)
    }

    /// `2026-01-02 UTC`
    fn day(&self, mono_ns: u64) -> String {
        let ns = self.clock.realtime_ns(mono_ns);
        let at = Timestamp::from_nanosecond(ns).unwrap_or_default();
        at.to_zoned(self.zone.clone())
            .strftime("%Y-%m-%d %Z")
            .to_string()
    }

    /// The time of a row. A new day has a line.
    fn time(&mut self, mono_ns: u64) -> io::Result<String> {
        let (date, time) = self.date_and_time(mono_ns);
        if self.date.as_ref().is_some_and(|last| *last < date) {
            self.sums()?;
            let day = self.day(mono_ns);
            writeln!(self.out, "{}", self.paint(Colour::Dim, &day))?;
            self.date = Some(date);
        } else if self.date.is_none() {
            self.date = Some(date);
        }
        Ok(time)
    }

    /// Prints a row, or counts it with others of its kind.
    fn row(&mut self, netns: u32, kind: &str, row: EventRow) -> io::Result<()> {
        let Some(fold) = &mut self.fold else {
            return self.print(&row);
        };
        let (sums, row) = fold.take(netns, kind, row);
        sums.iter().chain(&row).try_for_each(|row| self.print(row))
    }

    /// Prints what waits for the end of its second.
    fn sums(&mut self) -> io::Result<()> {
        let sums = self.fold.as_mut().map(Fold::sums).unwrap_or_default();
        sums.iter().try_for_each(|row| self.print(row))
    }

    fn print(&mut self, row: &EventRow) -> io::Result<()> {
        let paint = |colour, text: &str| self.paint(colour, text);
        for line in self.columns.lines(row, paint) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    fn line(&mut self, line: &Line, over: &HashSet<u64>) -> io::Result<()> {
        let at = line.mono_ns;
        if !is_event(&line.body) {
            self.sums()?;
        }
        match &line.body {
            Body::Start(s) => self.start(at, s),
            Body::State(s) => {
                let begins = s.new.is_handshake() && !s.old.is_handshake();
                // The handshake line reports a handshake that ended at once.
                if !has_row(&line.body) || begins && over.contains(&s.connection.id) {
                    return Ok(());
                }
                self.state(at, s)
            }
            Body::Retransmit(r) => self.retransmit(at, r),
            Body::Handshake(h) => self.handshake(at, h),
            Body::SynRefused(r) => self.syn_refused(at, r),
            Body::ConnectionReset(r) => self.connection_reset(at, r),
            Body::Peer(p) => self.peer(p),
            Body::Completed(c) => self.completed(c),
            Body::Problem(p) => self.problem(p),
            // The verbs that have them print a page or a table.
            Body::Listener(_) | Body::Connect(_) => Ok(()),
            Body::Lost(l) => {
                let time = self.time(at)?;
                let text = format!("{time} LOST {}: {}", l.events, format::safe(&l.reason));
                self.filled(Colour::Red, &text)
            }
            Body::End(e) => self.end(e),
        }
    }
}

/// Whether a row takes two lines: the second one begins with the event.
#[cfg(feature = "top")]
pub(crate) fn needs_two_lines(width: usize) -> bool {
    Columns::of(width).is_narrow()
}

/// Whether an event has a row of its own: the row of its handshake reports the end of one.
pub(crate) fn has_row(body: &Body) -> bool {
    match body {
        Body::State(s) => !s.old.is_handshake() || s.new == TcpState::SynRecv,
        Body::Lost(_) => true,
        other => is_event(other),
    }
}

/// Whether it is a row.
fn is_event(body: &Body) -> bool {
    matches!(
        body,
        Body::State(_)
            | Body::Retransmit(_)
            | Body::Handshake(_)
            | Body::SynRefused(_)
            | Body::ConnectionReset(_)
    )
}

impl<W: Write> View for TextView<W> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        self.clock = clock;
        let over: HashSet<u64> = lines
            .iter()
            .filter_map(|line| match &line.body {
                Body::Handshake(h) => Some(h.connection.id),
                _ => None,
            })
            .collect();
        // Half-opens that raise no event are found by a look at the kernel's tables, later than what came since.
        let mut ordered: Vec<&Line> = lines.iter().collect();
        for events in ordered.chunk_by_mut(|a, b| is_event(&a.body) && is_event(&b.body)) {
            events.sort_by_key(|line| line.mono_ns);
        }
        ordered
            .into_iter()
            .try_for_each(|line| self.line(line, &over))
    }

    fn waits(&self) -> bool {
        self.fold.as_ref().is_some_and(Fold::waits)
    }

    fn rest(&mut self) -> io::Result<()> {
        self.sums()?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn join(parts: &[&str]) -> String {
    let parts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).copied().collect();
    parts.join(", ")
}
