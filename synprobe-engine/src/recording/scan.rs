//! Finds intact blocks in any bytes.

use std::io::{ErrorKind, Read};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    MAJOR,
    block::{MARKER, PREFIX_LEN, Prefix},
};

/// Bytes asked of the input at a time.
const CHUNK: usize = 64 << 10;
/// Payload bytes that may be checked in vain, beside [`WASTE_RATIO`] times what was read. Then a block
/// with an intact prefix and a damaged payload is skipped whole, so that the work stays linear in the
/// length of the input.
const MAX_WASTE: u64 = 64 << 20;
const WASTE_RATIO: u64 = 4;

/// An intact block.
#[derive(Clone, Debug)]
pub(super) struct RawBlock {
    pub(super) prefix: Prefix,
    /// Prefix and payload.
    pub(super) bytes: Bytes,
}

impl RawBlock {
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[PREFIX_LEN..]
    }
}

/// Reads the intact blocks of an input, one after the other.
pub(super) struct BlockScanner<R> {
    input: R,
    buffer: BytesMut,
    at_end: bool,
    /// Bytes of the input before the buffer.
    position: u64,
    /// Bytes that belong to no intact block.
    skipped: u64,
    wasted: u64,
    /// Since the last intact block: a prefix that is intact though its payload is not.
    torn: Option<Prefix>,
    /// The first bytes are a block's marker.
    has_marker: bool,
    /// The first block says it is of this major version, a later one than is read.
    newer: Option<u16>,
    error: Option<std::io::Error>,
}

impl<R: Read> BlockScanner<R> {
    pub(super) fn new(input: R) -> Self {
        let mut scanner = Self {
            input,
            buffer: BytesMut::with_capacity(2 * CHUNK),
            at_end: false,
            position: 0,
            skipped: 0,
            wasted: 0,
            torn: None,
            has_marker: false,
            newer: None,
            error: None,
        };
        scanner.fill(MARKER.len() + 2);
        if let Some(rest) = scanner.buffer.strip_prefix(&MARKER) {
            scanner.has_marker = true;
            let major = rest.first_chunk().map(|major| u16::from_le_bytes(*major));
            scanner.newer = major.filter(|major| *major > MAJOR);
        }
        scanner
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(super) fn has_marker(&self) -> bool {
        self.has_marker
    }

    pub(super) fn newer(&self) -> Option<u16> {
        self.newer
    }

    pub(super) fn take_torn(&mut self) -> Option<Prefix> {
        self.torn.take()
    }

    /// The error that ended the input early.
    pub(super) fn take_error(&mut self) -> Option<std::io::Error> {
        self.error.take()
    }

    /// Reads until the buffer has `len` bytes, or the input ends.
    fn fill(&mut self, len: usize) {
        while self.buffer.len() < len && !self.at_end {
            let before = self.buffer.len();
            self.buffer.resize(before + CHUNK, 0);
            let read = self.input.read(&mut self.buffer[before..]);
            // An input that claims more than it was given is not believed.
            let count = *read.as_ref().unwrap_or(&0).min(&CHUNK);
            self.buffer.truncate(before + count);
            match read {
                Ok(0) => self.at_end = true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.error = Some(error);
                    self.at_end = true;
                }
            }
        }
    }

    fn skip(&mut self, len: usize) {
        self.buffer.advance(len);
        self.position += len as u64;
        self.skipped += len as u64;
    }

    /// The next intact block that begins before `limit`, as an offset in the input.
    pub(super) fn next_before(&mut self, limit: u64) -> Option<RawBlock> {
        while self.position < limit {
            self.fill(PREFIX_LEN);
            match self.check() {
                Ok(block) => return Some(block),
                Err(skip) => self.skip(skip),
            }
            self.skip_to_marker(limit);
            if self.at_end && self.buffer.is_empty() {
                return None;
            }
        }
        None
    }

    pub(super) fn next(&mut self) -> Option<RawBlock> {
        self.next_before(u64::MAX)
    }

    /// The block at the start of the buffer, or how many bytes to skip.
    fn check(&mut self) -> Result<RawBlock, usize> {
        let Some(start) = self.buffer.first_chunk() else {
            return Err(self.buffer.len());
        };
        let Ok(prefix) = Prefix::decode(start) else {
            return Err(1);
        };
        let len = PREFIX_LEN + prefix.stored as usize;
        self.fill(len);
        if let Some(block) = self.buffer.get(..len)
            && crc32fast::hash(&block[PREFIX_LEN..]) == prefix.checksum
        {
            self.position += len as u64;
            self.torn = None;
            let bytes = self.buffer.split_to(len).freeze();
            return Ok(RawBlock { prefix, bytes });
        }
        self.torn = Some(prefix);
        self.wasted += len as u64;
        let may_look_inside = self.wasted <= MAX_WASTE.saturating_add(self.position * WASTE_RATIO);
        Err(if may_look_inside {
            1
        } else {
            len.min(self.buffer.len())
        })
    }

    /// Skips to the next marker, to `limit`, or to the end of the input.
    fn skip_to_marker(&mut self, limit: u64) {
        while self.position < limit {
            let found = self
                .buffer
                .windows(MARKER.len())
                .position(|bytes| bytes == MARKER);
            if let Some(found) = found {
                return self.skip(found);
            }
            // A marker may have begun in the last bytes.
            self.skip(self.buffer.len().saturating_sub(MARKER.len() - 1));
            if self.at_end {
                return self.skip(self.buffer.len());
            }
            self.fill(MARKER.len());
        }
    }
}
