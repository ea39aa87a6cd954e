//! The line of `diagnose` on a terminal while it watches: the time that is left, and what is known so far. It is on
//! standard error. Enter ends the run early.
//!
//! It has a thread of its own: the run never waits for the terminal.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::terminal;
use crate::{
    engine::EngineSnapshot,
    model::{ByRole, PortState, Problem, ProblemRole},
    pipeline::Stop,
    status::{RunStatus, StatusRequest},
    sys::{self, poll},
    util::format,
};

/// How often the line is written.
const EVERY: Duration = Duration::from_secs(1);
/// Problems that the line names.
const NAMED: usize = 2;
/// Columns of the line where the terminal does not tell its own.
const COLUMNS: usize = 80;

/// How often the thread looks whether the run is over.
const LOOK: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Countdown {
    requests: mpsc::Sender<StatusRequest>,
    ended_early: oneshot::Sender<()>,
    duration: Duration,
    shared: Arc<CountdownState>,
}

/// What the thread and the run share.
#[derive(Default)]
struct CountdownState {
    is_over: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How it ends.
pub(super) struct CountdownEnd {
    ended_early: oneshot::Receiver<()>,
    shared: Arc<CountdownState>,
}

/// Ends the thread, and waits until its line is gone.
pub(super) struct EndsCountdown(Arc<CountdownState>);

impl Countdown {
    /// `None`: standard error is no terminal that can be written over.
    pub fn new(
        duration: Duration,
        requests: mpsc::Sender<StatusRequest>,
    ) -> Option<(Self, CountdownEnd)> {
        let dumb = terminal::is_dumb(|name| std::env::var(name).ok());
        if dumb || !io::stderr().is_terminal() {
            return None;
        }
        let (end, ended_early) = oneshot::channel();
        let shared = Arc::new(CountdownState::default());
        let countdown = Self {
            requests,
            ended_early: end,
            duration,
            shared: Arc::clone(&shared),
        };
        let ending = CountdownEnd {
            ended_early,
            shared,
        };
        Some((countdown, ending))
    }

    /// Begins the thread. Without it the run has no line, and ends as it does anyway.
    pub fn begin(self) {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("countdown".into());
        match thread.spawn(move || self.run()) {
            Ok(thread) => {
                *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
            }
            Err(error) => log::warn!("a thread: {error}"),
        }
    }

    fn run(self) {
        let began = Instant::now();
        let can_enter = reads_terminal();
        let mut next = began;
        while !self.shared.is_over.load(Ordering::SeqCst) {
            let left = self.duration.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            if Instant::now() >= next {
                next += EVERY;
                let status = self.status();
                if self.shared.is_over.load(Ordering::SeqCst) {
                    break;
                }
                let left = self.duration.saturating_sub(began.elapsed());
                show(&line(left, status.as_deref(), can_enter));
            }
            let until = next.min(Instant::now() + LOOK);
            if !can_enter {
                thread::sleep(until.saturating_duration_since(Instant::now()));
            } else if matches!(poll::readable(&io::stdin(), until), Ok(true)) {
                // A line, or its end: whoever waits has answered.
                let _ = io::stdin().lock().read(&mut [0; 256]);
                let _ = self.ended_early.send(());
                // The terminal has gone to its next line.
                show("\x1b[A\x1b[K");
                return;
            }
        }
        show("");
    }

