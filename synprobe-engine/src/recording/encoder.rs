//! Frames in, blocks out.

use bytes::Bytes;

use super::{
    BLOCK_TARGET, Frame, MAX_BLOCK, MAX_FRAME,
    block::{CODEC_LZ4, CODEC_NONE},
    codec::{FrameEncoder, coded_bound},
    write_error::WriteError,
};

// A block that is not full yet takes any frame.
const _: () = assert!(BLOCK_TARGET + coded_bound(MAX_FRAME) <= MAX_BLOCK);

/// A block of frames, coded, compressed and checksummed.
///
/// It belongs to no segment yet, so several outputs can store the same block; a clone shares the bytes.
#[derive(Clone, Debug)]
pub struct FinishedBlock {
    pub(super) payload: Bytes,
    pub(super) codec: u8,
    pub(super) raw: u32,
    pub(super) checksum: u32,
    pub(super) frames: u32,
    pub(super) frame_bytes: u64,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

impl FinishedBlock {
    /// The payload as it is stored.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Frames in the block.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes of the frames as they were pushed.
    pub fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    /// Times of the first and the last frame.
    pub fn times_ns(&self) -> (u64, u64) {
        (self.first_ns, self.last_ns)
    }

    /// Compresses `raw` where that makes it smaller.
    pub(super) fn compress(raw: &[u8]) -> (Bytes, u8) {
        let mut compressed = vec![0; lz4_flex::block::get_maximum_output_size(raw.len())];
        match lz4_flex::block::compress_into(raw, &mut compressed) {
            // A copy, or the block would hold on to several times its size.
            Ok(len) if len < raw.len() => (Bytes::copy_from_slice(&compressed[..len]), CODEC_LZ4),
            _ => (Bytes::copy_from_slice(raw), CODEC_NONE),
        }
    }
}

/// Collects frames into blocks.
pub struct BlockEncoder {
    frames: FrameEncoder,
    target: usize,
    count: u32,
    frame_bytes: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Default for BlockEncoder {
    fn default() -> Self {
        Self::new(BLOCK_TARGET)
    }
}

impl BlockEncoder {
    /// Blocks close at `target` bytes before compression, [`BLOCK_TARGET`] at the most.
    pub fn new(target: usize) -> Self {
        let target = target.clamp(1, BLOCK_TARGET);
        Self {
            frames: FrameEncoder::new(target + coded_bound(MAX_FRAME / 256)),
            target,
            count: 0,
            frame_bytes: 0,
            first_ns: 0,
            last_ns: 0,
        }
    }

    /// Adds a frame. Returns the block that it completes, if any.
    ///
    /// `at_ns` is when the frame was taken in; it should not decrease.
    ///
    /// # Errors
    ///
    /// [`WriteError::FrameTooLong`]: the frame is not recorded.
    pub fn push(
        &mut self,
        at_ns: u64,
        frame: Frame<'_>,
    ) -> Result<Option<FinishedBlock>, WriteError> {
        let len = frame.bytes().len();
        if len > MAX_FRAME {
            return Err(WriteError::FrameTooLong { len });
        }
        if self.count == 0 {
            self.first_ns = at_ns;
            self.frames.begin(at_ns);
        }
        self.frames.push(at_ns, frame);
        self.count += 1;
        self.frame_bytes += len as u64;
        self.last_ns = at_ns;
        Ok((self.pending() >= self.target)
            .then(|| self.finish())
            .flatten())
    }

    /// Bytes of the open block before compression; 0: it has no frame.
    pub fn pending(&self) -> usize {
        if self.count == 0 {
            0
        } else {
            self.frames.coded().len()
        }
    }

    /// Closes the open block; `None`: it has no frame.
    pub fn finish(&mut self) -> Option<FinishedBlock> {
        if self.count == 0 {
            return None;
        }
        let raw = self.frames.coded();
        let (payload, codec) = FinishedBlock::compress(raw);
        let block = FinishedBlock {
            checksum: crc32fast::hash(&payload),
            payload,
            codec,
            // At most MAX_BLOCK, see the assertion above.
            raw: raw.len() as u32,
            frames: self.count,
            frame_bytes: self.frame_bytes,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
        };
        self.count = 0;
        self.frame_bytes = 0;
        Some(block)
    }
}
