//! `synprobe top`: the terminal, the clock and the run of the screen in `top/`.
//!
//! The run, or the replay, has its own thread, and answers requests for its state. The thread "screen" asks, draws
//! and reads keys. The run never waits for it.

mod batch;
mod feed;
pub mod session;
mod shown;

use std::{
    env,
    io::{self, IsTerminal},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc as requests, oneshot},
};

use feed::{Feed, LiveFeed, ReplayFeed};

use super::{
    FAILED, Failure, USAGE, failure, log_output, raise_priority, record::report_recording, replay,
    ring_bytes, tables, terminal, watch_options,
};
use crate::{
    cli::TopArgs,
    filter::Detail,
    lang::Lang,
    model::UnderWay,
    pipeline::{self, Player, RecordError, Recording, ReplayOptions, Stop, WatchOptions},
    preflight,
    recording::HeldFolder,
    status::{Served, StatusQueries},
    sys::journal::{Priority, message},
    top::{App, EventTail, Look, ReplayedEvents},
    util::format,
    verdict::Mode,
};

/// How often there is a new state where nothing else is asked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// Handshakes in progress that are listed, at most; the header counts all.
const MOST_OPEN: u64 = 100_000;
/// What one of them takes, bytes: itself, its gaps, its place in the order, and its peer's counts.
const OPEN_BYTES: u64 = size_of::<UnderWay>() as u64 + 160;
/// The state that is shown, and the next one.
const STATES: u64 = 2;
/// The lists take this part of `--max-memory` at most.
const LIST_SHARE: u64 = 3;
/// A terminal that takes nothing for so long is left as it is.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(args: &TopArgs) -> Result<(), Failure> {
    if !args.batch && !io::stdout().is_terminal() {
        let line = "standard output is no terminal: synprobe top --batch prints plain text";
        return Err(Failure(line.to_owned(), USAGE));
    }
    match &args.replay {
        Some(file) => replayed(args, file),
        None => live(args),
    }
}

fn live(args: &TopArgs) -> Result<(), Failure> {
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let detail = match args.every {
        true => Detail::Handshakes,
        false => Detail::Quiet { slow: args.slow },
    };
    let mut options = WatchOptions {
        window: Some(args.window),
        ..watch_options(&args.select, &args.tuning, detail, Mode::AtOnce)?
    };
    // Somebody looks because something is wrong: thousands of half-opens are retransmitted at once.
    options.ring_bytes = ring_bytes(&args.tuning, Detail::Handshakes)?;
    let most_open = most_open(args);
    let lists = most_open * OPEN_BYTES * STATES;
    options.tables = tables(&args.tuning, u64::from(options.ring_bytes) + lists);
    raise_priority(detail);
    let (sender, receiver) = requests::channel(1);
    let queries = StatusQueries {
        requests: receiver,
        most_open: Some(most_open as usize),
        record_into: record_into(args)?,
    };
    let slow_us = (!args.every).then_some(args.slow.as_micros() as u64);
    let events = EventTail::default();
    let feed = LiveFeed::new(sender, slow_us, events.clone());
    let (screen, ended, result) = Screen::new(args, feed);
    let stop = stop(ended, Arc::clone(&screen.ending));
    // A thread that begins now has what privileges are left.
    let ready = Box::new(move || screen.begin());
    let served = Served {
        queries,
        outputs: Vec::new(),
    };
    let watched = pipeline::watch_asked(&host, options, events, stop, ready, Some(served));
    let shown = result.wait();
    for part in &watched.map_err(failure)?.parts {
        report_recording(Some(&part.file), Some(&part.summary));
    }
    shown
}

/// Where the key R records to. It is opened now, with all privileges.
fn record_into(args: &TopArgs) -> Result<Option<HeldFolder>, Failure> {
    if args.batch {
        return Ok(None);
    }
    if let Some(folder) = &args.record_dir {
        return recording_folder(folder).map(Some);
    }
    let temporary = HeldFolder::open(&env::temp_dir()).ok();
    // A folder that was deleted takes no file.
    Ok(match HeldFolder::open(Path::new(".")) {
        Ok(here) => Some(here.or(temporary)),
        Err(_) => temporary,
    })
}

/// The folder that was asked for.
fn recording_folder(folder: &Path) -> Result<HeldFolder, Failure> {
    let place = format::safe(&folder.to_string_lossy()).into_owned();
    let held = HeldFolder::open(folder)
        .map_err(|error| Failure(format!("--record-dir {place}: {error}"), USAGE))?;
    match pipeline::is_foreign(folder) {
        true => Err(Failure(
            RecordError::ForeignFolder(folder.to_owned()).to_string(),
            FAILED,
        )),
        false => Ok(held),
    }
}

