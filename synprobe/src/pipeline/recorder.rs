//! Inputs → a recording, on a thread of its own: the ring waits for no disk.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::{
    engine::{Input, RunConfig},
    model::WallClock,
    recording::{
        self, CreateError, Frame, Header, Rolling, RollingError, WriteError, WriteStats, Writer,
        inputs,
    },
    sys::clock::monotonic_ns,
};

/// Bytes that are handed to the thread at a time.
const HAND_OVER: usize = 64 << 10;
/// Bytes that may wait for the disk: what comes while there are more is lost, counted and reported.
const WAITING: usize = 64 << 20;
/// What was recorded reaches the file within this time.
const FLUSH: Duration = Duration::from_secs(1);
/// Inputs that a new segment begins with, at most: names and settings.
const RESTATED: usize = 65_536;

/// Where a recording goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordTo {
    /// Into one file.
    File(PathBuf),
    /// Into a folder, of which only the last part stays.
    Rolling {
        /// The folder.
        folder: PathBuf,
        /// How much of the past stays.
        keep: Duration,
        /// Bytes that it may take.
        max_size: u64,
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
    /// There can be no thread.
    #[error("a thread for the recording: {0}")]
    Thread(io::Error),
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

/// A store that is open and has no thread yet: it is opened with all privileges, and written with fewer.
pub(super) struct Prepared(Store);

enum Store {
    File(Box<Writer<File>>),
    Rolling(Box<Rolling>),
}

impl Prepared {
    /// Creates the file, or takes the folder.
    pub fn new(to: &RecordTo, config: &RunConfig, clock: WallClock) -> Result<Self, RecordError> {
        let offset_ns = i64::try_from(clock.offset_ns()).unwrap_or(0);
        let header = Header::new(run_id(), offset_ns, serde_json::to_vec(config)?);
        Ok(Self(match to {
            RecordTo::File(path) => {
                Store::File(Box::new(Writer::new(recording::create(path)?, &header)?))
            }
            RecordTo::Rolling {
                folder,
                keep,
                max_size,
            } => {
                if is_foreign(folder) {
                    return Err(RecordError::ForeignFolder(folder.clone()));
                }
                Store::Rolling(Box::new(Rolling::open(folder, *keep, *max_size, header)?))
            }
        }))
    }

    /// Begins the thread.
    pub fn begin(self) -> Result<Recorder, RecordError> {
        let (queue, messages) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let failed = Arc::new(AtomicU64::new(0));
        let ours = Arc::clone(&waiting);
        let thread = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || Storing::new(self.0, ours).run(&messages))
            .map_err(RecordError::Thread)?;
        Ok(Recorder {
            buffer: BytesMut::with_capacity(2 * HAND_OVER),
            at_ns: monotonic_ns(),
            queue,
            waiting,
            unstored: 0,
            lost: failed,
            thread,
        })
    }
}

/// Whether a folder that exists belongs to another user.
fn is_foreign(folder: &Path) -> bool {
    // SAFETY: geteuid() takes nothing and cannot fail.
    let ours = unsafe { libc::geteuid() };
    std::fs::metadata(folder).is_ok_and(|metadata| metadata.uid() != ours)
}

/// Who can see two recordings can tell whether they are of one run.
fn run_id() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut id = [1; 16];
    for half in id.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(monotonic_ns()).to_ne_bytes());
    }
    id
}

enum Message {
    /// Frames, each behind its kind, time and length.
    Frames(Bytes),
    /// The segment is to be closed.
    CloseSegment,
}

const RECORD: u8 = 0;
const OTHER: u8 = 1;
/// Bytes before each frame: its kind, time and length.
const HEAD: usize = 13;

/// The engine's side.
pub(super) struct Recorder {
    buffer: BytesMut,
    /// The time of what comes now, CLOCK_MONOTONIC nanoseconds.
    at_ns: u64,
    queue: mpsc::Sender<Message>,
    /// Bytes that the thread has not written yet.
    waiting: Arc<AtomicUsize>,
    /// Inputs that found no room, since the last that did.
    unstored: u64,
    /// All of them.
    lost: Arc<AtomicU64>,
    thread: thread::JoinHandle<RecordSummary>,
}

