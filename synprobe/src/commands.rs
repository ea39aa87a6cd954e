//! What each verb does: from checked arguments to the pipeline and back to an exit code.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal, Write},
};

use sd_notify::NotifyState;
use serde::Serialize;

use crate::{
    cli::{
        Command, ConnectArgs, DiagnoseArgs, ExplainArgs, FamilyArg, Format, LabArgs, ListenersArgs,
        PreflightArgs, SelectArgs, States, StatesArgs, TuningArgs, WatchArgs,
    },
    connect::{self, Only},
    descriptors,
    filter::{Detail, Selection},
    human, lab, listeners,
    netns::{NetNs, NetnsError},
    pipeline::{self, Stop, WatchError, WatchOptions},
    preflight::{self, Verdict},
    priority,
    rehearsal::{self, Setup},
    ring, states,
    verdict::{self, Mode},
    view::{self, JsonView, Page, TextView, View, WallClock},
};

/// A run-time failure.
const FAILED: u8 = 1;
/// Bad usage; clap's own exit code.
const USAGE: u8 = 2;
/// `connect`: no address could be connected.
const NOT_CONNECTED: u8 = 4;
/// This host cannot run it.
const HOST: u8 = preflight::EXIT_HOST;

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
    let _ = descriptors::raise();
    match command {
        Command::Watch(args) => watch(args),
        Command::Diagnose(args) => diagnose(args),
        Command::Explain(args) => explain(args),
        Command::Lab(args) => rehearse(args),
        Command::Connect(args) => connect_to(args),
        Command::States(args) => count_states(args),
        Command::Listeners(args) => list_listeners(args),
        Command::Preflight(args) => check_host(args),
    }
}

/// What is printed must not vanish in silence.
fn check_output() -> Result<(), Failure> {
    if descriptors::output_was_closed() {
        let line = "standard output is closed: give it a place to go, such as a file or | cat";
        return Err(Failure(line.to_owned(), FAILED));
    }
    Ok(())
}

fn watch(args: &WatchArgs) -> Result<(), Failure> {
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let (selection, namespaces) = select(&args.select)?;
    let detail = watched(args);
    let options = WatchOptions {
        selection,
        mode: Mode::AtOnce,
        wish: args.tuning.mode.into(),
        detail,
        ring_bytes: ring_bytes(&args.tuning, detail)?,
        max_handshakes: args.tuning.max_handshakes as usize,
        max_peers: args.tuning.max_peers as usize,
        duration: args.duration,
        count: args.count,
        log_level: log_level(&args.tuning),
        give_up_privileges: true,
        namespaces,
    };
    let mut view = view(args.format, args.select.netns.is_none());
    raise_priority(detail);
    let ready = Box::new(tell_manager);
    pipeline::watch(&host, options, &mut *view, interrupted(), ready).map_err(failure)?;
    Ok(())
}

/// Tells the service manager, if there is one, that everything is attached (sd_notify(3)).
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
    if let Err(error) = priority::raise() {
        log::debug!("the nice value stays: {error}");
    }
}

fn watched(args: &WatchArgs) -> Detail {
    match (args.quiet, args.states) {
        (true, _) => Detail::Quiet { slow: args.slow },
        (false, States::All) => Detail::AllStates,
        (false, States::Handshake) => Detail::Handshakes,
    }
}

