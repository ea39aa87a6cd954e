//! The file format of recordings: blocks of frames, compressed and checksummed. docs/recording.md
//! describes it byte by byte.
//!
//! This layer does not know what is recorded. A frame is a record of the ring buffer or an opaque
//! input. [`BlockEncoder`] turns frames into blocks, [`Writer`] and [`Rolling`] store blocks,
//! [`Reader`] reads frames back from whatever part of a file is intact, [`cut`] joins the segments of
//! a folder.
//!
//! Times are nanoseconds of CLOCK_MONOTONIC on the recorded host unless a name says otherwise.

mod block;
mod codec;
mod cut;
mod damage;
mod encoder;
mod files;
mod folder;
mod header;
pub mod inputs;
mod problem_files;
mod reader;
mod rolling;
mod scan;
mod varint;
mod write_error;
mod writer;

#[cfg(test)]
mod tests;

pub use cut::{CutError, CutReport, cut};
pub use damage::Damage;
pub use encoder::{BlockEncoder, FinishedBlock};
pub use files::{CreateError, HeldFolder, create, create_or_open};
pub use folder::FolderError;
pub use header::SegmentHeader;
pub use problem_files::ProblemFiles;
pub use reader::{Item, OpenError, Reader};
pub use rolling::{Rolling, RollingError, RollingStats};
pub use write_error::WriteError;
pub use writer::{WriteStats, Writer};

/// File name extension of a recording, without the dot.
pub const EXTENSION: &str = "synrec";
/// Major version written, and the only one read.
pub const MAJOR: u16 = 1;
/// Minor version written. A later one is read: what it adds is skipped.
pub const MINOR: u16 = 0;

/// Most bytes of a block's payload, before and after compression.
pub const MAX_BLOCK: usize = 1 << 20;
/// Most bytes of a frame.
pub const MAX_FRAME: usize = MAX_BLOCK / 2;
/// Most bytes of [`SegmentHeader::meta`].
pub const MAX_META: usize = 256 << 10;
/// A block closes when its frames take this many bytes before compression.
pub const BLOCK_TARGET: usize = 64 << 10;
/// Most bytes that a [`Reader`] allocates, whatever it reads.
pub const MAX_READER_MEMORY: usize = 8 * MAX_BLOCK;
/// An intact block must begin within this many bytes from the start, or a file is no recording.
pub const MAX_LEAD: u64 = 4 << 20;

/// One frame of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A record as it stands in the ring buffer: see `synprobe_ebpf::event`. Any length is stored
    /// faithfully; one that starts with an event header is stored small.
    Record(&'a [u8]),
    /// An encoded input, opaque to this layer.
    Other(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// The frame's bytes.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Record(bytes) | Self::Other(bytes) => bytes,
        }
    }
}
