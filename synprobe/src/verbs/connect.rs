//! `synprobe connect`: one connect, watched.

use std::io;

use super::{
    FAILED, Failure, HOST, NOT_CONNECTED, USAGE, failure, interrupted, no_netns, print, setup, view,
};
use crate::{
    cli::{ConnectArgs, Format},
    connect::{self, AddressFamily},
    pipeline::WatchError,
    preflight,
    sys::netns::{NetNs, NetnsError},
    view::{Discarded, View},
};

pub(super) fn run(args: &ConnectArgs) -> Result<(), Failure> {
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let netns = match &args.netns {
        Some(spec) => NetNs::resolve(spec),
        None => own_netns(),
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
        Format::Text => Box::new(Discarded),
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

/// The namespace of this process, under its usual name.
fn own_netns() -> Result<NetNs, NetnsError> {
    let here = NetNs::current()?;
    let named = NetNs::resolve(&std::process::id().to_string());
    Ok(named.ok().filter(|ns| *ns == here).unwrap_or(here))
}
