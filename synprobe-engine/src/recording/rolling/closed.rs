//! The closed segments of a rolling recording: what they occupy, and which go first.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::super::{FolderError, folder::segments};

/// What files occupy is counted in units of this, as most file systems do.
const FS_BLOCK: u64 = 4096;

/// Bytes that a file of `len` bytes occupies.
pub(super) fn occupied(len: u64) -> u64 {
    len.next_multiple_of(FS_BLOCK)
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn now_realtime_ns() -> i64 {
    since_1970_ns(SystemTime::now())
}

fn since_1970_ns(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(nanoseconds(since_1970)).unwrap_or(i64::MAX)
}

struct Entry {
    path: PathBuf,
    /// Bytes occupied.
    occupied: u64,
    /// When it was last written, nanoseconds since 1970.
    last_realtime_ns: i64,
}

/// Closed segments, those of earlier runs included.
pub(super) struct ClosedSegments {
    /// The oldest first.
    entries: VecDeque<Entry>,
    deleted: u64,
}

impl ClosedSegments {
    /// The segments that a folder has, and when the last one was begun, milliseconds since 1970.
    pub(super) fn in_folder(folder: &Path) -> Result<(Self, i64), FolderError> {
        let mut closed = Self {
            entries: VecDeque::new(),
            deleted: 0,
        };
        let mut last_began_ms = i64::MIN;
        for segment in segments(folder)? {
            let metadata = fs::metadata(&segment.path);
            let metadata = metadata.map_err(FolderError::io(&segment.path))?;
            let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
            last_began_ms = segment.began_ms;
            closed.push(segment.path, metadata.len(), since_1970_ns(modified));
        }
        Ok((closed, last_began_ms))
    }

    /// Adds the newest: a file of `len` bytes, last written then.
    pub(super) fn push(&mut self, path: PathBuf, len: u64, last_realtime_ns: i64) {
        self.entries.push_back(Entry {
            path,
            occupied: occupied(len),
            last_realtime_ns,
        });
    }

    /// Bytes that all of them occupy.
    pub(super) fn occupied(&self) -> u64 {
        self.entries.iter().map(|entry| entry.occupied).sum()
    }

    /// How many were deleted.
    pub(super) fn deleted(&self) -> u64 {
        self.deleted
    }

    /// Deletes the oldest; `false`: there is none, or it cannot be deleted.
    pub(super) fn delete_oldest(&mut self) -> bool {
        let Some(oldest) = self.entries.front() else {
            return false;
        };
        match fs::remove_file(&oldest.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return false,
            _ => {}
        }
        self.entries.pop_front();
        self.deleted += 1;
        true
    }

    /// The clock went forward by so much, or back.
    pub(super) fn clock_was_set(&mut self, by_ns: i64) {
        for entry in &mut self.entries {
            entry.last_realtime_ns = entry.last_realtime_ns.saturating_add(by_ns);
        }
    }

    /// Deletes those that were last written more than `keep_ns` ago.
    pub(super) fn expire(&mut self, now_realtime_ns: i64, keep_ns: u64) {
        let keep_ns = i64::try_from(keep_ns).unwrap_or(i64::MAX);
        let oldest_ns = now_realtime_ns.saturating_sub(keep_ns);
        while self
            .entries
            .front()
            .is_some_and(|oldest| oldest.last_realtime_ns < oldest_ns)
            && self.delete_oldest()
        {}
    }
}
