//! The segment that is being written.

use std::{fs::File, io, path::PathBuf};

use super::{
    super::writer::{SegmentEncoder, write_both},
    ClosedSegments,
};

/// Most segments deleted for one block on a full disk, which others may have filled.
const MAX_DELETED: usize = 2;

/// The segment that is written.
pub(super) struct Open {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) numbering: SegmentEncoder,
    /// Bytes of whole blocks in the file.
    pub(super) len: u64,
    /// Of them, header and restated state: what the segment had when its first own frame came.
    pub(super) base_len: Option<u64>,
    pub(super) started_ns: u64,
}

impl Open {
    /// Writes a block. On a full disk, deletes the oldest segments first.
    pub(super) fn write(
        &mut self,
        prefix: &[u8],
        payload: &[u8],
        closed: &mut ClosedSegments,
    ) -> io::Result<()> {
        for _ in 0..MAX_DELETED {
            match write_both(&mut self.file, prefix, payload) {
                Err(error) if is_full(&error) => {}
                other => return other,
            }
            // Without the part of the block that did fit.
            self.file.set_len(self.len)?;
            if !closed.delete_oldest() {
                break;
            }
        }
        write_both(&mut self.file, prefix, payload)
    }
}

/// Is the disk, or the owner's share of it, used up?
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    [StorageFull, QuotaExceeded].contains(&error.kind())
}
