//! `synprobe serve`: watch all the time; metrics, problems and health over HTTP.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use super::{FAILED, Failure, failure, interrupted, notify_manager, view, watch_options};
use crate::{
    cli::{Format, ServeArgs, ServeFormat},
    filter::Detail,
    pipeline::{self, RecordTo, Stop, WatchOptions},
    preflight,
    serve::{self, Bound, StatusQueries},
    util::format,
    verdict::Mode,
    view::{Discarded, View},
};

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
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
    });
    let options = WatchOptions {
        record,
        window: Some(args.window),
        ..watch_options(&args.select, &args.tuning, detail, Mode::AtOnce)?
    };
    let only = options.namespaces.first().cloned();
    let view: Box<dyn View + Send> = match args.format {
        ServeFormat::Json => view(Format::Json, true),
        ServeFormat::None => Box::new(Discarded),
    };
    let (requests, asked) = mpsc::channel(1);
    let (fail, failed) = oneshot::channel();
    let refused = Arc::new(Mutex::new(None));
    let cannot = Arc::clone(&refused);
    let ready = Box::new(move || {
        let address = bound.address.clone();
        // A thread that begins now has what privileges are left.
        match serve::begin(bound, requests, only) {
            Ok(()) => {
                eprintln!("synprobe: serving {}", format::safe(&address.to_string()));
                notify_manager();
            }
            Err(error) => {
                *cannot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                let _ = fail.send(());
            }
        }
    });
    let stop = either(interrupted(), failed);
    let queries = StatusQueries {
        requests: asked,
        most_open: None,
    };
    let watched =
        pipeline::watch_asked(&host, options, view, stop, ready, Some(queries)).map_err(failure)?;
    let refused: Option<io::Error> = refused
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(error) = refused {
        return Err(Failure(format!("a thread for HTTP: {error}"), FAILED));
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