    /// The state of the run; `None`: it has no time to answer, or is over.
    fn status(&self) -> Option<Arc<RunStatus>> {
        let (request, mut answer) = StatusRequest::new();
        self.requests.try_send(request).ok()?;
        let until = Instant::now() + EVERY / 2;
        while Instant::now() < until {
            match answer.try_recv() {
                Ok(status) => return Some(status),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        None
    }
}

impl CountdownEnd {
    /// `stop`, or Enter; and what ends the line.
    pub fn with(self, stop: Stop) -> (Stop, Option<EndsCountdown>) {
        let ended_early = self.ended_early;
        let stop: Stop = Box::pin(async move {
            let entered = async {
                if ended_early.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = stop => (),
                () = entered => (),
            }
        });
        (stop, Some(EndsCountdown(self.shared)))
    }
}

impl Drop for EndsCountdown {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        let thread = self.0.thread.lock();
        if let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of it was printed.
            let _ = thread.join();
        }
    }
}

/// Whether Enter can be read: standard input is a terminal, and this process is in its foreground.
fn reads_terminal() -> bool {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return false;
    }
    use std::os::fd::AsRawFd;
    // SAFETY: both take numbers, and return -1 for a descriptor that is no terminal.
    unsafe { libc::tcgetpgrp(stdin.as_fd().as_raw_fd()) == libc::getpgrp() }
}

/// Writes over the line that is there.
fn show(line: &str) {
    let mut err = io::stderr().lock();
    let _ = write!(err, "\r\x1b[K{line}");
    let _ = err.flush();
}

fn line(left: Duration, status: Option<&RunStatus>, can_enter: bool) -> String {
    let mut text = format!("{} s left", left.as_secs_f64().ceil());
    if let Some(status) = status {
        text.push_str("  ");
        text.push_str(&so_far(&status.snapshot));
    }
    let end = match can_enter {
        true => "; Enter ends now",
        false => "; Ctrl-C ends now",
    };
    // The last column stays free: a terminal would wrap there.
    let columns = sys::terminal::columns(&io::stderr()).unwrap_or(COLUMNS) - 1;
    let room = columns.saturating_sub(end.chars().count());
    if text.chars().count() > room {
        text = text.chars().take(room.saturating_sub(1)).collect();
        text.push('…');
    }
    text + end
}

fn in_progress(ports: &[PortState]) -> ByRole<u64> {
    let mut sums = ByRole::default();
    for port in ports {
        *sums.get_mut(port.role) += port.open;
    }
    sums
}

/// `so far: synack-lost :8080 ×307 (certain)`
pub(super) fn so_far(snapshot: &EngineSnapshot) -> String {
    causes(&snapshot.problems, in_progress(&snapshot.ports))
}

fn causes(problems: &[Problem], open: ByRole<u64>) -> String {
    let mut text = String::from("so far: ");
    let named: Vec<&Problem> = problems.iter().filter(|p| p.verdict.is_some()).collect();
    for (n, p) in named.iter().take(NAMED).enumerate() {
        let at = match (p.role, p.local_port, p.peer_port) {
            (ProblemRole::Server, Some(port), _) => format!(" :{port}"),
            (ProblemRole::Client, _, Some(port)) => format!(" to :{port}"),
            _ => String::new(),
        };
        let comma = if n > 0 { ", " } else { "" };
        let (name, sure) = (p.verdict_name(), p.confidence.name());
        let many = match p.handshakes {
            0 => String::new(),
            n => format!(" ×{n}"),
        };
        let _ = write!(text, "{comma}{name}{at}{many} ({sure})");
    }
    if let more @ 1.. = named.len().saturating_sub(NAMED) {
        let _ = write!(text, ", {more} more");
    }
    if named.is_empty() {
        let _ = write!(text, "no cause; half-open {}", open.server);
        let _ = write!(text, ", SYN_SENT {}", open.client);
    }
    format::safe(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    #[test]
    fn the_line_says_what_is_open_and_how_it_ends() {
        let ports =
            [(Role::Server, 3), (Role::Server, 4), (Role::Client, 1)].map(|(role, open)| {
                PortState {
                    netns: 1,
                    role,
                    port: Some(80),
                    open,
                    oldest_ns: None,
                }
            });
        let totals = in_progress(&ports);
        assert_eq!(
            causes(&[], totals),
            "so far: no cause; half-open 7, SYN_SENT 1"
        );
        let text = line(Duration::from_millis(3200), None, true);
        assert_eq!(text, "4 s left; Enter ends now");
    }
}
