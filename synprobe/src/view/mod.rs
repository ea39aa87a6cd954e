//! How lines are shown. Every view reads the same model; none knows where a line comes from.

mod json;
mod page;
#[cfg(test)]
mod tests;
mod text;

use std::io;

pub use json::{JsonView, to_json};
pub use page::Page;
pub use text::TextView;

use crate::model::Line;

/// Where in wall-clock time CLOCK_MONOTONIC stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// CLOCK_REALTIME − CLOCK_MONOTONIC, nanoseconds.
    offset_ns: i128,
}

impl WallClock {
    /// From two readings of the same moment, nanoseconds.
    pub fn new(realtime_ns: i128, monotonic_ns: u64) -> Self {
        Self {
            offset_ns: realtime_ns - i128::from(monotonic_ns),
        }
    }

    /// As the host's clocks stand now. Read afresh for each batch: a step of the wall clock moves
    /// later lines and leaves durations alone.
    pub fn now() -> Self {
        let realtime = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as i128);
        Self::new(realtime, crate::diag::monotonic_ns())
    }

    /// RFC 3339, UTC, microseconds.
    pub fn rfc3339(&self, mono_ns: u64) -> String {
        let ns = i128::from(mono_ns) + self.offset_ns;
        let micros = i64::try_from(ns.div_euclid(1000)).unwrap_or(0);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(time) => format!("{time:.6}"),
            Err(_) => "1970-01-01T00:00:00.000000Z".to_owned(),
        }
    }
}

/// A way to show lines.
pub trait View {
    /// Shows a batch. The caller flushes.
    ///
    /// # Errors
    ///
    /// When the output cannot be written: a closed pipe is `BrokenPipe`.
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()>;

    /// Hands everything over to the operating system.
    ///
    /// # Errors
    ///
    /// As [`Self::show`].
    fn flush(&mut self) -> io::Result<()>;
}

/// Shows nothing: for those who keep the lines themselves.
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
