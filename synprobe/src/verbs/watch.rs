//! `synprobe watch`: every handshake as it happens.

use super::{
    Failure, failure, interrupted, notify_manager, raise_priority,
    record::report_recording,
    replay::{Asked, replay},
    view, watch_options,
};
use crate::{
    cli::{States, WatchArgs},
    filter::Detail,
    pipeline::{self, RecordTo, WatchOptions},
    preflight,
    verdict::Mode,
};

pub(super) fn run(args: &WatchArgs) -> Result<(), Failure> {
    if let Some(file) = &args.recording.replay {
        let mut view = view(args.format, args.select.netns.is_none());
        let asked = Asked {
            select: &args.select,
            mode: Mode::AtOnce,
            duration: args.duration,
            count: args.count,
        };
        return replay(file, &asked, &mut *view).map(drop);
    }
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let detail = watched(args);
    let options = WatchOptions {
        duration: args.duration,
        count: args.count,
        record: args.recording.record.clone().map(RecordTo::File),
        ..watch_options(&args.select, &args.tuning, detail, Mode::AtOnce)?
    };
    let view = view(args.format, args.select.netns.is_none());
    raise_priority(detail);
    let ready = Box::new(notify_manager);
    let watched = pipeline::watch(&host, options, view, interrupted(), ready).map_err(failure)?;
    report_recording(args.recording.record.as_deref(), watched.recorded.as_ref());
    Ok(())
}

fn watched(args: &WatchArgs) -> Detail {
    match (args.quiet, args.states) {
        (true, _) => Detail::Quiet { slow: args.slow },
        (false, States::All) => Detail::AllStates,
        (false, States::Handshake) => Detail::Handshakes,
    }
}
