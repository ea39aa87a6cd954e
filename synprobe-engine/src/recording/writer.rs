//! Writes one segment: a header, blocks, an end mark.

use std::io::{self, IoSlice, Write};

use super::{
    Frame, MAX_META, MINOR, SegmentHeader,
    block::{EndMark, KIND_END, KIND_FRAMES, KIND_HEADER, PREFIX_LEN, Prefix},
    encoder::{BlockEncoder, FinishedBlock},
    write_error::WriteError,
};

/// What was written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Frames in blocks that were written.
    pub frames: u64,
    /// Bytes of those frames as they were pushed.
    pub frame_bytes: u64,
    /// Blocks of frames that were written.
    pub blocks: u64,
    /// Bytes written: headers, blocks and end marks.
    pub written_bytes: u64,
    /// Frames lost because their block could not be written.
    pub lost_frames: u64,
    /// Blocks that could not be written.
    pub lost_blocks: u64,
}

/// The numbering of a segment's blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentEncoder {
    tag: u32,
    sequence: u32,
    frames: u64,
    last_ns: u64,
    dropped_frames: u64,
}

impl SegmentEncoder {
    /// Bytes of an end mark.
    pub(super) const END_LEN: usize = PREFIX_LEN + 8;

    /// A segment, and the bytes that begin it: its header, twice, so that one damaged place does not
    /// make the segment unreadable.
    pub(super) fn begin(header: &SegmentHeader) -> Result<(Self, Vec<u8>), WriteError> {
        if header.meta.len() > MAX_META {
            return Err(WriteError::MetaTooLong {
                len: header.meta.len(),
            });
        }
        let raw = header.encode();
        let mut segment = Self {
            tag: crc32fast::hash(&raw),
            sequence: 0,
            frames: 0,
            last_ns: 0,
            dropped_frames: 0,
        };
        let (payload, codec) = FinishedBlock::compress(&raw);
        let mut bytes = Vec::with_capacity(2 * (PREFIX_LEN + payload.len()));
        for _ in 0..2 {
            let prefix = segment.prefix(KIND_HEADER, codec, &payload, raw.len() as u32);
            bytes.extend_from_slice(&prefix.encode());
            bytes.extend_from_slice(&payload);
        }
        Ok((segment, bytes))
    }

    /// A segment that was written before, as its last block leaves it.
    pub(super) fn resume(last: &Prefix) -> Self {
        Self {
            tag: last.tag,
            sequence: last.sequence.wrapping_add(1),
            frames: last.first_frame.wrapping_add(u64::from(last.frames)),
            last_ns: last.last_ns,
            dropped_frames: 0,
        }
    }

    /// Time of the last frame; 0: none yet.
    pub(super) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    fn prefix(&mut self, kind: u8, codec: u8, payload: &[u8], raw: u32) -> Prefix {
        let prefix = Prefix {
            minor: MINOR,
            kind,
            codec,
            tag: self.tag,
            stored: payload.len() as u32,
            raw,
            frames: 0,
            sequence: self.sequence,
            checksum: crc32fast::hash(payload),
            first_frame: self.frames,
            first_ns: self.last_ns,
            last_ns: self.last_ns,
        };
        self.sequence = self.sequence.wrapping_add(1);
        prefix
    }

