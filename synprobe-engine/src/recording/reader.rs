//! Reads frames back from the intact blocks of a recording.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use super::{
    Damage, Frame, MAX_LEAD, SegmentHeader,
    block::{EndMark, KIND_END, KIND_FRAMES, KIND_HEADER, Prefix, decompress},
    codec::{DecodedFrame, FrameDecoder},
    scan::{BlockScanner, RawBlock},
};

/// Why a file cannot be read as a recording.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not start as a recording does, and has no intact block near its start.
    #[error("not a recording")]
    NotARecording,
    /// It starts as a recording does, and has no intact block near its start.
    #[error("a recording that is cut off or damaged at its start: nothing can be read")]
    NothingIntact,
    /// It is of a later major version.
    #[error(
        "a recording of format version {major}: this synprobe reads version {}",
        super::MAJOR
    )]
    Newer {
        /// The version.
        major: u16,
    },
    /// It cannot be read.
    #[error("cannot read the recording: {0}")]
    Io(#[from] io::Error),
}

/// What a recording consists of.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A frame.
    Frame {
        /// When it was taken in.
        at_ns: u64,
        /// Its bytes.
        frame: Frame<'a>,
    },
    /// The next segment begins. The first segment's header is what [`Reader::open`] returns.
    Segment {
        /// Its header; see [`SegmentHeader::is_lost`].
        header: SegmentHeader,
        /// It carries on the same run, and nothing is missing between the two.
        continues: bool,
    },
    /// Frames are missing here.
    Gap {
        /// How many; `None`: not known.
        frames: Option<u64>,
        /// The last time before it, in the segment that it follows.
        after_ns: u64,
    },
}

/// An [`Item`] that is not a frame.
enum Notice {
    Segment {
        header: SegmentHeader,
        continues: bool,
    },
    Gap {
        frames: Option<u64>,
        after_ns: u64,
    },
}

impl From<Notice> for Item<'_> {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Segment { header, continues } => Self::Segment { header, continues },
            Notice::Gap { frames, after_ns } => Self::Gap { frames, after_ns },
        }
    }
}

/// The segment that is being read.
struct OpenSegment {
    header: SegmentHeader,
    tag: u32,
    /// The number that the next block should have.
    sequence: u32,
    /// The number that the next frame should have.
    frame: u64,
    ended: bool,
}

/// The block that is being read.
#[derive(Default)]
struct OpenBlock {
    raw: Vec<u8>,
    /// Frames that it should still have.
    frames: u64,
    is_open: bool,
}

/// Reads a recording.
///
/// Allocates at most [`MAX_READER_MEMORY`](super::MAX_READER_MEMORY) bytes, in time linear in the
/// length of the input, whatever the input is.
pub struct Reader<R> {
    blocks: BlockScanner<R>,
    segment: OpenSegment,
    block: OpenBlock,
    decoder: FrameDecoder,
    notices: VecDeque<Notice>,
    /// Time of the last frame.
    at_ns: Option<u64>,
    damage: Damage,
    /// Nothing was missing so far.
    whole: bool,
    finished: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the first header. Reads in large pieces: the input needs no buffer of its own.
    ///
    /// # Errors
    ///
    /// The input is no recording, is of a later major version, or cannot be read.
    pub fn open(input: R) -> Result<(SegmentHeader, Self), OpenError> {
        let mut blocks = BlockScanner::new(input);
        let Some(first) = blocks.next_before(MAX_LEAD) else {
            return Err(match (blocks.take_error(), blocks.newer()) {
                (Some(error), _) => error.into(),
                (None, Some(major)) => OpenError::Newer { major },
                (None, None) if blocks.has_marker() => OpenError::NothingIntact,
                (None, None) => OpenError::NotARecording,
            });
        };
        let mut reader = Self {
            blocks,
            segment: OpenSegment {
                header: SegmentHeader::lost(first.prefix.minor),
                tag: 0,
                sequence: 0,
                frame: 0,
                // Nothing is missing before the first one.
                ended: true,
            },
            block: OpenBlock::default(),
            decoder: FrameDecoder::new(),
            notices: VecDeque::new(),
            at_ns: None,
            damage: Damage::default(),
            whole: true,
            finished: false,
        };
        reader.take(&first);
        // It is returned instead.
        reader
            .notices
            .retain(|notice| !matches!(notice, Notice::Segment { .. }));
        Ok((reader.segment.header.clone(), reader))
    }

