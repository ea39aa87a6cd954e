//! Keeps the last part of a run in the segments of a folder.

mod closed;
mod open;
mod outcome;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    BLOCK_TARGET, Frame, SegmentHeader, WriteError,
    encoder::{BlockEncoder, FinishedBlock},
    files::create_new,
    folder::{create_folder, lock, segment_name},
    writer::SegmentEncoder,
};
use closed::{ClosedSegments, nanoseconds, now_realtime_ns, occupied};
use open::{Open, is_full};
pub use outcome::{RollingError, RollingStats};

/// A segment is closed when it has lasted this part of what is kept, or has grown by this part of the
/// size bound.
const PARTS: u32 = 15;
const SIZE_PARTS: u64 = 16;
/// Smallest size bound, bytes.
const MIN_SIZE: u64 = 64 << 10;
/// Shortest time that can be kept.
const MIN_KEEP: Duration = Duration::from_secs(1);
/// After a segment could not be created, or failed at once, the next is tried this much later.
const RETRY_NS: u64 = 1_000_000_000;

/// Keeps the last part of a run, bounded by age and by size.
///
/// Every segment is a recording of its own. Before each frame the caller calls
/// [`Rolling::ensure_segment`]; when that says that a segment has begun, the caller first pushes what a
/// reader has to know that sees no earlier segment.
///
/// What is kept covers at least the time asked for, and at most a fifteenth more, unless the size bound
/// needs it shorter. Sizes are counted in units of 4096 bytes.
pub struct Rolling {
    folder: PathBuf,
    /// Held while this lives.
    _lock: File,
    keep_ns: u64,
    max_size: u64,
    header: SegmentHeader,
    header_len: u64,
    encoder: BlockEncoder,
    closed: ClosedSegments,
    open: Option<Open>,
    /// Of the segment begun last, milliseconds since 1970.
    last_name_ms: i64,
    /// A segment has begun and the caller does not know yet.
    started: bool,
    retry_at_ns: u64,
    /// Lost frames that no end mark tells of yet.
    unreported: u64,
    /// Frames were lost while no segment was open: the next number is left out, so that a reader knows.
    lost_between: bool,
    stats: RollingStats,
}

impl Rolling {
    /// Takes the folder, and creates it if need be; its parent must exist. Segments of earlier runs
    /// stay, and count toward both bounds.
    ///
    /// `keep`: how much to keep, at least a second. `max_size`: bytes that all segments may occupy, at
    /// least 64 KiB. `header`: that of the first segment.
    ///
    /// # Errors
    ///
    /// Another recorder uses the folder, it cannot be used, or a bound is too small.
    pub fn open(
        folder: &Path,
        keep: Duration,
        max_size: u64,
        header: SegmentHeader,
    ) -> Result<Self, RollingError> {
        let (_, bytes) = SegmentEncoder::begin(&header).map_err(RollingError::Header)?;
        let header_len = bytes.len() as u64;
        let least = MIN_SIZE.max(4 * occupied(header_len));
        if max_size < least {
            let size = max_size;
            return Err(RollingError::TooSmall { size, least });
        }
        if keep < MIN_KEEP {
            return Err(RollingError::TooShort);
        }
        create_folder(folder)?;
        let lock = lock(folder)?;
        let (closed, last_name_ms) = ClosedSegments::in_folder(folder)?;
        let target = usize::try_from(max_size / SIZE_PARTS).unwrap_or(BLOCK_TARGET);
        let mut rolling = Self {
            folder: folder.to_owned(),
            _lock: lock,
            keep_ns: nanoseconds(keep),
            max_size,
            header,
            header_len,
            encoder: BlockEncoder::new(target),
            closed,
            open: None,
            last_name_ms,
            started: false,
            retry_at_ns: 0,
            unreported: 0,
            lost_between: false,
            stats: RollingStats::default(),
        };
        // Bounds may be tighter than those of the run before.
        rolling.make_room(0);
        rolling.closed.expire(now_realtime_ns(), rolling.keep_ns);
        Ok(rolling)
    }

