//! Frames as plain text, without a terminal.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{INTERVAL, feed::Feed};
use crate::{cli::TopArgs, top::App};

/// Columns where `COLUMNS` says nothing else.
const COLUMNS: usize = 100;
/// A signal is noticed within this time.
const ATTENTION: Duration = Duration::from_millis(100);

/// How many frames, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    frames: Option<u32>,
    interval: Option<Duration>,
    columns: usize,
}

impl Plan {
    pub fn new(args: &TopArgs) -> Self {
        let columns = std::env::var("COLUMNS").ok();
        let columns = columns.and_then(|columns| columns.trim().parse().ok());
        Self {
            frames: args.frames,
            interval: args.interval,
            columns: columns.filter(|columns| *columns > 0).unwrap_or(COLUMNS),
        }
    }

    /// The time between two frames. A recording is read without waiting.
    fn step(&self, length_us: Option<u64>) -> Duration {
        match (self.interval, self.frames, length_us) {
            (Some(interval), ..) => interval,
            (None, Some(frames), Some(length_us)) => {
                Duration::from_micros(length_us.div_ceil(frames.into()).max(1))
            }
            (None, ..) => INTERVAL,
        }
    }
}

/// Prints the frames.
///
/// # Errors
///
/// The output's; a closed pipe is none.
pub(super) fn print(
    mut app: App,
    feed: &mut dyn Feed,
    plan: Plan,
    ending: &AtomicBool,
) -> io::Result<()> {
    let is_replay = feed.length_us().is_some();
    let step = plan.step(feed.length_us());
    let mut due = Instant::now();
    let mut printed = 0;
    while plan.frames.is_none_or(|most| printed < most) {
        due += step;
        while !is_replay && Instant::now() < due {
            if ending.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(ATTENTION.min(due.saturating_duration_since(Instant::now())));
        }
        feed.ask(step);
        let observed = loop {
            match feed.poll() {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(Some(observed)) => break observed,
                ControlFlow::Continue(None) if ending.load(Ordering::Relaxed) => return Ok(()),
                ControlFlow::Continue(None) => thread::sleep(Duration::from_millis(1)),
            }
        };
        let is_last = observed.position.is_some_and(|position| position.is_last);
        app.observe(observed);
        let gap = if printed > 0 { "\n" } else { "" };
        let frame = format!("{gap}{}", app.text(plan.columns));
        let mut out = io::stdout().lock();
        match out.write_all(frame.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        printed += 1;
        if is_last {
            break;
        }
    }
    Ok(())
}
