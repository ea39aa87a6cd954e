//! The recorder's thread: frames → the file or the folder.

use std::{
    fs::File,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use super::{
    HEAD, Message, RECORD, problem_cuts::ProblemCuts, progress::Progress, restated::RestatedInputs,
};
use crate::{
    engine::Input,
    recording::{FinishedBlock, Frame, Rolling, WriteError, Writer, inputs},
    sys::clock::monotonic_ns,
};

/// What was recorded reaches the file within this time.
const FLUSH: Duration = Duration::from_secs(1);

/// Where the frames go.
pub(super) enum Store {
    File(Box<Writer<File>>),
    Rolling(Box<Rolling>, Option<ProblemCuts>),
}

/// The thread's side.
pub(super) struct RecorderThread {
    store: Store,
    progress: Arc<Progress>,
    /// Each new segment begins with them.
    context: RestatedInputs,
    context_decoder: inputs::InputDecoder,
    at_ns: u64,
}

impl RecorderThread {
    pub fn new(store: Store, progress: Arc<Progress>) -> Self {
        Self {
            store,
            progress,
            context: RestatedInputs::default(),
            context_decoder: inputs::InputDecoder::default(),
            at_ns: 0,
        }
    }

    pub fn run(mut self, messages: &mpsc::Receiver<Message>) {
        let mut flushed_ns = monotonic_ns();
        loop {
            match messages.recv_timeout(FLUSH) {
                Ok(Message::Block(block)) => {
                    self.block(&block);
                    self.progress.taken(block.payload().len());
                }
                Ok(Message::Frames(frames)) => {
                    self.frames(&frames);
                    self.progress.taken(frames.len());
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
            self.progress.written(&match &self.store {
                Store::File(writer) => writer.stats(),
                Store::Rolling(rolling, _) => rolling.stats().written,
            });
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
                    let restated = match begun {
                        true => restate(&self.context, rolling, at_ns),
                        false => Ok(()),
                    };
                    rolling.push(at_ns, frame).and(restated)
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
        if let (Input::BatchEnds(offset_ns), Store::Rolling(rolling, _)) = (&input, &mut self.store)
        {
            rolling.set_realtime_offset_ns(*offset_ns);
        }
        self.context.keep(&input);
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
            && self.progress.failed(error.to_string())
        {
            log::warn!("the recording: {error}");
        }
    }

    fn finish(self) {
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
        self.progress.written(&stats);
        if let Err(error) = result {
            self.progress.failed(error.to_string());
        }
    }
}

/// Begins a segment with what its frames need.
fn restate(context: &RestatedInputs, rolling: &mut Rolling, at_ns: u64) -> Result<(), WriteError> {
    let mut pushed = Ok(());
    for input in context.inputs() {
        // One that cannot be encoded was not recorded before either.
        let _ = inputs::encode(input, |frame| {
            if pushed.is_ok() {
                pushed = rolling.push(at_ns, frame);
            }
        });
    }
    pushed
}
