//! What each verb does: from checked arguments to the pipeline and back to an exit code. One file a verb.

mod connect;
mod diagnose;
mod explain;
#[cfg(feature = "lab")]
pub mod lab;
mod listeners;
mod preflight;
mod states;
mod watch;

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal, Write},
};

use sd_notify::NotifyState;
use serde::Serialize;

use crate::{
    cli::{Command, Format, SelectArgs, TuningArgs},
    filter::{Detail, Selection},
    pipeline::{Setup, Stop, WatchError},
    ring,
    sys::{
        fd_limit,
        netns::{NetNs, NetnsError},
        nice,
    },
    util::format,
    verdict::Mode,
    view::{self, JsonView, TextView, View},
};

/// A run-time failure.
const FAILED: u8 = 1;
/// Bad usage; clap's own exit code.
const USAGE: u8 = 2;
/// `connect`: no address could be connected.
const NOT_CONNECTED: u8 = 4;
/// This host cannot run it.
const HOST: u8 = crate::preflight::EXIT_HOST;

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

/// Does it.
///
/// # Errors
///
/// [`Failure`]: one line and the exit code.
pub fn run(command: &Command) -> Result<(), Failure> {
    check_output()?;
    // Where it cannot be, what then finds no room says so.
    let _ = fd_limit::raise();
    match command {
        Command::Watch(args) => watch::run(args),
        Command::Diagnose(args) => diagnose::run(args),
        Command::Explain(args) => explain::run(args),
        #[cfg(feature = "lab")]
        Command::Lab(args) => lab::run(args),
        Command::Connect(args) => connect::run(args),
        Command::States(args) => states::run(args),
        Command::Listeners(args) => listeners::run(args),
        Command::Preflight(args) => preflight::run(args),
    }
}

/// What is printed must not vanish in silence.
fn check_output() -> Result<(), Failure> {
    if fd_limit::output_was_closed() {
        let line = "standard output is closed: give it a place to go, such as a file or | cat";
        return Err(Failure(line.to_owned(), FAILED));
    }
    Ok(())
}

/// Tells the service manager, where there is one, that everything is attached (sd_notify(3)).
fn tell_manager() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        log::warn!("the service manager cannot be told that this is ready: {error}");
    }
}

/// Where every transition is told, the ring fills as fast as the host connects.
fn raise_priority(detail: Detail) {
    if matches!(detail, Detail::Quiet { .. }) {
        return;
    }
    // Without it more may be lost, which is said when it is.
    if let Err(error) = nice::raise() {
        log::debug!("the nice value stays: {error}");
    }
}

fn setup(args: &TuningArgs) -> Result<Setup, Failure> {
    Ok(Setup {
        ring_bytes: ring_bytes(args, Detail::Handshakes)?,
        max_handshakes: args.max_handshakes as usize,
        max_peers: args.max_peers as usize,
        log_level: log_level(args),
        detail: Detail::Handshakes,
        mode: Mode::AtOnce,
        wish: args.mode.into(),
    })
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = view::to_json(value).map_err(|e| Failure(e.to_string(), FAILED))?;
    line.push('\n');
    print(&line)
}

/// Text for standard output; a reader that has gone is no error.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure(format!("standard output: {error}"), FAILED))
        }
        _ => Ok(()),
    }
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

/// A namespace that is not there is bad usage; one that may not be entered is the host's.
fn no_netns(error: &NetnsError) -> Failure {
    let code = match error {
        NetnsError::Denied { .. } => HOST,
        _ => USAGE,
    };
    Failure(error.to_string(), code)
}

fn ring_bytes(args: &TuningArgs, detail: Detail) -> Result<u32, Failure> {
    let Some(wish) = args.ring_size else {
        return Ok(match detail {
            Detail::Quiet { .. } => 1 << 20,
            _ => 16 << 20,
        });
    };
    let usable = ring::usable_size(wish).ok_or_else(|| {
        Failure(
            "the ring cannot be that large: 1G at the most".to_owned(),
            USAGE,
        )
    })?;
    if usable != wish {
        eprintln!(
            "synprobe: ring size {} rounded up to {usable}: the kernel wants a power of two of whole pages",
            wish
        );
    }
    Ok(usable)
}

/// Sets up the agent's own log; the level for the kernel side's.
fn log_level(args: &TuningArgs) -> u8 {
    env_logger::Builder::new()
        // Libraries have their own idea of what is worth a line: their warnings will do.
        .filter_level(args.log_level.min(log::LevelFilter::Warn))
        .filter_module("synprobe", args.log_level)
        // A process names itself, and a namespace may be called by the name of a process.
        .format(|line, record| {
            let text = record.args().to_string();
            let (level, target) = (record.level(), record.target());
            writeln!(line, "[{level:<5} {target}] {}", format::safe(&text))
        })
        .init();
    // LevelFilter and aya_log's levels number alike: off 0, error 1 … trace 5.
    args.log_level as u8
}

fn view(format: Format, all_namespaces: bool) -> Box<dyn View + Send> {
    let out = io::stdout();
    match format {
        Format::Text => Box::new(TextView::new(
            BufWriter::new(out),
            in_colour(),
            all_namespaces,
        )),
        Format::Json => Box::new(JsonView::new(out)),
    }
}

/// Whether standard output is a terminal whose user did not set NO_COLOR.
fn in_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn interrupted() -> Stop {
    Box::pin(async {
        let Ok(mut term) =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => (),
            _ = term.recv() => (),
        }
    })
}

fn failure(error: WatchError) -> Failure {
    let code = match error {
        WatchError::Host(_) => HOST,
        _ => FAILED,
    };
    Failure(error.to_string(), code)
}
