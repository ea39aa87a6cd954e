//! Any bytes in the ring give an event or a typed error, and an event goes through the tracker and both
//! views. Records follow each other, each behind its length in two bytes.

#![no_main]

use std::{io, sync::Arc, time::Duration};

use libfuzzer_sys::fuzz_target;
use synprobe::{decode::decode, filter::{Detail, Selection}, probe::half_open_source::Source, track::{Names, Observation, TrackConfig, Tracker}, verdict::{Judge, Mode, Scene}, view::{JsonView, TextView, View, WallClock}};

/// A host that knows nothing.
struct Nobody;

impl Names for Nobody {
    fn cgroup(&self, _: u64) -> Option<Arc<str>> {
        None
    }

    fn netns(&self, _: u32) -> Option<Arc<str>> {
        None
    }

    fn counter(&self, _: u32, _: &str) -> Option<u64> {
        None
    }

    fn setting(&self, _: u32, _: &'static str) -> Option<u64> {
        None
    }

    fn now_ns(&self) -> u64 {
        0
    }
}

fuzz_target!(|data: &[u8]| {
    let config = TrackConfig {
        hz: 250,
        synack_rto_max: true,
        sees_failures: true,
        sees_resets: true,
        // Both kinds of source too.
        source: match data.len() % 4 {
            0 | 1 => Source::Tracepoints,
            _ => Source::Fentry,
        },
        // Both ways to watch, by the length of the input.
        detail: match data.len() % 2 {
            0 => Detail::AllStates,
            _ => Detail::Quiet {
                slow: Duration::from_secs(1),
            },
        },
        max_handshakes: 8,
        max_peers: 4,
        began_ns: 0,
        selection: Selection::default(),
    };
    let mut tracker = Tracker::new(config, Box::new(Nobody));
    let mut judge = Judge::new(Mode::AtOnce, Scene::default());
    let mut rest = data;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
        let (record, after) = after.split_at(len);
        // The tracker adds to the kernel's clock: one that has run for 146 years is not tried.
        if let Ok(event) = decode(record)
            && event.at_ns() < 1 << 62
        {
            tracker.observe(Observation::Event(event));
        }
        rest = after;
    }
    tracker.finish(1 << 62);
    let lines = judge.finish(tracker.take_lines());
    let clock = WallClock::new(1_700_000_000_000_000_000, 0);
    JsonView::new(io::sink()).show(&lines, clock).unwrap();
    TextView::new(io::sink(), true, true)
        .show(&lines, clock)
        .unwrap();
});