    /// What later segments are to add to a time to get CLOCK_REALTIME, after the clock was set or the
    /// host was suspended. No segment becomes older or younger by it.
    pub fn set_realtime_offset_ns(&mut self, offset_ns: i64) {
        let by_ns = offset_ns.saturating_sub(self.header.realtime_offset_ns);
        if by_ns != 0 {
            self.header.realtime_offset_ns = offset_ns;
            self.closed.clock_was_set(by_ns);
        }
    }

    /// Closes the segment if it is due, and begins the next one if none is open. Call it before each
    /// frame. `true`: a segment has begun; push first what it has to restate.
    ///
    /// # Errors
    ///
    /// A block or a segment could not be written. Recording goes on; frames are counted as lost until
    /// a segment can be begun, which is tried once a second.
    pub fn ensure_segment(&mut self, at_ns: u64) -> Result<bool, WriteError> {
        if let Some(open) = &mut self.open {
            let len = open.len + self.encoder.pending() as u64;
            let base_len = *open.base_len.get_or_insert(len);
            let age_ns = at_ns.saturating_sub(open.started_ns);
            if len.saturating_sub(base_len) >= self.max_size / SIZE_PARTS
                || age_ns >= self.keep_ns / u64::from(PARTS)
            {
                self.close_segment()?;
            }
        }
        if self.open.is_none() && at_ns >= self.retry_at_ns {
            self.begin(at_ns)?;
        }
        Ok(std::mem::take(&mut self.started))
    }

    /// Adds a frame; `at_ns`: when it was taken in. Never closes a segment that is in order, and begins
    /// one only where the caller left [`Rolling::ensure_segment`] out.
    ///
    /// # Errors
    ///
    /// The frame is too long, or a block or a segment could not be written: what is lost is counted.
    pub fn push(&mut self, at_ns: u64, frame: Frame<'_>) -> Result<(), WriteError> {
        if self.open.is_none() {
            if at_ns < self.retry_at_ns {
                self.lose(1, 0);
                return Ok(());
            }
            if let Err(error) = self.begin(at_ns) {
                self.lose(1, 0);
                return Err(error);
            }
        }
        match self.encoder.push(at_ns, frame)? {
            Some(block) => self.write_block(&block),
            None => Ok(()),
        }
    }

    /// Writes the open block and deletes what is too old; `now_ns`: the time. Call it at least once a
    /// second.
    ///
    /// # Errors
    ///
    /// As [`Rolling::push`].
    pub fn flush(&mut self, now_ns: u64) -> Result<(), WriteError> {
        let written = self.flush_block();
        self.closed
            .expire(self.header.realtime_ns(now_ns), self.keep_ns);
        written
    }

    fn flush_block(&mut self) -> Result<(), WriteError> {
        match self.encoder.finish() {
            Some(block) => self.write_block(&block),
            None => Ok(()),
        }
    }

    /// Closes the segment that is open, complete with its end mark, and returns its path.
    ///
    /// # Errors
    ///
    /// As [`Rolling::push`].
    pub fn close_segment(&mut self) -> Result<Option<PathBuf>, WriteError> {
        self.flush_block()?;
        let Some(mut open) = self.open.take() else {
            return Ok(None);
        };
        let end = open.numbering.end();
        let written = open.file.write_all(&end);
        if written.is_ok() {
            open.len += end.len() as u64;
            self.stats.written.written_bytes += end.len() as u64;
            self.unreported = 0;
        }
        let path = open.path.clone();
        self.retire(open);
        self.header.segment = self.header.segment.wrapping_add(1);
        written?;
        Ok(Some(path))
    }

    /// Ends the recording; the folder is free for another.
    ///
    /// # Errors
    ///
    /// As [`Rolling::push`].
    pub fn finish(mut self) -> Result<RollingStats, WriteError> {
        self.close_segment()?;
        Ok(self.stats())
    }

    /// Counts so far.
    pub fn stats(&self) -> RollingStats {
        RollingStats {
            deleted_segments: self.closed.deleted(),
            folder_bytes: self.occupied(self.open.as_ref().map_or(0, |open| open.len)),
            ..self.stats
        }
    }

    fn lose(&mut self, frames: u64, blocks: u64) {
        self.unreported += frames;
        self.lost_between |= self.open.is_none();
        self.stats.written.lost_frames += frames;
        self.stats.written.lost_blocks += blocks;
    }

