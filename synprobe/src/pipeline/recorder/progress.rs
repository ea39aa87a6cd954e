//! What the engine's side and the recorder's thread know of each other.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crate::{recording::WriteStats, status::RecordSummary};

/// See the module.
#[derive(Default)]
pub(super) struct Progress {
    /// Bytes that the thread has not written yet.
    waiting: AtomicUsize,
    /// Inputs that did not come to the thread.
    unstored: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    lost_frames: AtomicU64,
    /// The first one.
    error: OnceLock<String>,
}

impl Progress {
    /// Bytes that the thread has not written yet.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// So many bytes go to the thread.
    pub fn handed_over(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Relaxed);
    }

    /// The thread is done with so many bytes.
    pub fn taken(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Relaxed);
    }

    /// An input does not come to the thread.
    pub fn unstored(&self) {
        self.unstored.fetch_add(1, Relaxed);
    }

    /// What was written so far.
    pub fn written(&self, stats: &WriteStats) {
        self.frames.store(stats.frames, Relaxed);
        self.bytes.store(stats.written_bytes, Relaxed);
        self.lost_frames.store(stats.lost_frames, Relaxed);
    }

    /// Writing failed. Whether that is the first time.
    pub fn failed(&self, error: String) -> bool {
        self.error.set(error).is_ok()
    }

    /// Inputs that did not come to the thread.
    pub fn lost(&self) -> u64 {
        self.unstored.load(Relaxed)
    }

    /// What the recording holds so far.
    pub fn summary(&self) -> RecordSummary {
        RecordSummary {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            lost: self.lost_frames.load(Relaxed) + self.lost(),
            error: self.error.get().cloned(),
        }
    }
}
