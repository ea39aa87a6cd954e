//! Outputs subscribe to the engine's lines. Each has a thread and a bounded queue of its own. A slow output
//! loses its own lines, counted and reported. It delays nothing else.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    engine::Batch,
    model::{Body, Line, Lost, Missed},
    sys::patient::PATIENCE,
    view::View,
};

/// Lines that wait for one output, at most.
const WAITING: usize = 32_768;
/// An output that holds something back writes it when nothing came for this time.
const PAUSE: Duration = Duration::from_secs(1);

/// The reason of the `lost` line of an output that was too slow.
const TOO_SLOW: &str = "lines of this output: it was too slow for them";

/// Which lines an output uses.
pub type LinesUsed = Box<dyn Fn(&Line) -> bool>;

/// See the module.
pub struct Subscriber {
    queue: Arc<LineQueue>,
    /// The lines that this output uses; `None`: all.
    uses: Option<LinesUsed>,
    /// All that this output lost.
    lost_total: u64,
}

struct LineQueue {
    state: Mutex<LineQueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct LineQueueState {
    batches: VecDeque<Arc<Batch>>,
    /// Written: whoever made them frees them, for memory is freed fastest where it was allocated.
    spent: Vec<Arc<Batch>>,
    /// In `batches`, and being written.
    lines: usize,
    /// No more will come.
    closed: bool,
    /// The output has failed or has written everything.
    done: bool,
    /// Raised with every batch that was written.
    written: u64,
    /// Somebody waits until something is written.
    waited_for: bool,
    /// Lines that this output lost and that were not reported to it yet.
    lost: u64,
    /// What `written` was when somebody waited in vain: nobody waits for the same again.
    abandoned: Option<u64>,
}

impl LineQueue {
    fn lock(&self) -> MutexGuard<'_, LineQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch. `at_most`: how long it is waited for; `None`: until it comes.
    fn next(&self, at_most: Option<Duration>) -> NextBatch {
        let until = at_most.map(|at_most| Instant::now() + at_most);
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.pop_front() {
                return NextBatch::Batch(batch);
            }
            if state.closed {
                return NextBatch::End;
            }
            let Some(until) = until else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return NextBatch::Pause;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn progress(&self, lines: usize) {
        let mut state = self.lock();
        state.lines -= lines;
        state.written += 1;
        let waited_for = state.waited_for;
        drop(state);
        if waited_for {
            self.changed.notify_all();
        }
    }

    /// Waits until `enough`, as long as the output goes on writing. Returns whether `enough` was reached.
    fn wait_until(&self, enough: impl Fn(&LineQueueState) -> bool) -> bool {
        let mut state = self.lock();
        state.waited_for = true;
        let (mut written, mut since) = (state.written, Instant::now());
        while !enough(&state) {
            if state.written != written {
                (written, since) = (state.written, Instant::now());
            }
            let left = PATIENCE.saturating_sub(since.elapsed());
            if left.is_zero() || state.abandoned == Some(written) {
                state.abandoned = Some(written);
                return false;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

/// The other end of a [`Subscriber`]: the output's thread.
pub struct Writing<V> {
    queue: Arc<LineQueue>,
    thread: thread::JoinHandle<(V, io::Result<()>)>,
}

impl Subscriber {
    /// Begins the thread of an output. The receiver fires when the output fails.
    ///
    /// # Errors
    ///
    /// When the thread cannot be created.
    pub fn begin<V: View + Send + 'static>(
        mut view: V,
    ) -> io::Result<(Self, Writing<V>, oneshot::Receiver<()>)> {
        let queue = Arc::new(LineQueue {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (failed, fails) = oneshot::channel();
        let ours = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name("output".into())
            .spawn(move || {
                let result = write(&mut view, &ours);
                ours.lock().done = true;
                ours.changed.notify_all();
                if result.is_err() {
                    // The receiver is gone when the run is over.
                    let _ = failed.send(());
                }
                (view, result)
            })?;
        let subscriber = Self {
            queue: Arc::clone(&queue),
            uses: None,
            lost_total: 0,
        };
        Ok((subscriber, Writing { queue, thread }, fails))
    }

    /// Of an output that uses some lines only. The others are not counted where they are lost.
    pub fn using(mut self, uses: LinesUsed) -> Self {
        self.uses = Some(uses);
        self
    }

    /// Hands a batch over, or counts it as lost where too much waits already.
    pub fn publish(&mut self, batch: &Arc<Batch>) {
        let used = match &self.uses {
            Some(uses) => batch.lines.iter().filter(|line| uses(line)).count(),
            None => batch.lines.len(),
        };
        // Queues that were read come without a line. They are for an output that uses everything.
        if used == 0 && (self.uses.is_some() || batch.queues.is_none()) {
            return;
        }
        let mut state = self.queue.lock();
        // Freed once the lock is.
        let _spent = std::mem::take(&mut state.spent);
        if state.done {
            return;
        }
        // One batch may be larger than what may wait.
        if state.lines > 0 && state.lines + batch.lines.len() > WAITING {
            state.lost += used as u64;
            self.lost_total += used as u64;
            return;
        }
        if state.lost > 0 && !batch.lines.is_empty() {
            let lost = loss(std::mem::take(&mut state.lost), batch);
            state.lines += 1;
            state.batches.push_back(Arc::new(lost));
        }
        state.lines += batch.lines.len();
        state.batches.push_back(Arc::clone(batch));
        drop(state);
        self.queue.changed.notify_all();
    }

    /// Lines that this output lost because it was too slow.
    pub fn lost_total(&self) -> u64 {
        self.lost_total
    }

    /// As [`Self::publish`], once nothing has to be watched any more: waits for room as long as the output goes
    /// on writing.
    pub fn publish_last(&mut self, batch: &Arc<Batch>) {
        let room = |state: &LineQueueState| {
            state.done || state.lines == 0 || state.lines + batch.lines.len() <= WAITING
        };
        self.queue.wait_until(room);
        self.publish(batch);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

/// A batch with a `lost` line for the lines that the output lost before this one.
fn loss(lines: u64, before: &Batch) -> Batch {
    let lost = Lost {
        events: lines,
        reason: TOO_SLOW.to_owned(),
        of: Missed::Output,
    };
    Batch {
        lines: vec![Line {
            mono_ns: before.lines.first().map_or(0, |line| line.mono_ns),
            body: Body::Lost(lost),
        }],
        clock: before.clock,
        queues: None,
    }
}

/// What an output gets next.
enum NextBatch {
    Batch(Arc<Batch>),
    /// Nothing came for that long.
    Pause,
    End,
}

fn write(view: &mut impl View, queue: &LineQueue) -> io::Result<()> {
    loop {
        let batch = match queue.next(view.waits().then_some(PAUSE)) {
            NextBatch::Batch(batch) => batch,
            NextBatch::Pause => {
                view.rest()?;
                continue;
            }
            NextBatch::End => return view.rest(),
        };
        if let Some(queues) = &batch.queues {
            view.queues(queues);
        }
        for piece in batch.pieces() {
            view.show(piece, batch.clock)?;
            view.flush()?;
            queue.progress(piece.len());
        }
        queue.lock().spent.push(batch);
    }
}

impl<V> Writing<V> {
    /// Waits until everything is written, as long as the output goes on writing. The subscriber is gone by now.
    ///
    /// # Errors
    ///
    /// The output's own; `TimedOut` where it takes nothing any more: what waits is not written.
    pub fn finish(self) -> (Option<V>, io::Result<()>) {
        if !self.queue.wait_until(|state| state.done) {
            let state = self.queue.lock();
            let left = state.lines as u64 + state.lost;
            let error =
                format!("the output accepted nothing for 1.5 s: {left} lines are not written");
            return (None, Err(io::Error::new(io::ErrorKind::TimedOut, error)));
        }
        match self.thread.join() {
            Ok((view, result)) => (Some(view), result),
            Err(_) => (None, Err(io::Error::other("the output panicked"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::model::WallClock;

    /// Takes a batch only when it is allowed to.
    struct Slow {
        allowed: mpsc::Receiver<()>,
        shown: Vec<Line>,
    }

    impl View for Slow {
        fn show(&mut self, lines: &[Line], _: WallClock) -> io::Result<()> {
            let _ = self.allowed.recv();
            self.shown.extend_from_slice(lines);
            Ok(())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(lines: usize) -> Arc<Batch> {
        let line = Line {
            mono_ns: 7,
            body: Body::Lost(Lost {
                events: 1,
                reason: "a test".to_owned(),
                of: Missed::Others,
            }),
        };
        Arc::new(Batch {
            lines: vec![line; lines],
            clock: WallClock::default(),
            queues: None,
        })
    }

    #[test]
    fn a_slow_output_loses_its_own_lines_and_is_told_how_many() {
        let (allow, allowed) = mpsc::channel();
        let view = Slow {
            allowed,
            shown: Vec::new(),
        };
        let (mut subscriber, writing, _fails) = Subscriber::begin(view).unwrap();
        let whole = batch(WAITING);
        subscriber.publish(&whole);
        // Nothing of it is written: the queue is full, and the publisher does not wait.
        subscriber.publish(&batch(3));
        subscriber.publish(&batch(4));
        whole.pieces().for_each(|_| allow.send(()).unwrap());
        assert!(writing.queue.wait_until(|state| state.lines == 0));
        subscriber.publish(&batch(1));
        allow.send(()).unwrap();
        allow.send(()).unwrap();
        drop(subscriber);
        let (view, result) = writing.finish();
        result.unwrap();
        let shown = view.unwrap().shown;
        assert_eq!(shown.len(), WAITING + 2);
        let Body::Lost(lost) = &shown[WAITING].body else {
            panic!("{:?}", shown[WAITING]);
        };
        assert_eq!((lost.events, lost.reason.as_str()), (7, TOO_SLOW));
    }

    #[test]
    fn what_an_output_does_not_use_is_not_counted_where_it_is_lost() {
        let (allow, allowed) = mpsc::channel();
        let view = Slow {
            allowed,
            shown: Vec::new(),
        };
        let (subscriber, writing, _fails) = Subscriber::begin(view).unwrap();
        let mut subscriber = subscriber.using(Box::new(|line| line.mono_ns == 7));
        let mut mixed = (*batch(4)).clone();
        mixed.lines[0].mono_ns = 1;
        subscriber.publish(&batch(WAITING));
        subscriber.publish(&Arc::new(mixed.clone()));
        assert_eq!(subscriber.lost_total(), 3);
        mixed.lines.truncate(1);
        subscriber.publish(&Arc::new(mixed));
        assert_eq!(subscriber.lost_total(), 3);
        drop((allow, subscriber));
        assert!(writing.finish().1.is_ok());
    }

    #[test]
    fn an_output_that_takes_nothing_is_left_behind() {
        let (allow, allowed) = mpsc::channel();
        let view = Slow {
            allowed,
            shown: Vec::new(),
        };
        let (mut subscriber, writing, _fails) = Subscriber::begin(view).unwrap();
        subscriber.publish(&batch(WAITING));
        let began = Instant::now();
        subscriber.publish_last(&batch(2));
        subscriber.publish_last(&batch(3));
        drop(subscriber);
        let (view, result) = writing.finish();
        let took = began.elapsed();
        assert!(
            took >= PATIENCE && took < 2 * PATIENCE,
            "{took:?}: waited for once"
        );
        assert!(view.is_none());
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("32773 lines"), "{error}");
        drop(allow);
    }
}
