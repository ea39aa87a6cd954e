//! `synprobe watch`: every handshake as it happens.

use super::{
    Failure, failure, interrupted, log_level, notify_manager, raise_priority, ring_bytes, select,
    view,
};
use crate::{
    cli::{States, WatchArgs},
    filter::Detail,
    pipeline::{self, WatchOptions},
    preflight,
    verdict::Mode,
};

pub(super) fn run(args: &WatchArgs) -> Result<(), Failure> {
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
        record: None,
        count_sockets: false,
        namespaces,
    };
    let view = view(args.format, args.select.netns.is_none());
    raise_priority(detail);
    let ready = Box::new(notify_manager);
    pipeline::watch(&host, options, view, interrupted(), ready).map_err(failure)?;
    Ok(())
}

fn watched(args: &WatchArgs) -> Detail {
    match (args.quiet, args.states) {
        (true, _) => Detail::Quiet { slow: args.slow },
        (false, States::All) => Detail::AllStates,
        (false, States::Handshake) => Detail::Handshakes,
    }
}
