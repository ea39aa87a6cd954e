//! What sock_diag showed of each namespace, and what became of the half-opens that it did not show.

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use super::Engine;
use crate::{
    model::{Fate, SocketDump, Tuple},
    track::{Fates, Observation},
};

/// Dumps that are taken in bit by bit.
pub(super) struct UnreadDumps {
    dumps: VecDeque<(Box<SocketDump>, Fates)>,
    /// Rows of the first one that are taken in.
    read: usize,
    /// How many are taken in at once.
    at_once: usize,
}

impl Default for UnreadDumps {
    fn default() -> Self {
        Self {
            dumps: VecDeque::new(),
            read: 0,
            at_once: usize::MAX,
        }
    }
}

impl Engine {
    /// A dump that shows every known half-open is taken in at once; else the missing ones become questions.
    pub(super) fn dump(&mut self, mut dump: Box<SocketDump>) {
        self.judge.context.repeats(&dump);
        self.tracker
            .counters_of_dump(dump.netns, dump.after_ns, dump.embryonic_rsts);
        let missing = self.tracker.missing(&mut dump);
        if missing.is_empty() {
            self.shown(dump, Fates::default());
        } else {
            self.dumps.push((dump, missing));
        }
    }

    /// One answer may be for the dumps of many namespaces.
    pub(super) fn fates(&mut self, fates: &Fates) {
        let mut by_netns: HashMap<u32, Vec<(Tuple, Fate)>> = HashMap::new();
        for (tuple, fate) in &fates.of {
            let of = by_netns.entry(tuple.netns).or_default();
            of.push((*tuple, *fate));
        }
        for (dump, _) in mem::take(&mut self.dumps) {
            let fates = Fates {
                asked_ns: fates.asked_ns,
                of: by_netns.remove(&dump.netns).unwrap_or_default(),
            };
            self.shown(dump, fates);
        }
    }

    /// From now on a dump with more rows than this waits until [`Self::read_rows`] takes it in. Each row may have a
    /// line.
    pub fn reads_at_once(&mut self, rows: usize) {
        self.unread.at_once = rows;
    }

    fn shown(&mut self, dump: Box<SocketDump>, fates: Fates) {
        if dump.rows.len() <= self.unread.at_once && self.unread.dumps.is_empty() {
            return self.tracker.observe(Observation::Dump(dump, fates));
        }
        self.unread.dumps.push_back((dump, fates));
    }

    /// Takes in some rows of a dump that waits, and the rest of it after its last row. Whether there was one.
    pub fn read_rows(&mut self) -> bool {
        let Some((mut dump, fates)) = self.unread.dumps.pop_front() else {
            return false;
        };
        let rows = &dump.rows[self.unread.read..];
        let part = rows.len().min(self.unread.at_once);
        self.tracker.on_rows(&rows[..part], &dump);
        self.unread.read += part;
        if self.unread.read < dump.rows.len() {
            self.unread.dumps.push_front((dump, fates));
        } else {
            self.unread.read = 0;
            dump.rows.clear();
            self.tracker.observe(Observation::Dump(dump, fates));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Input, RunConfig},
        model::{Body, HalfOpenRow, Line, Start, WallClock},
        track::TrackConfig,
        util::table_bounds::TableBounds,
        verdict::Mode,
    };

    const SEC: u64 = 1_000_000_000;
    const ROOM: usize = 30;

    fn engine() -> Engine {
        let config = RunConfig {
            start: Start::default(),
            track: TrackConfig::fixture(
                TableBounds {
                    half_opens: ROOM,
                    ..TableBounds::default()
                },
                SEC,
            ),
            sees_drops: true,
            window: None,
        };
        Engine::new(&config, Mode::AtOnce, WallClock::default())
    }

    fn row(port: usize) -> HalfOpenRow {
        HalfOpenRow {
            tuple: Tuple {
                netns: 1,
                local_addr: [1; 16],
                peer_addr: [2; 16],
                local_port: 80,
                peer_port: port as u16,
            },
            family: 2,
            retrans: 1,
            expires_ms: 2000,
        }
    }

    /// What two rounds say, of which the second shows half of the rows of the first, and what came of the others.
    fn handshakes(mut engine: Engine) -> Vec<(u64, u64, String)> {
        let mut lines: Vec<Line> = Vec::new();
        let mut take = |engine: &mut Engine| {
            engine.feed(Input::BatchEnds(0));
            lines.extend(
                engine
                    .take_lines()
                    .into_iter()
                    .flat_map(|batch| batch.lines),
            );
        };
        for (at_ns, ports) in [(10 * SEC, 0..100), (12 * SEC, 50..150)] {
            engine.feed(Input::PollBegins);
            engine.feed(Input::Dump(Box::new(SocketDump {
                netns: 1,
                before_ns: at_ns,
                after_ns: at_ns + 1000,
                rows: ports.map(row).collect(),
                ..SocketDump::default()
            })));
            let missing = engine.questions().fates;
            let of = missing.into_iter().map(|tuple| (tuple, Fate::Gone));
            engine.feed(Input::Fates(Fates {
                asked_ns: at_ns + 2000,
                of: of.collect(),
            }));
            while engine.read_rows() {
                take(&mut engine);
            }
            engine.feed(Input::PollEnds { at_ns: at_ns + SEC });
            take(&mut engine);
        }
        let of_handshake = |line: &Line| match &line.body {
            Body::Handshake(h) => Some((line.mono_ns, h.connection.id, format!("{:?}", h.outcome))),
            _ => None,
        };
        lines.iter().filter_map(of_handshake).collect()
    }

    #[test]
    fn issue18_rows_that_are_read_bit_by_bit_give_the_same_lines() {
        let at_once = handshakes(engine());
        assert!(at_once.len() >= 150 - ROOM, "{}", at_once.len());
        for rows in [1, 7, 99, 100] {
            let mut engine = engine();
            engine.reads_at_once(rows);
            assert_eq!(handshakes(engine), at_once, "{rows} rows");
        }
    }
}
