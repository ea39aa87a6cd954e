//! The fixed part in front of a block's payload.

use super::{
    MAJOR, MAX_BLOCK,
    varint::{Cursor, Malformed},
};

/// What every block starts with, and hence every recording.
pub(super) const MARKER: [u8; 8] = *b"\x93SYNREC\n";
/// Bytes of a block before its payload.
pub(super) const PREFIX_LEN: usize = 72;
/// Where the checksum of the prefix is: last.
const CHECKSUM: usize = PREFIX_LEN - 4;

/// [`Prefix::kind`]: the payload is a segment's header.
pub(super) const KIND_HEADER: u8 = 1;
/// [`Prefix::kind`]: the payload is frames.
pub(super) const KIND_FRAMES: u8 = 2;
/// [`Prefix::kind`]: the segment ends here, complete.
pub(super) const KIND_END: u8 = 3;

/// [`Prefix::codec`]: the payload is not compressed.
pub(super) const CODEC_NONE: u8 = 0;
/// [`Prefix::codec`]: the payload is one LZ4 block.
pub(super) const CODEC_LZ4: u8 = 1;

/// The prefix of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) minor: u16,
    pub(super) kind: u8,
    pub(super) codec: u8,
    /// Checksum of the segment's header: which segment the block belongs to.
    pub(super) tag: u32,
    /// Bytes of the payload.
    pub(super) stored: u32,
    /// Bytes of the payload after decompression.
    pub(super) raw: u32,
    pub(super) frames: u32,
    /// Number of the block in its segment.
    pub(super) sequence: u32,
    /// Of the payload as stored.
    pub(super) checksum: u32,
    /// Frames in this segment's blocks before this one.
    pub(super) first_frame: u64,
    /// Time of the first frame.
    pub(super) first_ns: u64,
    /// Time of the last frame.
    pub(super) last_ns: u64,
}

impl Prefix {
    pub(super) fn encode(&self) -> [u8; PREFIX_LEN] {
        let mut out = [0; PREFIX_LEN];
        out[..8].copy_from_slice(&MARKER);
        out[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        out[10..12].copy_from_slice(&self.minor.to_le_bytes());
        out[12] = self.kind;
        out[13] = self.codec;
        let integers = [
            self.tag,
            self.stored,
            self.raw,
            self.frames,
            self.sequence,
            self.checksum,
        ];
        for (place, integer) in out[16..40].as_chunks_mut().0.iter_mut().zip(integers) {
            *place = integer.to_le_bytes();
        }
        let integers = [self.first_frame, self.first_ns, self.last_ns];
        for (place, integer) in out[40..64].as_chunks_mut().0.iter_mut().zip(integers) {
            *place = integer.to_le_bytes();
        }
        let checksum = crc32fast::hash(&out[..CHECKSUM]);
        out[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// The prefix at the start of `bytes`, if it is intact and of the major version that is read.
    pub(super) fn decode(bytes: &[u8; PREFIX_LEN]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let marker: [u8; 8] = cursor.array()?;
        let major = u16::from_le_bytes(cursor.array()?);
        let minor = u16::from_le_bytes(cursor.array()?);
        let [kind, codec, _, _] = cursor.array()?;
        let mut integer = || cursor.array().map(u32::from_le_bytes);
        let [tag, stored, raw] = [integer()?, integer()?, integer()?];
        let [frames, sequence, checksum] = [integer()?, integer()?, integer()?];
        let mut integer = || cursor.array().map(u64::from_le_bytes);
        let [first_frame, first_ns, last_ns] = [integer()?, integer()?, integer()?];
        cursor.bytes(4)?;
        let prefix_checksum = u32::from_le_bytes(cursor.array()?);
        let fits = stored as usize <= MAX_BLOCK && raw as usize <= MAX_BLOCK;
        let intact = crc32fast::hash(&bytes[..CHECKSUM]) == prefix_checksum;
        if marker != MARKER || major != MAJOR || !intact || !fits {
            return Err(Malformed);
        }
        Ok(Self {
            minor,
            kind,
            codec,
            tag,
            stored,
            raw,
            frames,
            sequence,
            checksum,
            first_frame,
            first_ns,
            last_ns,
        })
    }
}

/// The payload of an end mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndMark {
    /// Frames that the recorder could not write to this segment.
    pub(super) dropped_frames: u64,
}

impl EndMark {
    pub(super) fn encode(self) -> [u8; 8] {
        self.dropped_frames.to_le_bytes()
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let dropped_frames = u64::from_le_bytes(Cursor::new(payload).array()?);
        Ok(Self { dropped_frames })
    }
}

/// Puts the payload as it was before compression into `raw`.
pub(super) fn decompress(
    prefix: &Prefix,
    payload: &[u8],
    raw: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let len = prefix.raw as usize;
    raw.clear();
    match prefix.codec {
        CODEC_NONE if payload.len() == len => raw.extend_from_slice(payload),
        CODEC_LZ4 => {
            // Prefix::decode() has bounded it.
            raw.resize(len, 0);
            match lz4_flex::block::decompress_into(payload, raw) {
                Ok(decompressed) if decompressed == len => {}
                _ => return Err(Malformed),
            }
        }
        _ => return Err(Malformed),
    }
    Ok(())
}
