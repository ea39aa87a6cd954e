//! One file for each verb: from checked arguments to the pipeline, and back to an exit code.

mod causes;
mod connect;
mod countdown;
mod diagnose;
mod explain;
mod join;
#[cfg(feature = "lab")]
pub mod lab;
mod listeners;
mod log_output;
mod memory;
mod preflight;
mod record;
mod replay;
mod report;
#[cfg(feature = "serve")]
mod serve;
mod states;
mod summary;
mod terminal;
#[cfg(feature = "top")]
pub mod top;
mod watch;

use std::{
    fmt,
    io::{self, BufWriter, Write},
};

use memory::{ring_bytes, tables};
use sd_notify::NotifyState;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{Cli, Command, Format, SelectArgs, TuningArgs},
    filter::{Detail, Selection},
    pipeline::{Setup, Stop, WatchError, WatchOptions},
    sys::{
        fd_limit,
        journal::{Priority, laid_out, message},
        netns::{NetNs, NetnsError},
        nice, patient, process,
    },
    verdict::Mode,
    view::{self, TextOptions, View},
};

/// Nothing failed.
const DONE: u8 = 0;
/// A run-time failure.
const FAILED: u8 = 1;
/// Bad usage; clap's own exit code.
pub const USAGE: u8 = 2;
/// `connect`: no address could be connected.
const NOT_CONNECTED: u8 = 4;
/// `diagnose --exit-code`: something is wrong.
const PROBLEMS: u8 = 10;
/// This host cannot run synprobe.
pub const HOST: u8 = crate::preflight::EXIT_HOST;

/// One line for standard error, and the exit code (docs/events.md).
#[derive(Debug)]
pub struct Failure(String, u8);

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        self.1
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs a verb. Returns the exit code of what went well.
///
/// # Errors
///
/// [`Failure`]: one line and the exit code.
pub fn run(cli: &Cli) -> Result<u8, Failure> {
    process::survive_file_size_limit();
    if process::address_space().is_some() {
        process::share_arenas(1);
    }
    terminal::set_color(cli.color);
    check_output()?;
    // If this fails, whatever runs out of descriptors reports it.
    let _ = fd_limit::raise();
    let done = match &cli.command {
        Command::Watch(args) => watch::run(args),
        Command::Diagnose(args) => return diagnose::run(args),
        Command::Record(args) => record::run(args),
        Command::Report(args) => report::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args),
        #[cfg(feature = "top")]
        Command::Top(args) => top::run(args),
        Command::Join(args) => join::run(args),
        Command::Explain(args) => explain::run(args),
        #[cfg(feature = "lab")]
        Command::Lab(args) => lab::run(args),
        Command::Connect(args) => connect::run(args),
        Command::States(args) => states::run(args),
        Command::Listeners(args) => listeners::run(args),
        Command::Preflight(args) => preflight::run(args),
    };
    done.map(|()| DONE)
}

/// Refuses to run without an output.
fn check_output() -> Result<(), Failure> {
    if fd_limit::output_was_closed() {
        let line = "standard output is closed: redirect it to a file or to | cat";
        return Err(Failure(line.to_owned(), FAILED));
    }
    Ok(())
}

/// Notifies the service manager, if there is one, that everything is attached (sd_notify(3)).
fn notify_manager() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        log::warn!("cannot notify the service manager: {error}");
    }
}

/// Lowers the nice value where every transition is reported: the ring then fills as fast as the host
/// connects.
fn raise_priority(detail: Detail) {
    if matches!(detail, Detail::Quiet { .. }) {
        return;
    }
    // Without it more records may be lost; losses are reported.
    if let Err(error) = nice::raise() {
        log::debug!("cannot lower the nice value: {error}");
    }
}

fn setup(args: &TuningArgs) -> Result<Setup, Failure> {
    let ring_bytes = ring_bytes(args, Detail::Handshakes)?;
    Ok(Setup {
        ring_bytes,
        tables: tables(args, ring_bytes.into()),
        log_level: log_level(args),
        detail: Detail::Handshakes,
        mode: Mode::AtOnce,
        requested_mode: args.mode.into(),
    })
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = view::to_json(value).map_err(|e| Failure(e.to_string(), FAILED))?;
    line.push('\n');
    print(&line)
}

/// Prints text; a reader that has closed the pipe is no error.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure(format!("standard output: {error}"), FAILED))
        }
        _ => Ok(()),
    }
}

