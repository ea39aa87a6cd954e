//! `synprobe diagnose`: watch for a while, then list the problems.

use std::io::{self, IsTerminal};

use super::{
    Failure, failure, in_colour, interrupted, log_level, print, raise_priority, ring_bytes, select,
    view,
};
use crate::{
    cli::{DiagnoseArgs, Format},
    filter::Detail,
    pipeline::{self, WatchOptions},
    preflight,
    util::format,
    verdict::Mode,
    view::Page,
};

pub(super) fn run(args: &DiagnoseArgs) -> Result<(), Failure> {
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let (selection, namespaces) = select(&args.select)?;
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
        record: None,
        count_sockets: args.format == Format::Text,
        namespaces,
    };
    if args.format == Format::Json {
        let view = view(args.format, true);
        pipeline::watch(&host, options, view, interrupted(), Box::new(|| ())).map_err(failure)?;
        return Ok(());
    }
    if io::stderr().is_terminal() {
        let shown = format::duration(args.duration.as_micros() as u64);
        eprintln!("synprobe: watching for {shown}; Ctrl-C ends early and prints the page");
    }
    raise_priority(detail);
    let watched = pipeline::watch(
        &host,
        options,
        Page::default(),
        interrupted(),
        Box::new(|| ()),
    )
    .map_err(failure)?;
    let counted = watched.socket_states.unwrap_or_default();
    let page = watched.view.unwrap_or_default();
    print(&page.text(&counted, in_colour()))
}
