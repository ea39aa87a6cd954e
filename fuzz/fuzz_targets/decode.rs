//! Decodes arbitrary bytes as ring records, each preceded by its length in two bytes. Each gives an event or a
//! typed error. Events go through the engine and both views.

#![no_main]

use std::{io, time::Duration};

use libfuzzer_sys::fuzz_target;
use synprobe::{
    decode::decode,
    engine::{Engine, Input, RunConfig},
    filter::Selection,
    model::{Detail, HalfOpenSource, Start, WallClock},
    track::TrackConfig,
    util::table_bounds::TableBounds,
    verdict::Mode,
    view::{JsonView, TextOptions, TextView, View},
};

fuzz_target!(|data: &[u8]| {
    let config = RunConfig {
        start: Start::default(),
        track: TrackConfig {
            hz: 250,
            synack_rto_max: true,
            sees_failures: true,
            sees_resets: true,
            // The input's length selects the source of half-opens.
            source: match data.len() % 4 {
                0 | 1 => HalfOpenSource::Tracepoints,
                _ => HalfOpenSource::Fentry,
            },
            // And the level of detail.
            detail: match data.len() % 2 {
                0 => Detail::AllStates,
                _ => Detail::Quiet {
                    slow: Duration::from_secs(1),
                },
            },
            tables: TableBounds {
                half_opens: 8,
                clients: 8,
                peers: 4,
                silent_peers: 4,
                ..TableBounds::default()
            },
            began_ns: 0,
            hash_seed: 7,
            selection: Selection::default(),
        },
        sees_drops: true,
        window: None,
    };
    let clock = WallClock::new(1_700_000_000_000_000_000, 0);
    let mut engine = Engine::new(&config, Mode::AtOnce, clock);
    let mut rest = data;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
        let (record, after) = after.split_at(len);
        // The tracker adds to the kernel's clock, so times beyond 146 years are excluded.
        if let Ok(event) = decode(record)
            && event.at_ns() < 1 << 62
        {
            engine.feed(Input::Event(event));
        }
        rest = after;
    }
    engine.feed(Input::End {
        at_ns: 1 << 62,
        produced: 0,
    });
    for batch in engine.take_lines() {
        JsonView::new(io::sink()).show(&batch.lines, clock).unwrap();
        TextView::new(io::sink(), TextOptions::default())
            .show(&batch.lines, clock)
            .unwrap();
    }
});
