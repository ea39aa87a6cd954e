//! Why a rolling recording did not begin, and what it did.

use super::{
    super::{FolderError, WriteError, WriteStats},
    MIN_KEEP,
};

/// Why a rolling recording cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum RollingError {
    /// The folder is in use, or cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The size bound is too small for the segments' headers.
    #[error("a rolling recording needs at least {least} bytes, not {size}")]
    TooSmall {
        /// The bound asked for.
        size: u64,
        /// The least that works.
        least: u64,
    },
    /// The time bound is too short.
    #[error("a rolling recording keeps at least {MIN_KEEP:?}")]
    TooShort,
    /// The header is too long.
    #[error(transparent)]
    Header(WriteError),
}

/// What a rolling recording did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RollingStats {
    /// Over all segments of this run, those that are deleted too.
    pub written: WriteStats,
    /// Segments begun.
    pub segments: u64,
    /// Segments deleted, those of earlier runs too.
    pub deleted_segments: u64,
    /// Bytes that the folder's segments occupy now.
    pub folder_bytes: u64,
}
