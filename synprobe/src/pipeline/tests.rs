use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use super::end_times::EndTimes;
use super::*;
use crate::{
    engine::Input,
    filter::{Detail, Selection},
    model::{Body, Fate, HalfOpenRow, SocketDump, Tuple},
    preflight,
    probe::half_open_source::RequestedMode,
    status::fixtures::engine,
    track::Fates,
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

/// A dump of a namespace with one half-open, or without.
fn dump(netns: u32, at_ns: u64, has_one: bool) -> Input {
    let row = HalfOpenRow {
        tuple: Tuple {
            netns,
            local_addr: [1; 16],
            peer_addr: [2; 16],
            local_port: 80,
            peer_port: 40_000,
        },
        family: 2,
        retrans: 1,
        expires_ms: 1500,
    };
    Input::Dump(Box::new(SocketDump {
        netns,
        before_ns: at_ns,
        after_ns: at_ns + 1_000_000,
        rows: has_one.then_some(row).into_iter().collect(),
        is_first: has_one,
        ..SocketDump::default()
    }))
}

/// One question for all namespaces of a round: a wait for each made the end of a run with hundreds take seconds.
#[test]
fn issue20_one_answer_is_for_the_dumps_of_all_namespaces() {
    const SEC: u64 = 1_000_000_000;
    let mut engine = engine();
    let mut round = |at_ns, has_one| {
        engine.feed(Input::PollBegins);
        for netns in [7, 8, 9] {
            engine.feed(dump(netns, at_ns, has_one));
        }
        let mut asked = engine.questions().fates;
        asked.sort_unstable();
        // Of one nothing is known: it is asked for again.
        let of = asked.iter().filter(|tuple| tuple.netns != 9);
        engine.feed(Input::Fates(Fates {
            asked_ns: at_ns + 5_000_000,
            of: of.map(|tuple| (*tuple, Fate::Gone)).collect(),
        }));
        engine.feed(Input::PollEnds { at_ns });
        engine.feed(Input::BatchEnds(0));
        let lines = engine.take_lines();
        let lines = lines.iter().flat_map(|batch| &batch.lines);
        let ended = lines.filter_map(|line| match &line.body {
            Body::Handshake(h) => Some(h.connection.netns),
            _ => None,
        });
        let mut ended: Vec<u32> = ended.collect();
        ended.sort_unstable();
        (asked.iter().map(|t| t.netns).collect::<Vec<_>>(), ended)
    };
    assert_eq!(round(10 * SEC, true), (vec![], vec![]));
    assert_eq!(round(11 * SEC, false), (vec![7, 8, 9], vec![7, 8]));
    assert_eq!(round(12 * SEC, false), (vec![9], vec![]));
}

/// Whatever takes long: each part of the end has its time, and a run with a duration ends when it is over.
#[test]
fn issue20_the_end_has_its_time() {
    let now = Instant::now();
    let ms = |at: Instant| at.duration_since(now).as_millis();
    let signal = EndTimes::new(now, None, Duration::from_millis(400));
    assert_eq!(ms(signal.look), 1000);
    assert!(ms(signal.rules()) <= 2000 && ms(signal.count()) <= 1500);
    // The last look of `--duration 3s` begins early, and leaves time for the count.
    let ends = now + Duration::from_millis(750);
    let on_time = EndTimes::new(now, Some(ends), Duration::from_millis(400));
    assert_eq!(ms(on_time.look), 350);
    assert!(ms(on_time.count()) <= 1000);
    // It is late: there is a look all the same.
    let late = EndTimes::new(now, Some(now), Duration::from_millis(400));
    assert_eq!(ms(late.look), 100);
    assert!(ms(late.count()) <= 600);
}
