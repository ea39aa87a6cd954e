//! An open recording.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use super::ReplayError;
use crate::{
    engine::RunConfig,
    recording::{Reader, SegmentHeader},
    sys::privileges,
};

/// An open recording.
pub struct Recording {
    pub(super) file: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) reader: Reader<File>,
    /// How the run was set up.
    pub config: RunConfig,
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    ///
    /// [`ReplayError`].
    pub fn open(file: &Path) -> Result<Self, ReplayError> {
        let opened = privileges::as_the_caller(|| File::open(file)).flatten();
        let opened = opened.map_err(|error| ReplayError::Open {
            file: file.to_owned(),
            error: error.into(),
        })?;
        Self::of(opened, file)
    }

    /// Reads one from where `opened` is; `file` is its name.
    ///
    /// # Errors
    ///
    /// [`ReplayError`].
    pub fn of(opened: File, file: &Path) -> Result<Self, ReplayError> {
        let (header, reader) = Reader::open(opened).map_err(|error| ReplayError::Open {
            file: file.to_owned(),
            error,
        })?;
        let config = described(file, &header)?;
        Ok(Self {
            file: file.to_owned(),
            header,
            reader,
            config,
        })
    }
}

/// How a run was set up, as a segment's header has it.
pub(super) fn described(file: &Path, header: &SegmentHeader) -> Result<RunConfig, ReplayError> {
    serde_json::from_slice(&header.meta).map_err(|error| ReplayError::Header {
        file: file.to_owned(),
        error,
    })
}