fn diagnose(args: &DiagnoseArgs) -> Result<(), Failure> {
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let (selection, namespaces) = select(&args.select)?;
    let only = namespaces.first().cloned();
    let detail = match args.every {
        true => Detail::Handshakes,
        false => Detail::Quiet { slow: args.slow },
    };
    let options = WatchOptions {
        selection,
        mode: Mode::AtTheEnd,
        wish: args.tuning.mode.into(),
        detail,
        ring_bytes: ring_bytes(&args.tuning, detail)?,
        max_handshakes: args.tuning.max_handshakes as usize,
        max_peers: args.tuning.max_peers as usize,
        duration: Some(args.duration),
        count: None,
        log_level: log_level(&args.tuning),
        give_up_privileges: true,
        namespaces,
    };
    if args.format == Format::Json {
        let mut view = view(args.format, true);
        pipeline::watch(&host, options, &mut *view, interrupted(), Box::new(|| ()))
            .map_err(failure)?;
        return Ok(());
    }
    if io::stderr().is_terminal() {
        let shown = human::duration(args.duration.as_micros() as u64);
        eprintln!("synprobe: watching for {shown}; Ctrl-C ends it early, with the page");
    }
    let mut page = Page::default();
    raise_priority(detail);
    pipeline::watch(&host, options, &mut page, interrupted(), Box::new(|| ())).map_err(failure)?;
    let counted = states::count(only);
    print(&page.text(&counted, in_colour()))
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let Some(name) = &args.verdict else {
        return print(&verdict::explain::list());
    };
    match verdict::find(name) {
        Some(verdict) => print(&verdict::explain::long(verdict)),
        None => {
            let names: Vec<_> = verdict::ALL.iter().map(|v| v.name()).collect();
            let line = format!("no verdict \"{name}\": there are {}", names.join(", "));
            Err(Failure(line, USAGE))
        }
    }
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
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let lab = lab::Lab::new(family).map_err(|e| failed(&e))?;
    let setup = setup(&args.tuning)?;
    let mut view = view(args.format, false);
    let rehearsed =
        match rehearsal::rehearse(&host, scenario, lab, &setup, &mut *view, interrupted()) {
            Err(error) if rehearsal::reader_gone(&error) => return Ok(()),
            rehearsed => rehearsed.map_err(|e| failed(&e))?,
        };
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

fn connect_to(args: &ConnectArgs) -> Result<(), Failure> {
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let netns = match &args.netns {
        Some(spec) => NetNs::resolve(spec),
        None => own_netns(),
    };
    let netns = netns.map_err(|e| no_netns(&e))?;
    let only = match (args.ipv4, args.ipv6) {
        (true, _) => Some(Only::Ipv4),
        (_, true) => Some(Only::Ipv6),
        _ => None,
    };
    let may_not_enter = |e: io::Error| {
        let line = format!(
            "may not enter the network namespace {}: {e}; run as root (CAP_SYS_ADMIN)",
            netns.name()
        );
        Failure(line, HOST)
    };
    let resolved = connect::resolve(args.target.clone(), only, &netns)
        .map_err(may_not_enter)?
        .map_err(|e| Failure(e.to_string(), if e.is_usage() { USAGE } else { FAILED }))?;
    let setup = setup(&args.tuning)?;
    let text = args.format == Format::Text;
    let target = args.target.host_text();
    if text {
        print(&connect::heading(
            &target,
            args.target.port,
            resolved.order.len(),
            resolved.took_us,
        ))?;
    }
    let mut view: Box<dyn View> = match args.format {
        Format::Text => Box::new(connect::Silent),
        Format::Json => view(args.format, false),
    };
    let connected = connect::connect(
        &host,
        resolved,
        netns.clone(),
        args.timeout,
        &setup,
        &mut *view,
        interrupted(),
    );
    let connected = match connected {
        Err(WatchError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        connected => connected.map_err(failure)?,
    };
    if text {
        print(&connect::page(
            &connected.report,
            args.timeout,
            connected.end.lost,
        ))?;
    }
    if connected.report.connect.connected {
        return Ok(());
    }
    let line = format!("{target}, port {}: not connected", args.target.port);
    Err(Failure(line, NOT_CONNECTED))
}

/// Where we are, under the name that people know it by.
fn own_netns() -> Result<NetNs, NetnsError> {
    let here = NetNs::current()?;
    let named = NetNs::resolve(&std::process::id().to_string());
    Ok(named.ok().filter(|ns| *ns == here).unwrap_or(here))
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

fn count_states(args: &StatesArgs) -> Result<(), Failure> {
    let only = args.netns.as_deref().map(NetNs::resolve).transpose();
    let counted = states::count(only.map_err(|e| no_netns(&e))?);
    for failure in &counted.failures {
        eprintln!("synprobe: {}", human::safe(failure));
    }
    if counted.namespaces.is_empty() && !counted.failures.is_empty() {
        return Err(Failure("no namespace could be counted".to_owned(), FAILED));
    }
    match args.format {
        Format::Text => print(&states::text(&counted)),
        Format::Json => counted.namespaces.iter().try_for_each(print_json),
    }
}

fn list_listeners(args: &ListenersArgs) -> Result<(), Failure> {
    let only = args.netns.as_deref().map(NetNs::resolve).transpose();
    let selection = args.selection();
    let looked = listeners::look(only.map_err(|e| no_netns(&e))?, &selection.local_ports);
    for failure in &looked.failures {
        eprintln!("synprobe: {}", human::safe(failure));
    }
    if looked.nothing {
        return Err(Failure(
            "no namespace could be looked into".to_owned(),
            FAILED,
        ));
    }
    let described = selection.describe();
    let asked = described.get("local_port").map(String::as_str);
    if args.format == Format::Text {
        return print(&listeners::text(&looked, asked, in_colour()));
    }
    if looked.lines.is_empty() {
        // Standard output carries the contract and nothing else.
        eprintln!("synprobe: {}", listeners::nobody(asked));
    }
    let mut view = view(Format::Json, true);
    let shown = view.show(&looked.lines, WallClock::now());
    match shown.and_then(|()| view.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failure(WatchError::Output(error)))
        }
        _ => Ok(()),
    }
}

fn check_host(args: &PreflightArgs) -> Result<(), Failure> {
    let report = preflight::report();
    match args.format {
        Format::Text => print(&report.to_string())?,
        Format::Json => print_json(&report)?,
    }
    match report.verdict() {
        // Its last line has said so.
        Verdict::CannotRun => Err(Failure(
            "this host cannot run synprobe, see above".to_owned(),
            HOST,
        )),
        _ => Ok(()),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = view::to_json(value).map_err(|e| Failure(e.to_string(), FAILED))?;
    line.push('\n');
    print(&line)
}

fn list_scenarios() -> String {
    let width = lab::all().iter().map(|s| s.name().len()).max().unwrap_or(0);
    let line = |s: &&dyn lab::Scenario| {
        format!(
            "{:<width$} {:>3} s  {}\n",
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
            writeln!(line, "[{level:<5} {target}] {}", human::safe(&text))
        })
        .init();
    // LevelFilter and aya_log's levels number alike: off 0, error 1 … trace 5.
    args.log_level as u8
}

fn view(format: Format, all_namespaces: bool) -> Box<dyn View> {
    let out = io::stdout();
    match format {
        Format::Text => Box::new(TextView::new(
            BufWriter::new(out.lock()),
            in_colour(),
            all_namespaces,
        )),
        Format::Json => Box::new(JsonView::new(out.lock())),
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
