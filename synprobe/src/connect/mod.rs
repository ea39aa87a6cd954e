//! `synprobe connect`: connects to a target with its own sockets, and watches them. It uses the pipeline
//! of `watch`, with a filter for the addresses of the target.

mod attempt;
mod icmp;
mod order;
mod page;
mod path;
mod redirect;
mod report;
mod resolve;
mod rewritten;
mod target;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

pub use page::{heading, page};
pub use report::ConnectReport;
pub use resolve::{AddressFamily, ResolveError};
pub use target::{Target, TargetError, TargetHost};

use crate::{
    filter::{FilterError, Selection},
    model::{Body, End, Line, Role},
    pipeline::{self, Setup, Stop, WatchError, WatchOptions},
    preflight::Ready,
    sys::{
        clock::{monotonic_ns, wall_clock},
        netns::NetNs,
    },
    view::{View, WallClock},
};

/// A target, resolved.
#[derive(Clone, Debug)]
pub struct ResolvedTarget {
    /// The requested target.
    pub target: Target,
    /// Its addresses, in the order of the attempts.
    pub order: Vec<SocketAddr>,
    /// Duration of the lookup, microseconds; `None` for a literal address.
    pub took_us: Option<u64>,
}

/// Resolves a target inside a namespace.
///
/// # Errors
///
/// Outer: the namespace cannot be entered. Inner: [`ResolveError`].
pub fn resolve(
    target: Target,
    only: Option<AddressFamily>,
    netns: &NetNs,
) -> io::Result<Result<ResolvedTarget, ResolveError>> {
    netns.run(move || {
        let began = Instant::now();
        let sorted = resolve::resolve(&target, only)?;
        let took_us = began.elapsed().as_micros() as u64;
        Ok(ResolvedTarget {
            order: order::interleave(&sorted),
            took_us: matches!(target.host, TargetHost::Name(_)).then_some(took_us),
            target,
        })
    })
}

/// The result of a run.
pub struct Connected {
    /// One entry for each address.
    pub report: ConnectReport,
    /// The totals.
    pub end: End,
}

/// Tries every address under the pipeline. Lines are printed as they come; the `connect` line comes just
/// before `end`.
///
/// # Errors
///
/// [`WatchError`].
pub fn connect<V: View + Send + 'static>(
    host: &Ready,
    resolved: ResolvedTarget,
    netns: NetNs,
    timeout: Duration,
    setup: &Setup,
    view: V,
    interrupted: Stop,
) -> Result<Connected, WatchError> {
    let options = WatchOptions {
        selection: selection(&resolved, &netns)
            .map_err(|e| WatchError::System("the target's filter", io::Error::other(e)))?,
        mode: setup.mode,
        requested_mode: setup.requested_mode,
        detail: setup.detail,
        ring_bytes: setup.ring_bytes,
        tables: setup.tables,
        duration: None,
        count: None,
        log_level: setup.log_level,
        give_up_privileges: true,
        connects: true,
        window: None,
        record: None,
        enters_dropping: true,
        count_sockets: false,
        namespaces: vec![netns.clone()],
    };
    // Closing the pipe's write end ends every attempt.
    let (halted, halt) = io::pipe().map_err(|e| WatchError::System("a pipe", e))?;
    let (done, is_done) = oneshot::channel::<()>();
    let result = Arc::new(Mutex::new(None));
    let (worker_result, worker_netns) = (Arc::clone(&result), netns.clone());
    let order = resolved.order.clone();
    let mut routes = path::RouteLookup::open(&netns);
    let ready = Box::new(move || {
        thread::spawn(move || {
            let tried = worker_netns
                .enter_on_this_thread()
                .and_then(|()| attempt::try_all(&order, timeout, &halted, &mut routes))
                .map(|mut tried| {
                    redirect::look_up(&mut tried, &worker_netns, &mut routes);
                    tried
                });
            *worker_result.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((tried, monotonic_ns()));
            let _ = done.send(());
        });
    });
    let stop: Stop = Box::pin(async move {
        let mut is_done = is_done;
        tokio::select! {
            _ = &mut is_done => return,
            () = interrupted => drop(halt),
        }
        let _ = is_done.await;
    });
    let collector = LineCollector {
        view,
        lines: Vec::new(),
        last: None,
    };
    let watched = pipeline::watch(host, options, collector, stop, ready)?;
    let end = watched.end;
    let mut collector = watched
        .view
        .ok_or_else(|| WatchError::Output(io::ErrorKind::TimedOut.into()))?;
    let (tried, at_ns) = result
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        // Only a reader that has closed the pipe ends the pipeline earlier.
        .ok_or_else(|| WatchError::Output(io::ErrorKind::BrokenPipe.into()))?;
    let tried = tried.map_err(|e| WatchError::System("connecting", e))?;
    let lines = std::mem::take(&mut collector.lines);
    let (target, took_us) = (&resolved.target, resolved.took_us);
    let report = netns
        .run(|| report::build_report(target, took_us, tried, &lines))
        .map_err(|e| WatchError::System("entering the namespace", e))?;
    let connect = Line {
        mono_ns: at_ns,
        body: Body::Connect(Box::new(report.line())),
    };
    let mut last = vec![connect];
    last.extend(collector.last.take());
    collector
        .view
        .show(&last, wall_clock())
        .and_then(|()| collector.view.flush())
        .map_err(WatchError::Output)?;
    Ok(Connected { report, end })
}

/// Selects our own handshakes. Those of other processes with the same addresses and port match too.
fn selection(resolved: &ResolvedTarget, netns: &NetNs) -> Result<Selection, FilterError> {
    Ok(Selection {
        peer_ports: resolved.target.port.to_string().parse()?,
        peers: resolved
            .order
            .iter()
            .map(|addr| addr.ip().to_canonical().into())
            .collect(),
        role: Some(Role::Client),
        netns: Some([netns.inode(); 2]),
        ..Selection::default()
    })
}

/// Passes lines on to a view and keeps them. The `end` line is held back until the `connect` line is
/// written.
struct LineCollector<V> {
    view: V,
    lines: Vec<Line>,
    last: Option<Line>,
}

impl<V: View> View for LineCollector<V> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        let shown = match lines.split_last() {
            Some((last, before)) if matches!(last.body, Body::End(_)) => {
                self.last = Some(last.clone());
                before
            }
            _ => lines,
        };
        self.lines.extend_from_slice(shown);
        self.view.show(shown, clock)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.view.flush()
    }
}
