//! Parse, dispatch, exit codes; nothing else.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use synprobe::{
    cli::{Cli, Command, FamilyArg, Format, LabArgs, SelectArgs, TuningArgs, WatchArgs},
    filter::Selection,
    lab,
    netns::NetNs,
    pipeline::{self, Stop, WatchError, WatchOptions},
    preflight,
    rehearsal::{self, Setup},
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
        Command::Lab(args) => rehearse(&args),
        Command::States(_) | Command::Preflight(_) => Ok(()),
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

fn rehearse(args: &LabArgs) -> Result<(), Failure> {
    let Some(name) = args.scenario.as_deref().filter(|_| !args.list) else {
        return print(&list_scenarios());
    };
    let Some(scenario) = lab::find(name) else {
        let names: Vec<_> = lab::all().iter().map(|s| s.name()).collect();
        let line = format!("no scenario \"{name}\": there are {}", names.join(", "));
        return Err(Failure(line, USAGE));
    };
    let family = match args.family {
        FamilyArg::Ipv4 => lab::Family::V4,
        FamilyArg::Ipv6 => lab::Family::V6,
        FamilyArg::Mapped => lab::Family::V4Mapped,
    };
    let failed = |error: &anyhow::Error| Failure(format!("{error:#}"), FAILED);
    preflight::require().map_err(|e| failure(e.into()))?;
    let lab = lab::Lab::new(family).map_err(|e| failed(&e))?;
    let setup = Setup {
        ring_bytes: ring_bytes(&args.tuning)?,
        max_handshakes: args.tuning.max_handshakes as usize,
        log_level: 0,
        all_states: false,
    };
    let mut view = view(args.format);
    let rehearsed = rehearsal::rehearse(scenario, lab, &setup, &mut *view, interrupted())
        .map_err(|e| failed(&e))?;
    let (report, agrees) = rehearsed.report();
    match args.format {
        Format::Text => print(&report)?,
        // Standard output carries the contract and nothing else.
        Format::Json => eprint!("{report}"),
    }
    if agrees {
        Ok(())
    } else {
        Err(Failure(
            format!("scenario {name}: what was seen is not what was made"),
            FAILED,
        ))
    }
}

fn list_scenarios() -> String {
    let line = |s: &&dyn lab::Scenario| {
        format!(
            "{:<18} {:>3} s  {}\n",
            s.name(),
            s.nominal_seconds(),
            s.summary()
        )
    };
    lab::all().iter().map(line).collect()
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
        let netns = NetNs::resolve(spec).map_err(|e| Failure(e.to_string(), USAGE))?;
        selection.netns = Some([netns.inode(); 2]);
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
