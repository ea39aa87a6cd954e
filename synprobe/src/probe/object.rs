//! The compiled eBPF object (`cargo xtask ebpf`). `build.rs` compresses it: it is a quarter of its size in the agent.

use std::ops::Range;

use lz4_flex::block::{DecompressError, decompress_into, uncompressed_size};

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/synprobe.bpf.o.lz4"));
/// How the parser wants it aligned, bytes (`aya::include_bytes_aligned`).
const ALIGNMENT: usize = 32;

/// The object as it was compiled.
pub(super) struct Object {
    buffer: Vec<u8>,
    /// Where it lies in the buffer.
    place: Range<usize>,
}

impl Object {
    /// The one in this program.
    ///
    /// # Errors
    ///
    /// It is damaged.
    pub fn embedded() -> Result<Self, DecompressError> {
        let (size, compressed) = uncompressed_size(COMPRESSED)?;
        let mut buffer = vec![0; size + ALIGNMENT];
        // At most ALIGNMENT - 1: a byte can be aligned to anything.
        let begin = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let end = begin + decompress_into(compressed, &mut buffer[begin..])?;
        Ok(Self {
            buffer,
            place: begin..end,
        })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.place.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_committed_one_and_aligned() {
        let object = Object::embedded().unwrap();
        assert!(object.bytes() == include_bytes!("../../bpf/synprobe.bpf.o"));
        assert_eq!(object.bytes().as_ptr().align_offset(ALIGNMENT), 0);
        assert!(COMPRESSED.len() * 3 < object.bytes().len());
    }
}
