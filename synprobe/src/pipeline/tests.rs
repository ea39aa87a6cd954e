use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    filter::{Detail, Selection},
    preflight,
    probe::half_open_source::RequestedMode,
    util::table_bounds::TableBounds,
    verdict::Mode,
    view::JsonView,
};

fn options() -> WatchOptions {
    WatchOptions {
        selection: Selection::default(),
        mode: Mode::AtOnce,
        requested_mode: RequestedMode::default(),
        detail: Detail::Handshakes,
        ring_bytes: 1 << 20,
        tables: TableBounds {
            half_opens: 1000,
            clients: 1000,
            peers: 1000,
            ..TableBounds::default()
        },
        duration: None,
        count: None,
        log_level: 0,
        give_up_privileges: false,
        connects: false,
        window: None,
        record: None,
        enters_dropping: false,
        count_sockets: false,
        namespaces: Vec::new(),
    }
}

/// What ends the run is listened for before anyone is told that the run has begun; and one that was ended
/// while it attached still says so from its first line to its last.
#[test]
#[ignore = "needs root"]
fn can_be_ended_as_soon_as_it_is_ready() {
    let host = preflight::require().expect("root");
    for ended_before in [false, true] {
        let polled = Rc::new(Cell::new(false));
        let seen = Rc::clone(&polled);
        let stop = Box::pin(poll_fn(move |_| match seen.replace(true) || ended_before {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }));
        let ready = Box::new(move || assert!(polled.get(), "nothing would have caught the signal"));
        let view = JsonView::new(Vec::new());
        let watched = watch(&host, options(), view, stop, ready).expect("it runs");
        let out = watched.view.expect("it was written").into_inner();
        let lines = String::from_utf8(out).expect("JSON");
        for kind in ["start", "end"] {
            let said = format!("\"type\":\"{kind}\"");
            assert_eq!(lines.matches(&said).count(), 1, "{kind}: {lines}");
        }
    }
}

/// A run with a duration takes its last look early, and then waits for its end. A signal ends the wait, whether
/// it came during the look or after it, and nobody polls it once it was seen.
#[test]
#[ignore = "needs root"]
fn issue20_a_signal_after_the_last_look_ends_the_run() {
    const FAR: Duration = Duration::from_secs(3600);
    let host = preflight::require().expect("root");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for pending in [0, 1] {
        let polled = Rc::new(Cell::new(0));
        let seen = Rc::clone(&polled);
        let stop: Stop = Box::pin(poll_fn(move |context| {
            let before = seen.replace(seen.get() + 1);
            assert!(before <= pending, "polled again after the signal");
            if before < pending {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        }));
        let ended = runtime.block_on(async {
            let mut run = Run::start(options(), &host, None).expect("it runs");
            let finish = run.finish(Some((Instant::now() + FAR, stop)));
            let finished = tokio::time::timeout(FAR / 60, finish).await;
            finished.expect("it ends long before").expect("no error");
            run.core.engine.end().is_some()
        });
        assert!(ended, "with the `end` line");
        assert_eq!(polled.get(), pending + 1);
    }
}
