//! `synprobe serve`: watch all the time; metrics, problems and health over HTTP, and OTLP to a collector.

use std::{
    iter,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    FAILED, Failure, failure, interrupted, notify_manager, summary::answering_quit, tables,
    terminal, view, watch_options,
};
use crate::{
    cli::{Format, ServeArgs, ServeFormat},
    filter::Detail,
    pipeline::{self, RecordTo, Stop, WatchOptions},
    preflight,
    serve::{self, Bound, LivePage, OtlpOutput, Replier},
    status::{Served, StatusQueries},
    sys::{
        journal::{Priority, message},
        process,
    },
    verdict::Mode,
    view::{Discarded, View},
};

/// Freed memory that the C library keeps of a thread, bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 256 << 10;
/// The page at `/` takes this part of `--max-memory` at most; the tables share the rest.
const PAGE_SHARE: u64 = 8;

/// The C library keeps freed memory for each thread, and more of it the larger what was freed. A service that is asked
/// now and then has no use for it.
fn keep_little_memory() {
    process::share_arenas(2);
    #[cfg(target_env = "gnu")]
    for (what, bytes) in [
        (libc::M_MMAP_THRESHOLD, KEPT),
        (libc::M_TRIM_THRESHOLD, KEPT),
    ] {
        // SAFETY: takes two numbers. Where it refuses one, more is kept.
        unsafe { libc::mallopt(what, bytes) };
    }
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    keep_little_memory();
    // With all privileges: a low port, or a folder of another user, may need them.
    let bound = Bound::bind(&args.listen).map_err(|e| Failure(e.to_string(), FAILED))?;
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let detail = match args.every {
        true => Detail::Handshakes,
        false => Detail::Quiet { slow: args.slow },
    };
    let record = args.rolling.clone().map(|folder| RecordTo::Rolling {
        folder,
        keep: args.keep,
        max_size: args.max_size,
        problems: args.keep_problems,
    });
    let page_memory = args.tuning.max_memory / PAGE_SHARE;
    let page = LivePage::within(page_memory, terminal::lang(args.language));
    let mut options = WatchOptions {
        record,
        window: Some(args.window),
        connects: args.otlp.is_some(),
        ..watch_options(&args.select, &args.tuning, detail, Mode::AtOnce)?
    };
    options.tables = tables(&args.tuning, u64::from(options.ring_bytes) + page_memory);
    let only = options.namespaces.first().cloned();
    let view: Box<dyn View + Send> = match args.format {
        ServeFormat::Json => view(Format::Json, true),
        ServeFormat::None => Box::new(Discarded),
    };
    let (requests, asked) = mpsc::channel(1);
    let quit_requests = requests.clone();
    let otlp = args
        .otlp
        .clone()
        .map(|target| OtlpOutput::new(target, args.otlp_interval));
    let served = Served {
        queries: StatusQueries {
            requests: asked,
            most_open: None,
            record_into: None,
        },
        outputs: iter::once(page.output())
            .chain(otlp.as_ref().map(|otlp| otlp.output(args.every)))
            .collect(),
    };
    let (fail, failed) = oneshot::channel();
    let begun = Arc::new(Mutex::new(None));
    let outcome = Arc::clone(&begun);
    let ready = Box::new(move || {
        let address = bound.address.clone();
        let replier = Replier::new(requests, only, otlp.as_ref(), page);
        // A thread that begins now has what privileges are left.
        let result = serve::begin(bound, Arc::clone(&replier))
            .and_then(|()| otlp.map(|otlp| otlp.begin(replier)).transpose());
        if result.is_ok() {
            message(Priority::Info, &format!("serving {address}"));
            notify_manager();
        } else {
            let _ = fail.send(());
        }
        *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    });
    let stop = either(answering_quit(interrupted(), quit_requests), failed);
    let watched =
        pipeline::watch_asked(&host, options, view, stop, ready, Some(served)).map_err(failure)?;
    let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
    match begun {
        Some(Err(error)) => {
            return Err(Failure(format!("a thread to serve: {error}"), FAILED));
        }
        Some(Ok(Some(sending))) => sending.finish(watched.status.as_ref()),
        Some(Ok(None)) | None => (),
    }
    match watched.recorded.and_then(|recorded| recorded.error) {
        Some(error) => Err(Failure(
            format!("the recording is not complete: {error}"),
            FAILED,
        )),
        None => Ok(()),
    }
}

/// Ends with a signal, or where nothing can be served.
fn either(stop: Stop, failed: oneshot::Receiver<()>) -> Stop {
    Box::pin(async {
        let failed = async {
            if failed.await.is_err() {
                // It is served: nothing will be sent.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stop => (),
            () = failed => (),
        }
    })
}
