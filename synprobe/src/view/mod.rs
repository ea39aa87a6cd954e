//! Views: every one reads the same model, and none knows where a line comes from.

pub mod explanation;
mod first;
mod json;
pub mod listeners;
pub mod packet_path;
mod page;
pub mod remedy;
pub mod states;
mod style;
#[cfg(test)]
mod tests;
mod text;

use std::io;

pub use first::FirstHandshakes;
pub use json::{JsonView, WithLife, line_to_json, to_json};
#[cfg(feature = "top")]
pub(crate) use page::tie;
pub use page::{Page, PageCounts};
pub(crate) use page::{effect, place, steps};
pub use style::{Style, WIDTH};
pub use text::{TextOptions, TextView};
#[cfg(feature = "top")]
pub(crate) use text::{has_row, needs_two_lines};

pub use crate::model::WallClock;
use crate::model::{Line, QueueSample, Start};

/// RFC 3339, UTC, microseconds: the wall-clock time of a moment of CLOCK_MONOTONIC.
pub fn rfc3339(clock: WallClock, mono_ns: u64) -> String {
    Stamps::new(clock).rfc3339(mono_ns).to_owned()
}

/// Formats the times of many lines: within one second only the last digits change.
struct Stamps {
    clock: WallClock,
    /// The second that `text` stands for, since 1970.
    second: Option<i64>,
    text: String,
}

/// `2026-01-02T03:04:05`
const UP_TO_THE_SECOND: usize = 19;

impl Stamps {
    fn new(clock: WallClock) -> Self {
        Self {
            clock,
            second: None,
            text: String::new(),
        }
    }

    /// RFC 3339, UTC, microseconds.
    fn rfc3339(&mut self, mono_ns: u64) -> &str {
        let ns = self.clock.realtime_ns(mono_ns);
        let micros = i64::try_from(ns).unwrap_or(0).div_euclid(1000);
        let second = micros.div_euclid(1_000_000);
        if self.second != Some(second) {
            // RFC 3339 ends with the year 9999.
            let time = jiff::Timestamp::from_second(second).unwrap_or_default();
            self.text = format!("{time:.6}");
            self.second = Some(second);
        }
        self.text.truncate(UP_TO_THE_SECOND);
        // The leading 1 keeps the zeros of the fraction; it is cut off below.
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(1_000_000 + micros.rem_euclid(1_000_000) as u32);
        self.text.push('.');
        self.text.push_str(digits.get(1..).unwrap_or_default());
        self.text.push('Z');
        &self.text
    }
}

/// An output for lines.
pub trait View {
    /// Writes a batch. The caller flushes.
    ///
    /// # Errors
    ///
    /// The output cannot be written; a closed pipe gives `BrokenPipe`.
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()>;

    /// The queues of the listeners at one moment: in runs whose mode is `Mode::AllAtTheEnd`. By default they are
    /// ignored.
    fn queues(&mut self, _: &QueueSample) {}

    /// Whether something waits that [`Self::rest`] writes.
    fn waits(&self) -> bool {
        false
    }

    /// Nothing came for a second: writes what waits.
    ///
    /// # Errors
    ///
    /// As [`Self::show`].
    fn rest(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Writes everything that is buffered.
    ///
    /// # Errors
    ///
    /// As [`Self::show`].
    fn flush(&mut self) -> io::Result<()>;
}

impl View for Box<dyn View + Send> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        (**self).show(lines, clock)
    }

    fn queues(&mut self, queues: &QueueSample) {
        (**self).queues(queues);
    }

    fn waits(&self) -> bool {
        (**self).waits()
    }

    fn rest(&mut self) -> io::Result<()> {
        (**self).rest()
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
}

/// Prints nothing: for callers that use the lines themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discarded;

impl View for Discarded {
    fn show(&mut self, _: &[Line], _: WallClock) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a run in this mode cannot see of servers (docs/modes.md), as the rest of a sentence; `None`: the run
/// watched no servers, or nothing of this kind is missing.
pub fn blind_in(start: &Start) -> Option<&'static str> {
    if start
        .filters
        .get("role")
        .is_some_and(|role| role == "client")
    {
        return None;
    }
    match &*start.mode {
        "tracepoints" => Some(
            "a half-open that began and ended between two checks of the socket table, about one a second, without \
             a retransmission; the peers of SYNs that a listener refused",
        ),
        "exact (timer)" => Some("the peers of SYNs that a listener refused"),
        _ => None,
    }
}

/// The mode, why it is this one, and what it sees of servers and does not.
pub fn seen_in(start: &Start) -> String {
    let why = match &start.mode_why {
        Some(why) => format!(" ({why})"),
        None => String::new(),
    };
    let only_clients = start
        .filters
        .get("role")
        .is_some_and(|role| role == "client");
    let seen = match (blind_in(start), only_clients) {
        (Some(blind), _) => format!("; it does not see: {blind}"),
        (None, true) => "; no server was watched".to_owned(),
        (None, false) => "; each half-open that ends raises an event".to_owned(),
    };
    format!("{}{why}{seen}", start.mode)
}
