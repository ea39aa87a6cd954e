//! Inputs → a recording, on a thread of its own: the ring never waits for the disk.

mod counts_at_start;
mod parts;
mod problem_cuts;
mod progress;
mod restated;
mod storage;

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

pub(super) use counts_at_start::CountsAtStart;
pub(super) use parts::PartRecorder;
pub(super) use problem_cuts::OpenedProblem;
use problem_cuts::ProblemCuts;
use progress::Progress;
use storage::{RecorderThread, Store};

use crate::{
    engine::{Input, RunConfig},
    model::WallClock,
    recording::{
        self, BlockEncoder, CreateError, FinishedBlock, Frame, ProblemFiles, Rolling, RollingError,
        SegmentHeader, WriteError, Writer, inputs,
    },
    status::RecordSummary,
    sys::clock::monotonic_ns,
};

/// Bytes of frames that are handed to the thread at a time.
const HAND_OVER: usize = 64 << 10;
/// Bytes that may wait for the disk. Beyond them inputs are lost, counted and reported.
const WAITING: usize = 64 << 20;

/// Where a recording goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordTo {
    /// Into one file.
    File(PathBuf),
    /// Into a folder that keeps only the most recent part.
    Rolling {
        /// The folder.
        folder: PathBuf,
        /// How much of the past stays.
        keep: Duration,
        /// Bytes that it may take.
        max_size: u64,
        /// Recordings of problems that stay beside it; with one or more they may take half of the bytes.
        problems: usize,
    },
}

/// Why nothing can be recorded.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The folder cannot be used.
    #[error(transparent)]
    Rolling(#[from] RollingError),
    /// The folder is another user's: after the start no privilege is left that would let us write there.
    #[error(
        "{} belongs to another user: chown it to the user that runs synprobe, or name another folder",
        .0.display()
    )]
    ForeignFolder(PathBuf),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The description of the run cannot be written.
    #[error("the description of the run: {0}")]
    Header(#[from] serde_json::Error),
    /// The thread cannot be created.
    #[error("a thread for the recording: {0}")]
    Thread(io::Error),
}

/// An open store without a thread. It is opened with all privileges, and written with fewer.
pub(super) struct Prepared(Store);

impl Prepared {
    /// Creates the file, or takes the folder.
    pub fn new(to: &RecordTo, config: &RunConfig, clock: WallClock) -> Result<Self, RecordError> {
        let offset_ns = i64::try_from(clock.offset_ns()).unwrap_or(0);
        let header = SegmentHeader::new(run_id(), offset_ns, serde_json::to_vec(config)?);
        Ok(Self(match to {
            RecordTo::File(path) => return Self::file(recording::create(path)?, &header),
            RecordTo::Rolling {
                folder,
                keep,
                max_size,
                problems,
            } => {
                if is_foreign(folder) {
                    return Err(RecordError::ForeignFolder(folder.clone()));
                }
                let size = match problems {
                    0 => *max_size,
                    _ => max_size / 2,
                };
                let rolling = Rolling::open(folder, *keep, size, header);
                let rolling = Box::new(rolling.map_err(|error| match error {
                    RollingError::TooSmall { least, .. } => RollingError::TooSmall {
                        size: *max_size,
                        least: least * (*max_size / size.max(1)).max(1),
                    },
                    other => other,
                })?);
                let files = ProblemFiles::new(folder, *problems, max_size - size);
                Store::Rolling(rolling, (*problems > 0).then(|| ProblemCuts::new(files)))
            }
        }))
    }

    /// A file that was created.
    fn file(file: File, header: &SegmentHeader) -> Result<Self, RecordError> {
        Ok(Self(Store::File(Box::new(Writer::new(file, header)?))))
    }

    /// Begins the thread.
    pub fn begin(self) -> Result<Recorder, RecordError> {
        let (queue, messages) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let ours = Arc::clone(&progress);
        let collected = match &self.0 {
            Store::File(_) => Collected::Block(Box::default()),
            Store::Rolling(..) => Collected::Frames(BytesMut::with_capacity(2 * HAND_OVER)),
        };
        let thread = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || RecorderThread::new(self.0, ours).run(&messages))
            .map_err(RecordError::Thread)?;
        Ok(Recorder {
            outbox: Outbox {
                collected,
                queue,
                progress,
            },
            at_ns: monotonic_ns(),
            unstored: 0,
            before: None,
            thread,
        })
    }
}

/// Whether a folder that exists belongs to another user.
pub fn is_foreign(folder: &Path) -> bool {
    // SAFETY: geteuid() takes nothing and cannot fail.
    let ours = unsafe { libc::geteuid() };
    std::fs::metadata(folder).is_ok_and(|metadata| metadata.uid() != ours)
}

/// Identifies the run: recordings of one run have the same id.
fn run_id() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut id = [1; 16];
    for half in id.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(monotonic_ns()).to_ne_bytes());
    }
    id
}

enum Message {
    /// For a file.
    Block(FinishedBlock),
    /// Frames, each behind its kind, time and length.
    Frames(Bytes),
    /// The segment is to be closed.
    CloseSegment,
    /// A problem has opened.
    Problem(OpenedProblem),
}

const RECORD: u8 = 0;
const OTHER: u8 = 1;
/// Bytes before each frame: its kind, time and length.
const HEAD: usize = 13;