    /// The next frame, segment or gap; `None` at the end. Damage is skipped and counted.
    pub fn next_item(&mut self) -> Option<Item<'_>> {
        let decoded = loop {
            if let Some(notice) = self.notices.pop_front() {
                return Some(notice.into());
            }
            if self.block.is_open {
                if let Some(decoded) = self.decode() {
                    break decoded;
                }
            } else if let Some(block) = self.blocks.next() {
                self.take(&block);
            } else if self.finished {
                return None;
            } else {
                self.end();
            }
        };
        let frame = match decoded {
            DecodedFrame::Slot(slot) => Frame::Record(self.decoder.record(slot)),
            DecodedFrame::Record(range) => Frame::Record(&self.block.raw[range]),
            DecodedFrame::Other(range) | DecodedFrame::Unknown(range) => {
                Frame::Other(&self.block.raw[range])
            }
        };
        let at_ns = self.decoder.at_ns();
        Some(Item::Frame { at_ns, frame })
    }

    /// The next frame of the open block that this version knows; `None` closes the block.
    fn decode(&mut self) -> Option<DecodedFrame> {
        while let Ok(Some(decoded)) = self.decoder.next(&self.block.raw) {
            self.at_ns = Some(self.decoder.at_ns());
            self.block.frames = self.block.frames.saturating_sub(1);
            if !matches!(decoded, DecodedFrame::Unknown(_)) {
                return Some(decoded);
            }
        }
        self.block.is_open = false;
        if self.block.frames > 0 {
            // The checksum holds, so a faulty encoder made it.
            self.gap(1, Some(self.block.frames));
        }
        None
    }

    /// Takes an intact block in.
    fn take(&mut self, block: &RawBlock) {
        let prefix = &block.prefix;
        if prefix.kind == KIND_HEADER {
            return self.begin(block);
        }
        if prefix.tag != self.segment.tag {
            self.damage.lost_headers += 1;
            self.switch(SegmentHeader::lost(prefix.minor), prefix.tag);
        }
        if !self.follow(prefix) {
            return;
        }
        let payload = &block.bytes[super::block::PREFIX_LEN..];
        match prefix.kind {
            KIND_FRAMES => match decompress(prefix, payload, &mut self.block.raw) {
                Ok(()) => {
                    self.decoder.begin(prefix.first_ns);
                    self.block.frames = u64::from(prefix.frames);
                    self.block.is_open = true;
                }
                // Of a codec that is not known, or a faulty encoder made it.
                Err(_) => self.gap(1, Some(u64::from(prefix.frames))),
            },
            KIND_END => {
                self.segment.ended = true;
                let mark = EndMark::decode(payload).unwrap_or_default();
                self.damage.dropped_frames = self
                    .damage
                    .dropped_frames
                    .saturating_add(mark.dropped_frames);
            }
            // Of a later minor version.
            _ => {}
        }
    }

    /// Takes a header in: a segment's first, or its repetition.
    fn begin(&mut self, block: &RawBlock) {
        let prefix = &block.prefix;
        let mut raw = Vec::new();
        let decoded = decompress(prefix, block.payload(), &mut raw)
            .and_then(|()| SegmentHeader::decode(prefix.minor, &raw));
        match decoded {
            Ok(_) if prefix.tag == self.segment.tag && prefix.sequence == self.segment.sequence => {
                self.segment.sequence = prefix.sequence.saturating_add(1);
            }
            Ok(header) => {
                self.switch(header, prefix.tag);
                self.follow(prefix);
            }
            Err(_) => self.gap(1, None),
        }
    }

    /// Begins a segment.
    fn switch(&mut self, header: SegmentHeader, tag: u32) {
        self.close();
        let last = &self.segment.header;
        let same_run = !header.is_lost() && last.run_id == header.run_id;
        let missing = header
            .segment
            .saturating_sub(last.segment.saturating_add(1));
        let continues =
            same_run && self.segment.ended && missing == 0 && header.segment > last.segment;
        if same_run && missing > 0 {
            self.damage.lost_segments += u64::from(missing);
            self.gap(0, None);
        }
        self.segment = OpenSegment {
            header: header.clone(),
            tag,
            sequence: 0,
            frame: 0,
            ended: false,
        };
        self.notices
            .push_back(Notice::Segment { header, continues });
    }

    /// Leaves the segment that was read.
    fn close(&mut self) {
        if let Some(torn) = self.blocks.take_torn()
            && torn.tag == self.segment.tag
            && torn.sequence >= self.segment.sequence
        {
            let blocks = u64::from(torn.sequence - self.segment.sequence) + 1;
            let end = torn.first_frame.wrapping_add(u64::from(torn.frames));
            self.gap(blocks, Some(end.saturating_sub(self.segment.frame)));
        }
        if !self.segment.ended {
            self.damage.open_segments += 1;
            self.gap(0, None);
        }
    }

    /// Is this block to be read? Notes what is missing between it and the one before.
    fn follow(&mut self, prefix: &Prefix) -> bool {
        let Some(blocks) = prefix.sequence.checked_sub(self.segment.sequence) else {
            // A block that was read already.
            return false;
        };
        if blocks > 0 {
            let frames = prefix.first_frame.saturating_sub(self.segment.frame);
            self.gap(u64::from(blocks), Some(frames));
        }
        self.segment.sequence = prefix.sequence.saturating_add(1);
        self.segment.frame = prefix.first_frame.wrapping_add(u64::from(prefix.frames));
        true
    }

    fn gap(&mut self, blocks: u64, frames: Option<u64>) {
        if self.whole {
            self.whole = false;
            self.note_whole();
        }
        self.damage.lost_blocks += blocks;
        self.damage.lost_frames = self.damage.lost_frames.saturating_add(frames.unwrap_or(0));
        if frames != Some(0) {
            let after_ns = self.at_ns.unwrap_or(0);
            self.notices.push_back(Notice::Gap { frames, after_ns });
        }
    }

    fn note_whole(&mut self) {
        self.damage.whole_until_ns = self.at_ns;
        let header = Some(&self.segment.header).filter(|header| !header.is_lost());
        self.damage.whole_until_realtime_ns = header
            .zip(self.at_ns)
            .map(|(header, at_ns)| header.realtime_ns(at_ns));
    }

    fn end(&mut self) {
        self.finished = true;
        self.close();
        if self.whole {
            self.note_whole();
        }
        self.damage.skipped_bytes = self.blocks.skipped();
        self.damage.read_error = self.blocks.take_error();
    }

    /// What was missing. Complete once [`Reader::next_item`] has returned `None`.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// [`Reader::damage`], to keep.
    pub fn into_damage(self) -> Damage {
        self.damage
    }

    /// Was the recording read to its end mark, with nothing missing?
    pub fn is_complete(&self) -> bool {
        self.finished && self.damage.is_none()
    }
}