    /// Bytes that all segments occupy if the open one has `len` bytes and an end mark.
    fn occupied(&self, len: u64) -> u64 {
        let open = if len == 0 {
            0
        } else {
            len + SegmentEncoder::END_LEN as u64
        };
        self.closed.occupied() + occupied(open)
    }

    /// Deletes old segments until `more` bytes fit; `false`: they do not.
    fn make_room(&mut self, more: u64) -> bool {
        let len = self.open.as_ref().map_or(0, |open| open.len) + more;
        while self.occupied(len) > self.max_size {
            if !self.closed.delete_oldest() {
                return false;
            }
        }
        true
    }

    fn begin(&mut self, at_ns: u64) -> Result<(), WriteError> {
        let mut begun = self.create(at_ns);
        if let Err(WriteError::Io(error)) = &begun
            && is_full(error)
            && self.closed.delete_oldest()
        {
            begun = self.create(at_ns);
        }
        if begun.is_err() {
            self.retry_at_ns = at_ns.saturating_add(RETRY_NS);
        }
        begun
    }

    fn create(&mut self, at_ns: u64) -> Result<(), WriteError> {
        if std::mem::take(&mut self.lost_between) {
            self.header.segment = self.header.segment.wrapping_add(1);
        }
        let (mut numbering, bytes) = SegmentEncoder::begin(&self.header)?;
        if !self.make_room(self.header_len) {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded).into());
        }
        let now_ms = self.header.realtime_ns(at_ns) / 1_000_000;
        let began_ms = now_ms.max(self.last_name_ms.saturating_add(1));
        let path = self.folder.join(segment_name(began_ms));
        self.last_name_ms = began_ms;
        let mut file = create_new(&path)?;
        if let Err(error) = file.write_all(&bytes) {
            // It would only be an unreadable segment.
            let _ = fs::remove_file(&path);
            return Err(error.into());
        }
        numbering.dropped(self.unreported);
        self.stats.segments += 1;
        self.stats.written.written_bytes += bytes.len() as u64;
        self.started = true;
        self.open = Some(Open {
            path,
            file,
            numbering,
            len: bytes.len() as u64,
            base_len: None,
            started_ns: at_ns,
        });
        Ok(())
    }

    fn write_block(&mut self, block: &FinishedBlock) -> Result<(), WriteError> {
        let len = (super::block::PREFIX_LEN + block.payload.len()) as u64;
        let frames = u64::from(block.frames);
        let fits = self.make_room(len);
        let Some(open) = &mut self.open else {
            self.lose(frames, 1);
            return Ok(());
        };
        let prefix = open.numbering.next(block);
        if !fits {
            open.numbering.dropped(frames);
            self.lose(frames, 1);
            return Ok(());
        }
        match open.write(&prefix, &block.payload, &mut self.closed) {
            Ok(()) => {
                open.len += len;
                let written = &mut self.stats.written;
                written.written_bytes += len;
                written.blocks += 1;
                written.frames += frames;
                written.frame_bytes += block.frame_bytes;
                Ok(())
            }
            Err(error) => {
                self.abandon(block.last_ns, frames);
                Err(error.into())
            }
        }
    }

    /// Leaves a segment that cannot be written any more. It has no end mark.
    fn abandon(&mut self, at_ns: u64, frames: u64) {
        self.lose(frames, 1);
        if let Some(open) = self.open.take() {
            // One that fails at once is not followed by another at once.
            self.retry_at_ns = at_ns.max(open.started_ns.saturating_add(RETRY_NS));
            // Whatever of the block is in the file may not be gone: a reader skips it.
            let _ = open.file.set_len(open.len);
            self.retire(open);
        }
        self.header.segment = self.header.segment.wrapping_add(1);
    }

    fn retire(&mut self, open: Open) {
        let len = open
            .file
            .metadata()
            .map_or(open.len, |metadata| metadata.len());
        let last_ns = open.numbering.last_ns().max(open.started_ns);
        self.closed
            .push(open.path, len, self.header.realtime_ns(last_ns));
    }
}
