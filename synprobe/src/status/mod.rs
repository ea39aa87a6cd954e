//! The state of a run at one moment, and requests for it: of `synprobe serve` at a scrape, of `synprobe top` for a
//! frame, of a countdown.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use crate::{
    engine::EngineSnapshot,
    model::{Handshake, Line, WallClock},
    recording::HeldFolder,
    view::View,
};

/// The state of a run at one moment.
#[derive(Clone, Debug)]
pub struct RunStatus {
    /// Of the engine; peers and handshakes in progress only where they were asked for.
    pub snapshot: EngineSnapshot,
    /// When it was read, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// Where in wall-clock time that lies.
    pub clock: WallClock,
    /// Lines that standard output lost because it was too slow.
    pub lines_lost: u64,
    /// Inputs that are not in the recording; `None`: nothing is recorded.
    pub not_recorded: Option<u64>,
    /// Handshakes in progress, judged as if they ended now; `None`: they were not asked for.
    pub judged: Option<Vec<Handshake>>,
    /// The last recording that was begun while the run went on.
    pub part: Option<PartState>,
}

/// What a recording holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordSummary {
    /// Inputs, kernel records included.
    pub frames: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Inputs that are not in it.
    pub lost: u64,
    /// Why, where writing failed.
    pub error: Option<String>,
}

impl RecordSummary {
    /// Why writing failed, in the system's words alone.
    pub fn cause(&self) -> Option<&str> {
        let error = self.error.as_deref()?;
        let cause = error.strip_prefix("cannot write the recording: ");
        cause.unwrap_or(error).split(" (os error").next()
    }
}

/// A recording of a part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedPart {
    /// Where it is.
    pub file: PathBuf,
    /// What it holds so far.
    pub summary: RecordSummary,
}

/// What has become of such a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartState {
    /// It could not be begun: why, in one line.
    Refused(String),
    /// It is being written.
    Going(RecordedPart),
    /// It is over.
    Ended(RecordedPart),
}

/// Asks a run for its status.
pub struct StatusRequest {
    /// The answer may never come: the run may be over.
    reply: oneshot::Sender<Arc<RunStatus>>,
    /// Handshakes in progress to be judged for it, at most.
    pub judged: usize,
    /// All handshakes in progress that may be listed, and not the oldest alone.
    pub lists_all: bool,
    /// Before that, a recording of what comes is begun, or the one that is being written ends.
    pub switches_recording: bool,
}

impl StatusRequest {
    /// A request, and where its answer comes.
    pub fn new() -> (Self, oneshot::Receiver<Arc<RunStatus>>) {
        Self::judging(0)
    }

    /// The same, with handshakes in progress, judged as if they ended now: at most `judged`.
    pub fn judging(judged: usize) -> (Self, oneshot::Receiver<Arc<RunStatus>>) {
        let (reply, answer) = oneshot::channel();
        let request = Self {
            reply,
            judged,
            lists_all: false,
            switches_recording: false,
        };
        (request, answer)
    }

    /// Answers it. Whoever asked may be gone.
    pub fn answer(self, status: Arc<RunStatus>) {
        let _ = self.reply.send(status);
    }
}

/// The run's end of the requests.
pub type StatusRequests = mpsc::Receiver<StatusRequest>;

/// Requests, and what their answers have.
pub struct StatusQueries {
    /// The requests.
    pub requests: StatusRequests,
    /// The peers too, and at most this many of the handshakes in progress; `None`: neither.
    pub most_open: Option<usize>,
    /// Where a recording goes that is begun by a request; `None`: none can be.
    pub record_into: Option<HeldFolder>,
}

/// Who else takes part in a run that is served.
pub struct Served {
    /// Requests for its status.
    pub queries: StatusQueries,
    /// More outputs of its lines. Each counts what it loses itself.
    pub outputs: Vec<OtherOutput>,
}

/// An output beside the standard one.
pub struct OtherOutput {
    /// What takes the lines.
    pub view: Box<dyn View + Send>,
    /// The lines that it uses.
    pub uses: Box<dyn Fn(&Line) -> bool>,
}

#[cfg(test)]
pub(crate) mod fixtures;