/// How many handshakes in progress are listed.
fn most_open(args: &TopArgs) -> u64 {
    let share = args.tuning.max_memory / LIST_SHARE;
    (share / (OPEN_BYTES * STATES)).min(MOST_OPEN)
}

fn replayed(args: &TopArgs, file: &Path) -> Result<(), Failure> {
    let recording = Recording::open(file).map_err(replay::failure)?;
    let slow_us = recording.config.detail().slow_us().map(u64::from);
    let missing = replay::what_is_missing(&recording);
    drop(recording);
    let options = ReplayOptions {
        file: file.to_owned(),
        selection: args.select.selection(),
        netns: args.select.netns.clone(),
        mode: Mode::AtOnce,
        duration: None,
        count: None,
        tables: None,
    };
    let events = ReplayedEvents::default();
    let most_open = most_open(args) as usize;
    let player =
        Player::open(options, args.window, most_open, events.outputs()).map_err(replay::failure)?;
    let notes: Vec<String> = missing.into_iter().chain(player.damage.clone()).collect();
    for line in &notes {
        message(
            Priority::Warning,
            &format!("{}: {line}", file.to_string_lossy()),
        );
    }
    let (screen, ended, result) =
        Screen::new(args, ReplayFeed::new(player, slow_us, events, notes));
    let stop = stop(ended, Arc::clone(&screen.ending));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure(format!("async runtime: {e}"), FAILED))?;
    runtime.block_on(async {
        let mut stop = stop;
        // The first poll installs the handlers.
        tokio::select! {
            biased;
            () = &mut stop => return,
            () = std::future::ready(()) => (),
        }
        screen.begin();
        stop.await;
    });
    result.wait()
}

/// Ends with the screen or with a signal, and ends the screen.
fn stop(ended: oneshot::Receiver<()>, ending: Arc<AtomicBool>) -> Stop {
    Box::pin(async move {
        let of = |kind| async move {
            match signal(kind) {
                Ok(mut signal) => {
                    signal.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = ended => (),
            () = of(SignalKind::interrupt()) => (),
            () = of(SignalKind::terminate()) => (),
            () = of(SignalKind::hangup()) => (),
            () = of(SignalKind::quit()) => (),
        }
        ending.store(true, Ordering::Relaxed);
    })
}

/// What the thread "screen" needs.
struct Screen<F> {
    app: App,
    feed: F,
    batch: Option<batch::Plan>,
    interval: Duration,
    /// It is to end.
    ending: Arc<AtomicBool>,
    /// Dropped when it has ended.
    ended: oneshot::Sender<()>,
    results: mpsc::Sender<io::Result<()>>,
}

impl<F: Feed + Send + 'static> Screen<F> {
    fn new(args: &TopArgs, feed: F) -> (Self, oneshot::Receiver<()>, ScreenResult) {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let look = Look {
            ascii: args.ascii,
            colour: !args.batch && !is_dumb && terminal::in_colour(),
            attributes: !is_dumb,
            lang: match args.ascii {
                true => Lang::En,
                false => terminal::lang(args.language),
            },
        };
        let interval = args.interval.unwrap_or(INTERVAL);
        let (ended, has_ended) = oneshot::channel();
        let (results, result) = mpsc::channel();
        let screen = Self {
            app: App::new(look, interval),
            feed,
            batch: args.batch.then(|| batch::Plan::new(args)),
            interval,
            ending: Arc::default(),
            ended,
            results,
        };
        (screen, has_ended, ScreenResult(result))
    }

    /// Begins the thread. It ends the run when it ends.
    fn begin(self) {
        if self.batch.is_none() && io::stderr().is_terminal() {
            log_output::hold();
        }
        let results = self.results.clone();
        let run = move || {
            let Self {
                app,
                mut feed,
                interval,
                ending,
                batch,
                results,
                ended,
            } = self;
            let result = match batch {
                Some(plan) => batch::print(app, &mut feed, plan, &ending),
                None => shown::show(app, &mut feed, interval, &ending),
            };
            // Nobody waits where the run has failed.
            let _ = results.send(result);
            drop(ended);
        };
        if let Err(error) = thread::Builder::new().name("screen".into()).spawn(run) {
            let _ = results.send(Err(error));
        }
    }
}

/// How the screen ended.
struct ScreenResult(mpsc::Receiver<io::Result<()>>);

impl ScreenResult {
    /// Waits for the end of the screen, which is to end by now; the terminal is as it was before.
    fn wait(self) -> Result<(), Failure> {
        let result = self.0.recv_timeout(PATIENCE);
        if let Err(RecvTimeoutError::Timeout) = result {
            session::restore_modes();
        }
        log_output::release();
        match result {
            Ok(Err(error)) if !is_gone(&error) => {
                Err(Failure(format!("the terminal: {error}"), FAILED))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure("the screen ended by a fault".to_owned(), FAILED))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the terminal was hung up.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}
