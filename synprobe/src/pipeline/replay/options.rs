//! How a recording is replayed, what comes of it, and why it cannot be.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use crate::{
    filter::Selection,
    model::{Counted, Detail, End, RunProgress},
    pipeline::NothingInCommon,
    recording::OpenError,
    util::table_bounds::TableBounds,
    verdict::Mode,
};

/// How a recording is replayed.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The recording.
    pub file: PathBuf,
    /// Narrows what the recording holds.
    pub selection: Selection,
    /// Only this network namespace, by the name that the recorded host had for it, or by inode.
    pub netns: Option<String>,
    /// When handshakes are judged.
    pub mode: Mode,
    /// Ends the replay after this time of the recorded host.
    pub duration: Option<Duration>,
    /// Ends it after this number of `handshake` lines.
    pub count: Option<u64>,
    /// What its tables may have at most; `None`: what the recorded run's could have.
    pub tables: Option<TableBounds>,
}

/// Why a recording cannot be replayed. Each is one line.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The file cannot be opened, or is no recording that this version reads.
    #[error("{}: {error}", file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// The description of the run cannot be read.
    #[error("{}: the description of the run cannot be read: {error}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// What is asked for is not in it.
    #[error(transparent)]
    NothingInCommon(#[from] NothingInCommon),
    /// No such namespace.
    #[error("no network namespace \"{name}\" in the recording; it has {known}")]
    NoNetns {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The output cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// No thread can be created.
    #[error("a thread: {0}")]
    Thread(io::Error),
}

/// A replay that is over.
#[derive(Debug)]
pub struct Replayed {
    /// The totals.
    pub end: End,
    /// Sockets by state at the end of the recorded run, where they were counted.
    pub socket_states: Option<Counted>,
    /// What was counted before.
    pub progress: RunProgress,
    /// How much of each handshake was recorded.
    pub detail: Detail,
    /// What could not be read, in one line.
    pub damage: Option<String>,
    /// Inputs that were fed.
    pub inputs: u64,
}
