//! Why something was not recorded.

use std::io;

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A frame is longer than [`MAX_FRAME`](super::MAX_FRAME).
    #[error("a frame of {len} bytes is too long to record")]
    FrameTooLong {
        /// Its bytes.
        len: usize,
    },
    /// A header's meta is longer than [`MAX_META`](super::MAX_META).
    #[error("a header of {len} bytes is too long to record")]
    MetaTooLong {
        /// Its bytes.
        len: usize,
    },
    /// The output refused it.
    #[error("cannot write the recording: {0}")]
    Io(#[from] io::Error),
}