impl Recorder {
    /// Takes in one input.
    pub fn input(&mut self, input: &Input) {
        if self.waiting.load(Ordering::Relaxed) > WAITING {
            self.unstored += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.unstored > 0 {
            let unstored = std::mem::take(&mut self.unstored);
            let at_ns = self.at_ns;
            let buffer = &mut self.buffer;
            if let Err(error) = inputs::encode_lost(unstored, |frame| put(buffer, at_ns, frame)) {
                log::warn!("{error}");
            }
        }
        let (at_ns, buffer) = (self.at_ns, &mut self.buffer);
        if let Err(error) = inputs::encode(input, |frame| put(buffer, at_ns, frame)) {
            log::warn!("{error}");
            self.unstored += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        if self.buffer.len() >= HAND_OVER {
            self.hand_over();
        }
    }

    /// Everything up to here is of one moment.
    pub fn moment_ends(&mut self) {
        self.at_ns = monotonic_ns();
    }

    /// Gives the thread what was taken in.
    pub fn hand_over(&mut self) {
        self.moment_ends();
        if self.buffer.is_empty() {
            return;
        }
        let frames = self.buffer.split().freeze();
        self.buffer.reserve(HAND_OVER);
        self.waiting.fetch_add(frames.len(), Ordering::Relaxed);
        // The thread ends with the queue, and not before.
        let _ = self.queue.send(Message::Frames(frames));
    }

    /// Closes the segment of a rolling recording.
    pub fn close_segment(&mut self) {
        self.hand_over();
        let _ = self.queue.send(Message::CloseSegment);
    }

    /// Writes what is left.
    pub fn finish(mut self) -> RecordSummary {
        self.hand_over();
        let lost = self.lost.load(Ordering::Relaxed);
        drop(self.queue);
        let mut summary = self.thread.join().unwrap_or_else(|_| RecordSummary {
            error: Some("the recorder panicked".to_owned()),
            ..RecordSummary::default()
        });
        summary.lost += lost;
        summary
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

/// The thread's side.
struct Storing {
    store: Store,
    waiting: Arc<AtomicUsize>,
    /// What a segment has to begin with to be understood alone, by what it is about.
    restated: BTreeMap<(u8, u64), Bytes>,
    restating: inputs::InputDecoder,
    error: Option<String>,
    at_ns: u64,
}

impl Storing {
    fn new(store: Store, waiting: Arc<AtomicUsize>) -> Self {
        Self {
            store,
            waiting,
            restated: BTreeMap::new(),
            restating: inputs::InputDecoder::default(),
            error: None,
            at_ns: 0,
        }
    }

    fn run(mut self, messages: &mpsc::Receiver<Message>) -> RecordSummary {
        let mut flushed_ns = monotonic_ns();
        loop {
            match messages.recv_timeout(FLUSH) {
                Ok(Message::Frames(frames)) => {
                    self.frames(&frames);
                    self.waiting.fetch_sub(frames.len(), Ordering::Relaxed);
                }
                Ok(Message::CloseSegment) => self.close_segment(),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
            let now_ns = monotonic_ns();
            if now_ns.saturating_sub(flushed_ns) >= FLUSH.as_nanos() as u64 {
                flushed_ns = now_ns;
                let flushed = match &mut self.store {
                    Store::File(writer) => writer.flush(),
                    Store::Rolling(rolling) => rolling.flush(now_ns),
                };
                self.note(flushed);
            }
        }
    }

    fn frames(&mut self, frames: &[u8]) {
        let mut at = 0;
        while let Some(head) = frames.get(at..at + HEAD) {
            let kind = head[0];
            let mut number = [0; 8];
            number.copy_from_slice(&head[1..9]);
            self.at_ns = u64::from_ne_bytes(number);
            let mut len = [0; 4];
            len.copy_from_slice(&head[9..]);
            let end = at + HEAD + u32::from_ne_bytes(len) as usize;
            let bytes = &frames[at + HEAD..end];
            at = end;
            if kind == RECORD {
                self.push(Frame::Record(bytes));
            } else {
                self.restate(bytes);
                self.push(Frame::Other(bytes));
            }
        }
    }

    fn push(&mut self, frame: Frame<'_>) {
        let at_ns = self.at_ns;
        let pushed = match &mut self.store {
            Store::File(writer) => writer.push(at_ns, frame),
            Store::Rolling(rolling) => match rolling.ensure_segment(at_ns) {
                Ok(begun) => {
                    let restated = if begun { Some(&self.restated) } else { None };
                    let all = restated.into_iter().flat_map(BTreeMap::values);
                    all.map(|bytes| Frame::Other(bytes))
                        .chain([frame])
                        .try_for_each(|frame| rolling.push(at_ns, frame))
                }
                Err(error) => rolling.push(at_ns, frame).and(Err(error)),
            },
        };
        self.note(pushed);
    }

    /// Keeps what later segments need to be understood alone.
    fn restate(&mut self, bytes: &[u8]) {
        if matches!(self.store, Store::File(_)) {
            return;
        }
        // One that is longer than a frame is not restated.
        let is_whole = self.restating.is_between_inputs();
        let decoded = self.restating.frame(Frame::Other(bytes));
        let Some(inputs::Decoded::Input(input)) = decoded.filter(|_| is_whole) else {
            return;
        };
        let key = match &input {
            Input::NetnsName(inode, _) => (0, u64::from(*inode)),
            Input::CgroupPath(id, _) => (1, *id),
            Input::Settings(netns, _) => (2, u64::from(*netns)),
            Input::Addresses(netns, _) => (3, u64::from(*netns)),
            Input::Owners(owners) if !owners.is_empty() => (4, u64::from(owners[0].netns)),
            Input::BatchEnds(_) => (5, 0),
            _ => return,
        };
        if self.restated.len() >= RESTATED && !self.restated.contains_key(&key) {
            self.restated.pop_first();
        }
        self.restated.insert(key, Bytes::copy_from_slice(bytes));
    }

    fn close_segment(&mut self) {
        if let Store::Rolling(rolling) = &mut self.store {
            let closed = rolling.close_segment().map(drop);
            self.note(closed);
        }
    }

    /// An error is told once, when it begins.
    fn note(&mut self, result: Result<(), WriteError>) {
        if let Err(error) = result
            && self.error.is_none()
        {
            log::warn!("the recording: {error}");
            self.error = Some(error.to_string());
        }
    }

    fn finish(mut self) -> RecordSummary {
        let (stats, result) = match self.store {
            Store::File(writer) => {
                let stats = writer.stats();
                match writer.finish() {
                    Ok((_, stats)) => (stats, Ok(())),
                    Err(error) => (stats, Err(error)),
                }
            }
            Store::Rolling(rolling) => {
                let stats = rolling.stats().written;
                match rolling.finish() {
                    Ok(stats) => (stats.written, Ok(())),
                    Err(error) => (stats, Err(error)),
                }
            }
        };
        if let Err(error) = result {
            self.error.get_or_insert_with(|| error.to_string());
        }
        summary(stats, self.error)
    }
}

fn summary(stats: WriteStats, error: Option<String>) -> RecordSummary {
    RecordSummary {
        frames: stats.frames,
        bytes: stats.written_bytes,
        lost: stats.lost_frames,
        error,
    }
}
