//! The recorder's thread: frames → the file or the folder.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{HEAD, Message, RECORD, RecordSummary, problem_cuts::ProblemCuts};
use crate::{
    engine::Input,
    recording::{FinishedBlock, Frame, Rolling, WriteError, WriteStats, Writer, inputs},
    sys::clock::monotonic_ns,
};

/// What was recorded reaches the file within this time.
const FLUSH: Duration = Duration::from_secs(1);
/// Inputs that a new segment begins with, at most: names and settings.
const MAX_CONTEXT: usize = 65_536;

/// Where the frames go.
pub(super) enum Store {
    File(Box<Writer<File>>),
    Rolling(Box<Rolling>, Option<ProblemCuts>),
}

/// The thread's side.
pub(super) struct RecorderThread {
    store: Store,
    waiting: Arc<AtomicUsize>,
    /// Inputs that each new segment begins with, so that it can be read alone; by kind and subject.
    context: BTreeMap<(u8, u64), Bytes>,
    context_decoder: inputs::InputDecoder,
    error: Option<String>,
    at_ns: u64,
}

impl RecorderThread {
    pub fn new(store: Store, waiting: Arc<AtomicUsize>) -> Self {
        Self {
            store,
            waiting,
            context: BTreeMap::new(),
            context_decoder: inputs::InputDecoder::default(),
            error: None,
            at_ns: 0,
        }
    }

    pub fn run(mut self, messages: &mpsc::Receiver<Message>) -> RecordSummary {
        let mut flushed_ns = monotonic_ns();
        loop {
            match messages.recv_timeout(FLUSH) {
                Ok(Message::Block(block)) => {
                    self.block(&block);
                    self.waiting
                        .fetch_sub(block.payload().len(), Ordering::Relaxed);
                }
                Ok(Message::Frames(frames)) => {
                    self.frames(&frames);
                    self.waiting.fetch_sub(frames.len(), Ordering::Relaxed);
                }
                Ok(Message::CloseSegment) => self.close_segment(),
                Ok(Message::Problem(problem)) => {
                    if let Store::Rolling(_, Some(cuts)) = &mut self.store {
                        cuts.want(problem);
                    }
                }
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
            self.cut_problem();
            let now_ns = monotonic_ns();
            if now_ns.saturating_sub(flushed_ns) >= FLUSH.as_nanos() as u64 {
                flushed_ns = now_ns;
                let flushed = match &mut self.store {
                    Store::File(writer) => writer.flush(),
                    Store::Rolling(rolling, _) => rolling.flush(now_ns),
                };
                self.note(flushed);
            }
        }
    }

    /// Begins to cut the recording of a problem, where one waits and it is time to.
    fn cut_problem(&mut self) {
        if let Store::Rolling(rolling, Some(cuts)) = &mut self.store
            && cuts.is_due()
        {
            let now_ns = monotonic_ns();
            let flushed = rolling.flush(now_ns);
            cuts.begin(now_ns);
            self.note(flushed);
        }
    }

    /// Writes a block of a file; a folder gets frames.
    fn block(&mut self, block: &FinishedBlock) {
        if let Store::File(writer) = &mut self.store {
            let written = writer.write_block(block);
            self.note(written);
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
                self.keep_context(bytes);
                self.push(Frame::Other(bytes));
            }
        }
    }

    fn push(&mut self, frame: Frame<'_>) {
        let at_ns = self.at_ns;
        let pushed = match &mut self.store {
            Store::File(writer) => writer.push(at_ns, frame),
            Store::Rolling(rolling, _) => match rolling.ensure_segment(at_ns) {
                Ok(begun) => {
                    let context = if begun { Some(&self.context) } else { None };
                    let all = context.into_iter().flat_map(BTreeMap::values);
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
    fn keep_context(&mut self, bytes: &[u8]) {
        if matches!(self.store, Store::File(_)) {
            return;
        }
        // An input that is longer than a frame is not kept.
        let is_whole = self.context_decoder.is_between_inputs();
        let decoded = self.context_decoder.frame(Frame::Other(bytes));
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
        if self.context.len() >= MAX_CONTEXT && !self.context.contains_key(&key) {
            self.context.pop_first();
        }
        self.context.insert(key, Bytes::copy_from_slice(bytes));
    }

    fn close_segment(&mut self) {
        if let Store::Rolling(rolling, _) = &mut self.store {
            let closed = rolling.close_segment().map(drop);
            self.note(closed);
        }
    }

    /// Logs the first error.
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
            Store::Rolling(rolling, cuts) => {
                let stats = rolling.stats().written;
                let finished = match rolling.finish() {
                    Ok(stats) => (stats.written, Ok(())),
                    Err(error) => (stats, Err(error)),
                };
                if let Some(cuts) = cuts {
                    cuts.finish(monotonic_ns());
                }
                finished
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
