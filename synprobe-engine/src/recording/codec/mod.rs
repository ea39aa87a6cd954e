//! Delta coding of the frames of one block, before compression.
//!
//! A record is coded against an earlier one of the same length, held in one of [`SLOTS`] slots. The
//! encoder chooses the slot, so the format knows no record kind. A mask per slot names the bytes that
//! follow; it may name more than have changed, so that it seldom has to be written again.
//! docs/recording.md has the layout byte by byte.

mod decode;
mod encode;

use std::mem::offset_of;

use synprobe_ebpf::event::Header as RecordHeader;

pub(super) use decode::{DecodedFrame, FrameDecoder};
pub(super) use encode::FrameEncoder;

/// Reference records that a block can hold at a time.
const SLOTS: usize = 32;
/// Longest record that is delta coded, bytes. A longer one is stored as it is.
const MAX_SLOT: usize = 256;
/// Words of 8 bytes in a slot.
const WORDS: usize = MAX_SLOT / 8;
/// Where a record has its time stamp, which has a delta of its own.
const TIME: std::ops::Range<usize> = offset_of!(RecordHeader, ts_ns)..size_of::<RecordHeader>();
/// The word of [`TIME`]; a mask never names it.
const TIME_WORD: usize = TIME.start / 8;
/// Shortest record that is delta coded, bytes: a header alone.
const MIN_SLOT: usize = size_of::<RecordHeader>();

/// Tag, bits 6 and 7: the bytes of the slot's mask follow.
const OP_DELTA: u8 = 0 << 6;
/// Tag, bits 6 and 7: a new mask for the slot, then its bytes.
const OP_MASK: u8 = 1 << 6;
/// Tag, bits 6 and 7: a length and the whole record, which the slot then holds.
const OP_WHOLE: u8 = 2 << 6;
/// Tag, bits 6 and 7: bits 0 to 4 are one of the `PLAIN_*` types; a length and the bytes follow.
const OP_PLAIN: u8 = 3 << 6;
/// Tag, bit 5: the frame's time differs from that of the frame before it.
const AT: u8 = 1 << 5;
/// Tag, bits 0 to 4: the slot, or the type of a plain frame.
const LOW: u8 = 0x1f;

/// An input of the caller's.
const PLAIN_OTHER: u8 = 0;
/// A record that no slot holds: shorter than its header, or longer than a slot.
const PLAIN_RECORD: u8 = 1;

/// Most bytes that a frame of `len` bytes takes: tag, two times, length or mask.
pub(super) const fn coded_bound(len: usize) -> usize {
    1 + 10 + 10 + 10 + WORDS + len
}

fn time_of(record: &[u8]) -> u64 {
    let mut time = [0; 8];
    time.copy_from_slice(&record[TIME]);
    u64::from_le_bytes(time)
}

/// The bytes of a slot that follow each of its records, as offsets.
struct Mask {
    offsets: [u8; MAX_SLOT],
    count: usize,
}

impl Mask {
    const EMPTY: Self = Self {
        offsets: [0; MAX_SLOT],
        count: 0,
    };

    fn push(&mut self, offset: usize) {
        // Below MAX_SLOT = 256.
        self.offsets[self.count] = offset as u8;
        self.count += 1;
    }

    fn offsets(&self) -> &[u8] {
        &self.offsets[..self.count]
    }
}
