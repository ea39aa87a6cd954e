//! What could not be read.

use std::{fmt, io};

/// What of a recording is damaged, missing or cut off.
#[derive(Debug, Default)]
pub struct Damage {
    /// Blocks that are missing or damaged, as far as the numbers of the intact ones tell.
    pub lost_blocks: u64,
    /// Frames that are missing, as far as the intact blocks tell. The frames after the last intact
    /// block of a segment are not known.
    pub lost_frames: u64,
    /// Bytes that belong to no intact block.
    pub skipped_bytes: u64,
    /// Segments whose header is damaged.
    pub lost_headers: u64,
    /// Segments that are missing between two of the same run.
    pub lost_segments: u64,
    /// Segments without an end mark: the recorder was killed, or the file is cut off.
    pub open_segments: u64,
    /// Frames that the recorder could not write, as its end marks say.
    pub dropped_frames: u64,
    /// Everything up to this time was read; `None`: nothing. Without damage, the last frame's time.
    pub whole_until_ns: Option<u64>,
    /// The same time, nanoseconds since 1970; `None` also where the segment's header is damaged.
    pub whole_until_realtime_ns: Option<i64>,
    /// The error that ended reading early.
    pub read_error: Option<io::Error>,
}

impl Damage {
    /// Is anything missing?
    pub fn is_none(&self) -> bool {
        self.lost_blocks == 0
            && self.skipped_bytes == 0
            && self.lost_headers == 0
            && self.lost_segments == 0
            && self.open_segments == 0
            && self.dropped_frames == 0
            && self.read_error.is_none()
    }
}

/// One line; the caller adds up to when the recording is whole, in its own form of time.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("the recording is complete");
        }
        let mut separator = "";
        let mut part = |f: &mut fmt::Formatter<'_>, count: u64, one: &str, many: &str| {
            if count == 0 {
                return Ok(());
            }
            write!(
                f,
                "{separator}{count} {}",
                if count == 1 { one } else { many }
            )?;
            separator = ", ";
            Ok(())
        };
        part(f, self.lost_blocks, "block lost", "blocks lost")?;
        part(f, self.lost_frames, "frame in them", "frames in them")?;
        part(f, self.skipped_bytes, "unreadable byte", "unreadable bytes")?;
        part(
            f,
            self.lost_headers,
            "segment header lost",
            "segment headers lost",
        )?;
        part(f, self.lost_segments, "segment missing", "segments missing")?;
        part(f, self.open_segments, "segment cut off", "segments cut off")?;
        part(
            f,
            self.dropped_frames,
            "frame dropped by the recorder",
            "frames dropped by the recorder",
        )?;
        match &self.read_error {
            Some(error) => write!(f, "{separator}reading failed: {error}"),
            None => Ok(()),
        }
    }
}