    /// The prefix of a block. Its numbers are used up, written or not: a reader sees the gap.
    pub(super) fn next(&mut self, block: &FinishedBlock) -> [u8; PREFIX_LEN] {
        let prefix = Prefix {
            minor: MINOR,
            kind: KIND_FRAMES,
            codec: block.codec,
            tag: self.tag,
            stored: block.payload.len() as u32,
            raw: block.raw,
            frames: block.frames,
            sequence: self.sequence,
            checksum: block.checksum,
            first_frame: self.frames,
            first_ns: block.first_ns,
            last_ns: block.last_ns,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.frames += u64::from(block.frames);
        self.last_ns = block.last_ns;
        prefix.encode()
    }

    /// Notes frames that are not in the file; the end mark says how many.
    pub(super) fn dropped(&mut self, frames: u64) {
        self.dropped_frames += frames;
    }

    /// The bytes that end the segment.
    pub(super) fn end(mut self) -> Vec<u8> {
        let mark = EndMark {
            dropped_frames: self.dropped_frames,
        };
        let payload = mark.encode();
        let prefix = self.prefix(
            KIND_END,
            super::block::CODEC_NONE,
            &payload,
            payload.len() as u32,
        );
        [prefix.encode().as_slice(), &payload].concat()
    }
}

/// Writes the two parts, in one system call where the output takes them.
pub(super) fn write_both(out: &mut impl Write, first: &[u8], second: &[u8]) -> io::Result<()> {
    let written = loop {
        match out.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if written < first.len() {
        out.write_all(&first[written..])?;
        out.write_all(second)
    } else {
        out.write_all(&second[written - first.len()..])
    }
}

/// Writes a recording of one segment.
///
/// Every block is written as soon as it closes. [`Writer::flush`] closes the open one; call it at least
/// once a second, so that a crash loses no more. A writer that is dropped without
/// [`Writer::finish`] leaves a recording that reads as cut short.
pub struct Writer<W: Write> {
    out: W,
    encoder: BlockEncoder,
    segment: SegmentEncoder,
    stats: WriteStats,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    ///
    /// The output refuses the header, or the header is too long.
    pub fn new(mut out: W, header: &SegmentHeader) -> Result<Self, WriteError> {
        let (segment, bytes) = SegmentEncoder::begin(header)?;
        out.write_all(&bytes)?;
        let stats = WriteStats {
            written_bytes: bytes.len() as u64,
            ..WriteStats::default()
        };
        Ok(Self {
            out,
            encoder: BlockEncoder::default(),
            segment,
            stats,
        })
    }

    /// Adds a frame; `at_ns`: when it was taken in.
    ///
    /// # Errors
    ///
    /// The frame is too long, or the block that it completes could not be written. That block is lost
    /// and counted; the writer goes on with the next one.
    pub fn push(&mut self, at_ns: u64, frame: Frame<'_>) -> Result<(), WriteError> {
        match self.encoder.push(at_ns, frame)? {
            Some(block) => self.write_block(&block),
            None => Ok(()),
        }
    }

    /// Closes the open block and writes it.
    ///
    /// # Errors
    ///
    /// As [`Writer::push`].
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if let Some(block) = self.encoder.finish() {
            self.write_block(&block)?;
        }
        Ok(self.out.flush()?)
    }

    /// Writes a block that a [`BlockEncoder`] of the caller's made. Frames pushed before go first.
    ///
    /// # Errors
    ///
    /// As [`Writer::push`].
    pub fn write_block(&mut self, block: &FinishedBlock) -> Result<(), WriteError> {
        if let Some(open) = self.encoder.finish() {
            self.store(&open)?;
        }
        self.store(block)
    }

    fn store(&mut self, block: &FinishedBlock) -> Result<(), WriteError> {
        let prefix = self.segment.next(block);
        if let Err(error) = write_both(&mut self.out, &prefix, &block.payload) {
            self.segment.dropped(u64::from(block.frames));
            self.stats.lost_blocks += 1;
            self.stats.lost_frames += u64::from(block.frames);
            return Err(error.into());
        }
        self.stats.blocks += 1;
        self.stats.frames += u64::from(block.frames);
        self.stats.frame_bytes += block.frame_bytes;
        self.stats.written_bytes += (prefix.len() + block.payload.len()) as u64;
        Ok(())
    }

    /// Counts so far. Frames of the open block are not among them.
    pub fn stats(&self) -> WriteStats {
        self.stats
    }

    /// The output.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// The output. What the caller writes there itself a reader skips as damage.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the open block and an end mark. Returns the output and the final counts.
    ///
    /// # Errors
    ///
    /// The output refuses one of them: the recording reads as cut short.
    pub fn finish(mut self) -> Result<(W, WriteStats), WriteError> {
        self.flush()?;
        let end = self.segment.end();
        self.out.write_all(&end)?;
        self.out.flush()?;
        self.stats.written_bytes += end.len() as u64;
        Ok((self.out, self.stats))
    }
}
