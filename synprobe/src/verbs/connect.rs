//! `synprobe connect`: one connect, watched.

use std::{
    io::{self, BufWriter, IsTerminal},
    process,
};

use super::{
    FAILED, Failure, HOST, NOT_CONNECTED, USAGE, failure, interrupted, no_netns, print, setup,
    terminal, view,
};
use crate::{
    cli::{ConnectArgs, Format},
    connect::{self, AddressFamily},
    model::{Body, Line},
    pipeline::WatchError,
    preflight,
    sys::{self, journal::note, netns::NetNs},
    util::{fill::fill, format},
    view::{Discarded, Style, TextOptions, TextView, View, WallClock, steps},
};

pub(super) fn run(args: &ConnectArgs) -> Result<(), Failure> {
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let netns = match &args.netns {
        Some(spec) => NetNs::resolve(spec),
        None => NetNs::own(),
    };
    let netns = netns.map_err(|e| no_netns(&e))?;
    let only = match (args.ipv4, args.ipv6) {
        (true, _) => Some(AddressFamily::Ipv4),
        (_, true) => Some(AddressFamily::Ipv6),
        _ => None,
    };
    let may_not_enter = |e: io::Error| {
        let line = format!(
            "cannot enter the network namespace {}: {e}; run as root (CAP_SYS_ADMIN)",
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
    let view: Box<dyn View + Send> = match args.format {
        Format::Text => live_rows(args),
        Format::Json => view(args.format, false),
    };
    let connected = connect::connect(
        &host,
        resolved,
        netns.clone(),
        args.timeout,
        &setup,
        view,
        interrupted(),
    );
    let connected = match connected {
        Err(WatchError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        connected => connected.map_err(failure)?,
    };
    if text {
        let page = connect::page(&connected.report, args.timeout, connected.end.lost);
        print(&laid_out(&page, terminal::style()))?;
    }
    if connected.report.connect.connected {
        return Ok(());
    }
    let line = format!("{target}, port {}: not connected", args.target.port);
    Err(Failure(line, NOT_CONNECTED))
}

/// On a terminal, the SYNs as they are sent, on standard error.
fn live_rows(args: &ConnectArgs) -> Box<dyn View + Send> {
    if !io::stderr().is_terminal() {
        return Box::new(Discarded);
    }
    let timeout = format::duration(args.timeout.as_micros() as u64);
    note(&format!(
        "trying each address for up to {timeout}; Ctrl-C ends early"
    ));
    let style = Style {
        width: sys::terminal::columns(&io::stderr()).unwrap_or(80),
        colour: terminal::in_colour(),
        ..Style::default()
    };
    let options = TextOptions {
        style,
        namespaces: false,
        ..TextOptions::default()
    };
    Box::new(LiveRows(TextView::new(
        BufWriter::new(io::stderr()),
        options,
    )))
}

/// Beginnings and retransmissions of what this process connects; the page has the ends.
struct LiveRows(TextView<BufWriter<io::Stderr>>);

impl View for LiveRows {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        let ours = Some(process::id());
        let is_live = |line: &&Line| match &line.body {
            Body::State(s) => s.connection.pid == ours,
            Body::Retransmit(r) => r.connection.pid == ours,
            _ => false,
        };
        let live: Vec<Line> = lines.iter().filter(is_live).cloned().collect();
        self.0.show(&live, clock)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The page with the colour of each outcome, in lines that fit, and each step of a remedy alone.
fn laid_out(page: &str, style: Style) -> String {
    let mut text = String::new();
    for line in page.lines() {
        let body = line.trim_start();
        let indent = &line[..line.len() - body.len()];
        let lines = match body.strip_prefix("try: ") {
            Some(remedy) => {
                let [first, next] = ["try: ", "     "].map(|label| format!("{indent}{label}"));
                steps(&first, &next, remedy, style)
            }
            None => fill(indent, &format!("{indent}  "), body, style.width),
        };
        for line in lines {
            text.push_str(&style.paint(code(body), &line));
            text.push('\n');
        }
    }
    text
}

fn code(body: &str) -> &'static str {
    let begins = |words: &[&str]| words.iter().any(|word| body.starts_with(word));
    match body {
        _ if begins(&["CONNECTED", "connected: "]) => "32",
        _ if begins(&["not connected: "]) => "1;31",
        _ if begins(&["why: "]) => "1;33",
        _ if begins(&["REFUSED", "NO ANSWER", "UNREACHABLE"]) => "31",
        _ => "",
    }
}
