//! What `synprobe serve` answers over HTTP: metrics, problems, health, and a page.
//!
//! A thread of its own answers requests. It asks the run for its [`RunStatus`] at a scrape, at most once a
//! second, and the run never waits for it. Requests are bounded in size, number and time.

mod accept;
mod html;
mod listen;
mod metrics;
mod negotiate;
mod reply;
mod server;
mod sockets;
mod source;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub use listen::{BindError, Bound, ListenAddr};
pub use server::begin;

use crate::{engine::EngineSnapshot, model::WallClock};

/// The state of a run at one moment.
#[derive(Clone, Debug)]
pub struct RunStatus {
    /// Of the engine; peers and handshakes in progress only where they were asked for.
    pub snapshot: EngineSnapshot,
    /// When it was read, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// Where in wall-clock time that lies.
    pub clock: WallClock,
    /// Lines that outputs lost because they were too slow.
    pub lines_lost: u64,
    /// Inputs that are not in the recording; `None`: nothing is recorded.
    pub not_recorded: Option<u64>,
}

/// Asks a run for its status. The answer may never come: the run may be over.
pub type StatusRequest = oneshot::Sender<Arc<RunStatus>>;

/// The run's end of the requests.
pub type StatusRequests = mpsc::Receiver<StatusRequest>;

/// Requests, and what their answers have.
pub struct StatusQueries {
    /// The requests.
    pub requests: StatusRequests,
    /// The peers too, and at most this many of the handshakes in progress; `None`: neither.
    pub most_open: Option<usize>,
}

#[cfg(test)]
pub(crate) mod tests;
