//! The options of a run, and why it can fail.

use std::{future::Future, io, pin::Pin, time::Duration};

use thiserror::Error;

use super::recorder::{RecordError, RecordTo};
use crate::{
    filter::{Detail, Selection},
    preflight::HostError,
    probe::{LoadError, half_open_source::RequestedMode},
    sys::netns::NetNs,
    util::table_bounds::TableBounds,
    verdict::Mode,
};

/// The options of a run.
pub struct WatchOptions {
    /// The connections to watch.
    pub selection: Selection,
    /// Whether namespaces outside the selection in which packets were dropped are entered too: their routes and
    /// addresses are known then.
    pub enters_dropping: bool,
    /// When handshakes are judged, and so which lines there are.
    pub mode: Mode,
    /// How much of a handshake comes out of the kernel.
    pub detail: Detail,
    /// The requested source of a half-open's end.
    pub requested_mode: RequestedMode,
    /// Size of the ring, bytes; a power of two.
    pub ring_bytes: u32,
    /// Bounds of the tables.
    pub tables: TableBounds,
    /// Ends the run.
    pub duration: Option<Duration>,
    /// Ends the run after this number of `handshake` lines.
    pub count: Option<u64>,
    /// Level of the kernel side's own log (`aya_log::Level`); 0: off, at no cost.
    pub log_level: u8,
    /// Once attached, give up every capability that is not needed any more ([`crate::sys::privileges`]): for
    /// the calling thread, and those that it begins.
    pub give_up_privileges: bool,
    /// TCP connections are made after that: then the right to make such sockets stays.
    pub connects: bool,
    /// Problems are judged over this window, again and again; `None`: once, when the run ends.
    pub window: Option<Duration>,
    /// Where the run is recorded.
    pub record: Option<RecordTo>,
    /// Whether the sockets are counted by state when the run ends.
    pub count_sockets: bool,
    /// The namespaces that were asked for (`--netns`), or that only the caller can name.
    pub namespaces: Vec<NetNs>,
}

/// The options of a run beside its selection.
pub struct Setup {
    /// Size of the ring, bytes.
    pub ring_bytes: u32,
    /// Bounds of the tables.
    pub tables: TableBounds,
    /// Level of the kernel side's own log.
    pub log_level: u8,
    /// How much of a handshake comes out of the kernel.
    pub detail: Detail,
    /// When handshakes are judged.
    pub mode: Mode,
    /// The requested source of a half-open's end.
    pub requested_mode: RequestedMode,
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum WatchError {
    /// This host cannot run it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The kernel refused the programs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The output cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// Nothing can be recorded.
    #[error("the recording: {0}")]
    Record(#[from] RecordError),
    /// Anything else the system refused.
    #[error("{0}: {1}")]
    System(&'static str, #[source] io::Error),
    /// The kernel side's counters cannot be read.
    #[error("the kernel side's counters: {0}")]
    Stats(#[from] aya::maps::MapError),
}

/// Resolves when the run is to end.
pub type Stop = Pin<Box<dyn Future<Output = ()>>>;

/// Called once everything is attached: from here on nothing is missed.
pub type OnReady = Box<dyn FnOnce()>;