/// The same at the end of a run, which signals do not end any more: a reader that stopped reading is not waited for.
fn print_last(text: &str) -> Result<(), Failure> {
    match patient::write_all(&io::stdout(), text.as_bytes(), patient::PATIENCE) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure(format!("standard output: {error}"), FAILED))
        }
        _ => Ok(()),
    }
}

/// The options that every run shares; a verb adds its end, its recording and its counts.
fn watch_options(
    filters: &SelectArgs,
    tuning: &TuningArgs,
    detail: Detail,
    mode: Mode,
) -> Result<WatchOptions, Failure> {
    let (selection, namespaces) = select(filters)?;
    let ring_bytes = ring_bytes(tuning, detail)?;
    Ok(WatchOptions {
        selection,
        mode,
        requested_mode: tuning.mode.into(),
        detail,
        ring_bytes,
        tables: tables(tuning, ring_bytes.into()),
        duration: None,
        count: None,
        log_level: log_level(tuning),
        give_up_privileges: true,
        connects: false,
        window: None,
        record: None,
        enters_dropping: false,
        count_sockets: false,
        namespaces,
    })
}

fn select(args: &SelectArgs) -> Result<(Selection, Vec<NetNs>), Failure> {
    let mut selection = args.selection();
    let mut namespaces = Vec::new();
    if let Some(spec) = &args.netns {
        let netns = NetNs::resolve(spec).map_err(|e| no_netns(&e))?;
        selection.netns = Some([netns.inode(); 2]);
        namespaces.push(netns);
    }
    Ok((selection, namespaces))
}

/// A namespace that does not exist is bad usage; one that cannot be entered is the host's fault.
fn no_netns(error: &NetnsError) -> Failure {
    let code = match error {
        NetnsError::Denied { .. } => HOST,
        _ => USAGE,
    };
    Failure(error.to_string(), code)
}

/// One line for all that could not be seen.
fn not_seen(failures: &[String]) {
    if !failures.is_empty() {
        message(Priority::Warning, &failures.join("; "));
    }
}

/// Sets up the agent's own log. Returns the level for the kernel side's log.
fn log_level(args: &TuningArgs) -> u8 {
    env_logger::Builder::new()
        // Of libraries, only warnings.
        .filter_level(args.log_level.min(log::LevelFilter::Warn))
        .filter_module("synprobe", args.log_level)
        .target(env_logger::Target::Pipe(Box::new(log_output::LogOutput)))
        // Names of processes may contain control characters.
        .format(|line, record| {
            let text = record.args().to_string();
            let (level, target) = (record.level(), record.target());
            let priority = match level {
                log::Level::Error => Priority::Error,
                log::Level::Warn => Priority::Warning,
                log::Level::Info => Priority::Info,
                log::Level::Debug | log::Level::Trace => Priority::Debug,
            };
            let text = laid_out(&format!("[{level:<5} {target}] "), &text);
            writeln!(line, "{}{text}", priority.prefix())
        })
        .init();
    // LevelFilter and aya_log use the same numbers: off 0, error 1 … trace 5.
    args.log_level as u8
}

fn view(format: Format, all_namespaces: bool) -> Box<dyn View + Send> {
    let text = TextOptions {
        style: terminal::style(),
        namespaces: all_namespaces,
        ..TextOptions::default()
    };
    view_of(format, text)
}

fn view_of(format: Format, text: TextOptions) -> Box<dyn View + Send> {
    let out = io::stdout();
    match format {
        Format::Text => Box::new(view::TextView::new(BufWriter::new(out), text)),
        Format::Json => Box::new(view::JsonView::new(out)),
    }
}

fn interrupted() -> Stop {
    Box::pin(async {
        let Ok(mut term) = signal(SignalKind::terminate()) else {
            return std::future::pending().await;
        };
        let mut hangup = match is_ignored(libc::SIGHUP) {
            true => None,
            false => signal(SignalKind::hangup()).ok(),
        };
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => (),
            _ = term.recv() => (),
            _ = hung_up => (),
        }
    })
}

/// Whether this process was started with a signal ignored: by nohup(1), for example.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all-zero is a value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and the structure is alive.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn failure(error: WatchError) -> Failure {
    let code = match error {
        WatchError::Host(_) => HOST,
        _ => FAILED,
    };
    Failure(causes::in_one_line(&error), code)
}