/// The engine's side.
pub(super) struct Recorder {
    outbox: Outbox,
    /// The time of what comes now, CLOCK_MONOTONIC nanoseconds.
    at_ns: u64,
    /// Inputs that were not stored since the last one that was.
    unstored: u64,
    /// Where the recording began in the middle of the run.
    before: Option<CountsAtStart>,
    thread: thread::JoinHandle<()>,
}

impl Recorder {
    /// Takes in one input.
    pub fn input(&mut self, input: &Input) {
        if self.outbox.progress.waiting() > WAITING {
            self.unstored += 1;
            self.outbox.progress.unstored();
            return;
        }
        let since = self.before.as_ref().map(|before| before.since(input));
        let input = match &since {
            None => input,
            Some(Some(since)) => since,
            Some(None) => return,
        };
        let (at_ns, outbox) = (self.at_ns, &mut self.outbox);
        if self.unstored > 0 {
            let unstored = std::mem::take(&mut self.unstored);
            if let Err(error) = inputs::encode_lost(unstored, |frame| outbox.put(at_ns, frame)) {
                log::warn!("{error}");
            }
        }
        if let Err(error) = inputs::encode(input, |frame| outbox.put(at_ns, frame)) {
            log::warn!("{error}");
            self.unstored += 1;
            self.outbox.progress.unstored();
        }
    }

    /// Everything up to here is of one moment.
    pub fn moment_ends(&mut self) {
        self.at_ns = monotonic_ns();
    }

    /// Inputs that are not in the recording.
    pub fn lost(&self) -> u64 {
        self.outbox.progress.lost()
    }

    /// Gives the thread what was taken in.
    pub fn hand_over(&mut self) {
        self.moment_ends();
        self.outbox.hand_over();
    }

    /// Closes the segment of a rolling recording.
    pub fn close_segment(&mut self) {
        self.hand_over();
        let _ = self.outbox.queue.send(Message::CloseSegment);
    }

    /// A problem has opened: its recording is to be cut.
    pub fn problem_opened(&mut self, problem: OpenedProblem) {
        self.hand_over();
        let _ = self.outbox.queue.send(Message::Problem(problem));
    }

    /// What the recording holds so far.
    pub fn summary(&self) -> RecordSummary {
        self.outbox.progress.summary()
    }

    /// Nothing more comes: the thread writes what is left, and ends.
    fn end(mut self) -> EndingRecorder {
        self.hand_over();
        EndingRecorder {
            progress: Arc::clone(&self.outbox.progress),
            thread: self.thread,
        }
    }

    /// Writes what is left, and waits for that.
    pub fn finish(self) -> RecordSummary {
        self.end().wait()
    }
}

/// A thread that writes what is left.
struct EndingRecorder {
    progress: Arc<Progress>,
    thread: thread::JoinHandle<()>,
}

impl EndingRecorder {
    fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    fn summary(&self) -> RecordSummary {
        self.progress.summary()
    }

    /// Waits for its end.
    fn wait(self) -> RecordSummary {
        if self.thread.join().is_err() {
            self.progress.failed("the recorder panicked".to_owned());
        }
        self.progress.summary()
    }
}

/// What was taken in and is not handed over yet.
enum Collected {
    /// For a file. Coding costs less here, where frames are in the cache, than passing them to another CPU.
    Block(Box<BlockEncoder>),
    /// For a folder, whose thread repeats some frames in each segment.
    Frames(BytesMut),
}

/// The way to the thread.
struct Outbox {
    collected: Collected,
    queue: mpsc::Sender<Message>,
    progress: Arc<Progress>,
}

impl Outbox {
    fn put(&mut self, at_ns: u64, frame: Frame<'_>) {
        match &mut self.collected {
            Collected::Block(encoder) => match encoder.push(at_ns, frame) {
                Ok(Some(block)) => self.send_block(block),
                Ok(None) => (),
                Err(error) => log::warn!("{error}"),
            },
            Collected::Frames(buffer) => {
                put(buffer, at_ns, frame);
                if buffer.len() >= HAND_OVER {
                    self.hand_over();
                }
            }
        }
    }

    fn hand_over(&mut self) {
        match &mut self.collected {
            Collected::Block(encoder) => {
                if let Some(block) = encoder.finish() {
                    self.send_block(block);
                }
            }
            Collected::Frames(buffer) if buffer.is_empty() => (),
            Collected::Frames(buffer) => {
                let frames = buffer.split().freeze();
                buffer.reserve(HAND_OVER);
                self.send(frames.len(), Message::Frames(frames));
            }
        }
    }

    fn send_block(&self, block: FinishedBlock) {
        self.send(block.payload().len(), Message::Block(block));
    }

    fn send(&self, bytes: usize, message: Message) {
        self.progress.handed_over(bytes);
        // The thread ends with the queue, and not before.
        let _ = self.queue.send(message);
    }
}

fn put(buffer: &mut BytesMut, at_ns: u64, frame: Frame<'_>) {
    let (kind, bytes) = match frame {
        Frame::Record(bytes) => (RECORD, bytes),
        Frame::Other(bytes) => (OTHER, bytes),
    };
    let mut head = [kind; HEAD];
    head[1..9].copy_from_slice(&at_ns.to_ne_bytes());
    head[9..].copy_from_slice(&(bytes.len() as u32).to_ne_bytes());
    buffer.reserve(HEAD + bytes.len());
    buffer.put_slice(&head);
    buffer.put_slice(bytes);
}
