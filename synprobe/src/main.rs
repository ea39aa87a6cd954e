//! Parse, dispatch, exit codes; nothing else.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use synprobe::{
    cli::{Cli, Command, Format, SelectArgs, TuningArgs, WatchArgs},
    filter::Selection,
    netns::NetNs,
    pipeline::{self, Stop, WatchError, WatchOptions},
    view::{JsonView, TextView, View},
};

/// Done, also when the reader closed the pipe.
const DONE: u8 = 0;
/// A run-time failure.
const FAILED: u8 = 1;
/// Bad usage; clap's own exit code.
const USAGE: u8 = 2;
/// This host cannot run it.
const HOST: u8 = 3;

/// One line for standard error, and the exit code.
struct Failure(String, u8);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Watch(args) => watch(&args),
        Command::States(_) | Command::Preflight(_) | Command::Lab(_) => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::from(DONE),
        Err(Failure(line, code)) => {
            eprintln!("synprobe: {line}");
            ExitCode::from(code)
        }
    }
}

fn watch(args: &WatchArgs) -> Result<(), Failure> {
    let (selection, namespaces) = select(&args.select)?;
    let options = WatchOptions {
        selection,
        all_states: args.states == synprobe::cli::States::All,
        ring_bytes: ring_bytes(&args.tuning)?,
        max_handshakes: args.tuning.max_handshakes as usize,
        duration: args.duration,
        count: args.count,
        log_level: 0,
        namespaces,
    };
    let mut view = view(args.format);
    pipeline::watch(options, &mut *view, interrupted(), Box::new(|| ())).map_err(failure)?;
    Ok(())
}

fn select(args: &SelectArgs) -> Result<(Selection, Vec<NetNs>), Failure> {
    let mut selection = args.selection();
    let mut namespaces = Vec::new();
    if let Some(spec) = &args.netns {
        let netns = NetNs::resolve(spec).map_err(|e| Failure(e.to_string(), USAGE))?;
        selection.netns = Some(netns.inode());
        namespaces.push(netns);
    }
    Ok((selection, namespaces))
}

fn ring_bytes(args: &TuningArgs) -> Result<u32, Failure> {
    let usable = args.ring_size.max(4096).next_power_of_two();
    if usable != args.ring_size {
        eprintln!(
            "synprobe: ring size {} rounded up to {usable}, a power of two",
            args.ring_size
        );
    }
    Ok(usable)
}

fn view(format: Format) -> Box<dyn View> {
    let out = io::stdout();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let out: BufWriter<Box<dyn Write>> = BufWriter::with_capacity(64 * 1024, Box::new(out.lock()));
    match format {
        Format::Text => Box::new(TextView::new(out, colour)),
        Format::Json => Box::new(JsonView::new(out)),
    }
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
