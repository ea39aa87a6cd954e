//! START HERE. The I/O shell around the [engine](crate::engine). Every stage, in order:
//!
//! 1. [`preflight`](crate::preflight): may we run here, and where does this kernel keep its members?
//! 2. [`probe`](crate::probe): load the eBPF object with filters and offsets, attach it.
//! 3. [`ring`](crate::ring): raw records, in batches; [`decode`](crate::decode): bytes → events. Beside them
//!    [`poller`](crate::poller): what sock_diag shows, for what raises no event.
//! 4. [`enrich`]: names, settings and counters of this host → [`Input`](crate::engine::Input)s.
//! 5. [`engine`](crate::engine): [`track`](crate::track) follows each handshake, and
//!    [`verdict`](crate::verdict) names the cause → lines.
//! 6. [`subscriber`]: lines → outputs ([`view`](crate::view)), each at its own pace. The
//!    [`recorder`] takes the inputs instead.
//!
//! Inputs flow one way. What comes back are questions: the engine asks ([`Engine::questions`]
//! (crate::engine::Engine::questions)), the poller answers, and the answer is one more input.
//! [`replay`] takes a recording in place of stages 1 to 4.

mod asked;
mod core;
mod end_times;
mod enrich;
mod holders;
mod host_names;
mod icmp_errors;
mod losses;
mod narrow;
mod options;
mod polling;
mod recorder;
mod replay;
mod rules;
mod run;
mod run_config;
mod segment_ends;
mod subscriber;
#[cfg(test)]
mod tests;
mod workloads;

use std::io;

use crate::{
    model::{Counted, End, RunProgress},
    preflight::Ready,
    status::{RecordSummary, RecordedPart, RunStatus, Served},
    view::View,
};
pub use narrow::NothingInCommon;
pub use options::{OnReady, Setup, Stop, WatchError, WatchOptions};
pub use recorder::{RecordError, RecordTo, is_foreign};
pub use replay::{
    Player, PlayerMoment, PlayerOutput, Recording, ReplayError, ReplayOptions, Replayed,
    recorded_addresses, replay,
};
use run::Run;
pub use subscriber::LinesUsed;
use subscriber::{Subscriber, Writing};

/// A run that is over.
pub struct Watched<V> {
    /// The totals.
    pub end: End,
    /// What was recorded, where that was asked for.
    pub recorded: Option<RecordSummary>,
    /// What was recorded of parts of it, by requests.
    pub parts: Vec<RecordedPart>,
    /// Its last status, where it is served.
    pub status: Option<RunStatus>,
    /// Sockets by state at the end, where that was asked for.
    pub socket_states: Option<Counted>,
    /// What was counted before.
    pub progress: RunProgress,
    /// The output, with everything that it was shown; `None`: its reader stopped reading.
    pub view: Option<V>,
}

/// Watches until the options, `stop` or the view's reader end it.
///
/// # Errors
///
/// [`WatchError`]; a reader that closed its pipe is no error.
pub fn watch<V: View + Send + 'static>(
    host: &Ready,
    options: WatchOptions,
    view: V,
    stop: Stop,
    ready: OnReady,
) -> Result<Watched<V>, WatchError> {
    watch_asked(host, options, view, stop, ready, None)
}

/// The same, and answers requests for its status, with more outputs.
///
/// # Errors
///
/// As [`watch`].
pub fn watch_asked<V: View + Send + 'static>(
    host: &Ready,
    options: WatchOptions,
    view: V,
    mut stop: Stop,
    ready: OnReady,
    served: Option<Served>,
) -> Result<Watched<V>, WatchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| WatchError::System("async runtime", e))?;
    let done = runtime.block_on(async {
        let (queries, others) = match served {
            Some(served) => (Some(served.queries), served.outputs),
            None => (None, Vec::new()),
        };
        let is_served = queries.is_some();
        let mut run = Run::start(options, host, queries)?;
        // Threads that begin from here on have what privileges are left.
        let (subscriber, writing, fails) =
            Subscriber::begin(view).map_err(|e| WatchError::System("a thread", e))?;
        run.subscribe(subscriber);
        let mut others_writing = Vec::new();
        for output in others {
            let (subscriber, writing, _) =
                Subscriber::begin(output.view).map_err(|e| WatchError::System("a thread", e))?;
            run.subscribe(subscriber.using(output.uses));
            others_writing.push(writing);
        }
        // Reading BTF took twice of what is needed from now on.
        trim_memory();
        run.take_first_rules().await;
        // The caller may send the signal as soon as the run is ready, and the first poll installs the
        // handler.
        tokio::select! {
            biased;
            () = &mut stop => stop = Box::pin(std::future::ready(())),
            () = std::future::ready(()) => (),
        }
        ready();
        let result = run.until(stop, fails).await;
        let end = run.end();
        let status = is_served.then(|| run.status_now());
        let socket_states = run.take_socket_states();
        let progress = run.core.engine.progress();
        let (recorded, parts) = run.finish_recording();
        // The subscriber goes with the run: the output writes what is left, and ends.
        drop(run);
        let (view, written) = finish(writing);
        for writing in others_writing {
            if let (_, Err(error)) = finish(writing) {
                log::warn!("an output: {error}");
            }
        }
        result.and(written).map(|()| Watched {
            end,
            recorded,
            parts,
            status,
            socket_states,
            progress,
            view,
        })
    });
    // The poller may be in the middle of a dump. It ends by itself.
    runtime.shutdown_background();
    done
}

fn finish<V>(writing: Writing<V>) -> (Option<V>, Result<(), WatchError>) {
    match writing.finish() {
        // The reader has what it wanted.
        (view, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => (view, Ok(())),
        (view, written) => (view, written.map_err(WatchError::Output)),
    }
}

/// Returns freed memory to the system: the C library keeps it.
fn trim_memory() {
    // SAFETY: malloc_trim() takes a number and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
